"""What theory expects of one run, by the paths its seed hashes, and whether an emulated time agrees with it.

A schedule whose flows wait for each other may run in lockstep, which the fluid model keeps to the last byte and a real
network does not; and connections that have more than one bottleneck share them by max-min fairness only ideally. So the
prediction is a range as well: of the same plan with its sizes varied a little, of proportional fairness, to which equal
windows lead in the long run, and of the plan sent packet by packet (`experiments.theory.packets`), which knows what
windows do before that. Where that is narrow, the one number can be relied on; where it is wide, the run is a
knife-edge.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from emulator.faults import Fault
from emulator.topology import LeafSpine
from experiments.theory.bound import bound_s
from experiments.theory.capacity import capacity_changes
from experiments.theory.fairness import ProportionalRates
from experiments.theory.fluid import TOLERANCE, FluidResult, simulate
from experiments.theory.loads import Ints, choose_spines
from experiments.theory.packets import frames_of, simulate_packets
from traffic.plan import Piece, TrafficPlan
from traffic.transport import Transport

MAX_PIECES = 1_000_000
"""Beyond it, the fluid model takes more than about a gigabyte a run."""

MAX_JITTERED_PIECES = 5_000
"""Beyond it, repeating the fluid model takes longer than is worth waiting for without having asked."""

JITTER = 0.05
"""By how much flows' sizes vary where nothing else is said."""

REPEATS = 5
"""How often the sizes of a run that is to be emulated are varied."""

MAX_FRAMES = 100_000
"""Beyond it, sending a plan frame by frame takes longer than a second or two."""

_TIMES_SENT = 3  # packet by packet

EXPLAINED = 0.95, 1.10
"""A time is explained from so many times the lowest prediction to so many times the highest. Upwards there is more
room: a network has packets, slow start and acknowledgements, all of which take time."""


@dataclass(frozen=True)
class Predicted:
    """A run's time in seconds by max-min fairness; the range by other sizes, sharing and packets, where tried."""

    cct_s: float
    low_s: float | None = None
    high_s: float | None = None


def predicted_columns(predicted: Predicted | None) -> dict[str, float | None]:
    """The columns of runs.csv that say what was expected; empty for None."""
    cct_s, low_s, high_s = (predicted.cct_s, predicted.low_s, predicted.high_s) if predicted else (None, None, None)
    return {"predicted_cct_s": cct_s, "predicted_low_s": low_s, "predicted_high_s": high_s}


def agreement(cct_s: float, predicted: Predicted | None) -> dict[str, float | str | None]:
    """The columns of runs.csv that set an emulated time beside what was expected; empty where either is missing."""
    if predicted is None or not predicted.cct_s > 0 or not cct_s > 0:  # pandas has NaN for what is missing
        return {"emulated_over_predicted": None, "explained": ""}
    ratio = cct_s / predicted.cct_s
    low, high = (
        1.0 if end_s is None or pd.isna(end_s) else end_s / predicted.cct_s
        for end_s in (predicted.low_s, predicted.high_s)
    )
    return {"emulated_over_predicted": ratio, "explained": "yes" if explained(ratio, low, high) else "no"}


def explained(emulated_over_predicted: float, low: float = 1.0, high: float = 1.0) -> bool:
    """Whether an emulated time is what theory expects; `low` and `high` are its range, over the prediction as well."""
    return EXPLAINED[0] * low <= emulated_over_predicted <= EXPLAINED[1] * high


def predict_run(
    plan: TrafficPlan,
    fabric: LeafSpine,
    seed: int,
    faults: Sequence[Fault] = (),
    transport: Transport | None = None,
) -> Predicted | None:
    """What an emulation of `plan` with `seed` should take; None beyond MAX_PIECES, and for `faults` beyond a model."""
    spines = choose_spines(plan, fabric, seed)
    exact = without_jitter(plan, fabric, spines, faults)
    return with_range(exact, plan, fabric, spines, seed, faults=faults, transport=transport) if exact else None


