"""How far emulated times are from theory's, over many kinds of traffic, both placements and both data planes.

Needs root, and a machine that does nothing else meanwhile. Takes half an hour on two cores.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from emulator.topology import LeafSpine
from experiments.judge.rows import PASS
from experiments.machine.probe import Traffic, available, rows
from traffic.collectives import build_schedule
from traffic.schedule import Flow, Schedule

_SCHEMES = ("ecmp", "spray", "ethereal", "subflow-4")
_SEEDS = (1, 2, 3)
_HOSTS = 16
_STEP_BYTES = 8_000_000  # of a collective, at 50 Mb/s: a second and more


@dataclass(frozen=True)
class Case:
    """Schedules on one fabric. `placement` says which host each rank lives on."""

    fabric: LeafSpine
    dataplane: str
    placement: str
    schedules: Sequence[tuple[str, Schedule]]


def run(seeds: Sequence[int] = _SEEDS) -> list[dict[str, Any]]:
    """Return a row for every fabric, traffic and scheme: medians over the seeds whose fidelity is "pass".

    `predicted_low` to `predicted_high` is the range of predictions over the exact one: where it is wide, a small change
    of sizes, or of how connections share a link, changes the time by as much, and no single number can be expected.
    """
    found = []
    for case in cases():
        if case.dataplane not in available():
            continue
        traffic = [
            (label, Traffic(schedule, scheme, seed, placement=case.placement))
            for label, schedule in case.schedules
            for scheme in _SCHEMES
            for seed in seeds
        ]
        done = rows(case.fabric, case.dataplane, [each for _, each in traffic], predicted=True)
        by_cell: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for (label, each), row in zip(traffic, done, strict=True):
            by_cell.setdefault((label, each.scheme), []).append(row)
            if len(by_cell[label, each.scheme]) == len(seeds):
                found.append(_cell(case, label, each.scheme, by_cell[label, each.scheme]))
                print(found[-1], file=sys.stderr, flush=True)
    return found


def cases() -> Iterator[Case]:
    """Return every fabric and what is tried on it."""
    wide, square = (LeafSpine(8, 8, 2, 20_000_000, 20_000_000), LeafSpine(4, 4, 4, 50_000_000, 50_000_000))
    yield Case(wide, "linux", "packed", [_alltoall(2_000_000), _alltoall(6_000_000)])
    for placement in ("packed", "interleaved"):
        yield Case(square, "linux", placement, list(_collectives(1 if placement == "interleaved" else 4)))
    yield Case(square, "linux", "packed", list(_matrices()))
    slow, slow_wide = (LeafSpine(4, 4, 4, 10_000_000, 10_000_000), LeafSpine(8, 8, 2, 10_000_000, 10_000_000))
    yield Case(slow, "ovs", "packed", [_permutation(4, 4, 2_000_000), _alltoall(2_000_000)])
    yield Case(slow_wide, "ovs", "packed", [_alltoall(2_000_000), _alltoall(4_000_000)])


def _cell(case: Case, label: str, scheme: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    trusted = [row for row in runs if row["fidelity"] == PASS]
    ratios = [row["emulated_over_predicted"] for row in trusted]
    fabric = case.fabric
    shape = f"{fabric.leaves}x{fabric.spines}x{fabric.hosts_per_leaf} at {fabric.host_rate_bps / 1e6:g} Mb/s"
    lows = [row["predicted_low_s"] / row["predicted_cct_s"] for row in trusted]
    highs = [row["predicted_high_s"] / row["predicted_cct_s"] for row in trusted]
    return {
        "case": f"{runs[0]['dataplane']}, {shape}, {case.placement}",
        "traffic": label,
        "scheme": scheme,
        "cct_over_bound": _median([row["cct_over_bound"] for row in trusted]),
        "emulated_over_predicted": _median(ratios),
        "least": min(ratios, default=None),
        "most": max(ratios, default=None),
        "predicted_low": _median(lows),
        "predicted_high": _median(highs),
        "explained": f"{sum(row['explained'] == 'yes' for row in trusted)}/{len(trusted)}",
        "pass": f"{len(trusted)}/{len(runs)}",
        "reasons": "; ".join(sorted({row["fidelity_reasons"] for row in runs if row["fidelity_reasons"]})),
    }


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _alltoall(size_bytes: int) -> tuple[str, Schedule]:
    return f"alltoall {size_bytes // 1_000_000} MB", build_schedule("alltoall", ranks=_HOSTS, size_bytes=size_bytes)


def _permutation(channels: int, shift: int, size_bytes: int = _STEP_BYTES) -> tuple[str, Schedule]:
    schedule = build_schedule("permutation", ranks=_HOSTS, size_bytes=size_bytes, channels=channels, shift=shift)
    return f"permutation, {channels} flow{'s' if channels > 1 else ''} a host", schedule


def _collectives(shift: int) -> Iterator[tuple[str, Schedule]]:
    yield from (_permutation(channels, shift) for channels in (1, 4))
    yield _alltoall(_STEP_BYTES)
    for collective, algorithm in (
        ("allreduce", "ring"),
        ("allreduce", "halving-doubling"),
        ("allreduce", "direct"),
        ("allreduce", "double-binary-tree"),
        ("allgather", "recursive-doubling"),
    ):
        schedule = build_schedule(collective, algorithm, ranks=_HOSTS, size_bytes=_STEP_BYTES)
        yield f"{collective} {algorithm}", schedule


def _matrices() -> Iterator[tuple[str, Schedule]]:
    senders = [Flow(number, number + 1, 0, 1_000_000) for number in range(_HOSTS - 1)]
    yield "incast 15 to 1", Schedule("incast", "15-to-1", _HOSTS, 1, 1_000_000, senders)
    for window in (1, 4):
        schedule = build_schedule("alltoall", ranks=_HOSTS, size_bytes=16_000_000, window=window)
        yield f"serial all-to-all, window {window}", schedule
    yield "random pairs, Pareto sizes", _pareto(mean_bytes=2_000_000, flows_a_host=4)


def _pareto(mean_bytes: int, flows_a_host: int, seed: int = 1) -> Schedule:
    """Flows to hosts drawn at random, their sizes from a Pareto distribution of shape 1.6, at most 8 times the mean."""
    draw, shape = random.Random(seed), 1.6
    flows = []
    for number in range(_HOSTS * flows_a_host):
        src = number % _HOSTS
        dst = draw.choice([host for host in range(_HOSTS) if host != src])
        size_bytes = min(int(mean_bytes * (shape - 1) / shape * draw.paretovariate(shape)), 8 * mean_bytes)
        flows.append(Flow(number, src, dst, size_bytes, channel=number // _HOSTS))
    return Schedule("random", "pareto", _HOSTS, flows_a_host, mean_bytes, flows)