def without_jitter(
    plan: TrafficPlan, fabric: LeafSpine, spines: Ints, faults: Sequence[Fault] = ()
) -> FluidResult | None:
    """The fluid model of `plan` as it is; None beyond MAX_PIECES, and where it cannot tell (a scheme, `faults`).

    It knows no losses; nor what becomes of equal shares over links that differ, from the start or by faults, as that
    hangs on how TCP takes packets that overtake each other.
    """
    if len(plan.pieces) > MAX_PIECES or plan.scheme.unpredicted or not all(fault.predictable for fault in faults):
        return None
    if plan.scheme.spreads and (faults or (fabric.rates_differ and not plan.scheme.weighted)):
        return None
    return simulate(plan, fabric, spines, changes=capacity_changes(fabric, faults))


def with_range(
    exact: FluidResult,
    plan: TrafficPlan,
    fabric: LeafSpine,
    spines: Ints,
    seed: int,
    *,
    jitter: float = JITTER,
    repeats: int = REPEATS,
    most_pieces: int = MAX_JITTERED_PIECES,
    faults: Sequence[Fault] = (),
    transport: Transport | None = None,
) -> Predicted:
    """Return `exact`, and the least and most of it, `repeats` with other sizes, proportional fairness and packets.

    No range beyond `most_pieces`, and none without `jitter`; no packets where `transport` has acknowledgements wait.

    The k-th repeat's sizes are drawn from (`seed`, k): the same run has the same range whenever it is predicted.
    """
    if len(plan.pieces) > most_pieces:
        return Predicted(exact.cct_s)
    times_s = [exact.cct_s]
    if jitter:
        draws = (np.random.default_rng((seed, repeat)) for repeat in range(repeats))
        tolerance = min(TOLERANCE, jitter / 10)  # more would hide what the sizes do
        changes = capacity_changes(fabric, faults)
        for draw in draws:
            other = jittered(plan, jitter, draw)
            times_s.append(simulate(other, fabric, spines, tolerance=tolerance, changes=changes).cct_s)
        times_s.append(simulate(plan, fabric, spines, sharing=ProportionalRates(), changes=changes).cct_s)
        times_s += _by_packets(plan, fabric, spines, seed, faults, transport or Transport())
    return Predicted(exact.cct_s, min(times_s), max(times_s))


def _by_packets(
    plan: TrafficPlan, fabric: LeafSpine, spines: Ints, seed: int, faults: Sequence[Fault], transport: Transport
) -> Iterator[float]:
    """What the plan takes sent packet by packet, with other luck each time; nothing where that cannot be told.

    Token buckets that are full at the beginning may have it below the bound: that is the emulator's, and is left out.
    """
    if frames_of(plan, fabric) > MAX_FRAMES or transport.acknowledgements != "first":
        return
    least_s, changes = bound_s(plan.schedule.own, fabric, plan.hosts), capacity_changes(fabric, faults)
    for time in range(_TIMES_SENT):
        luck = random.Random(f"{seed}/{time}")
        took_s = simulate_packets(plan, fabric, spines, luck, transport=transport, changes=changes)
        if took_s is not None:
            yield max(took_s, least_s)


def jittered(plan: TrafficPlan, jitter: float, random: np.random.Generator) -> TrafficPlan:
    """Return `plan` with the size of each flow that has bytes times a uniform factor of 1 - jitter to 1 + jitter.

    All pieces of a flow have its factor, and at least one byte; nothing else changes, so `offset_bytes` is no longer
    where a piece begins.
    """
    factors = random.uniform(1 - jitter, 1 + jitter, len(plan.schedule.flows)).tolist()
    pieces = [
        Piece(piece.flow, piece.connection, piece.offset_bytes, max(1, round(piece.size_bytes * factors[piece.flow])))
        if piece.size_bytes
        else piece
        for piece in plan.pieces
    ]
    return replace(plan, pieces=pieces)
