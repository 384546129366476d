"""Where along one key of an experiment a single path with splitting falls behind spraying, by theory or by emulation.

The axis goes from one value to another, as they are written; what lies between is written in the same unit. At a value,
a seed's ratio is the time of splitting over that of spraying, both of the same schedule.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from experiments.judge.rows import PASS
from experiments.runs.loads.replays import Replays
from experiments.runs.plan import safe
from experiments.spec.experiment import MAX_SEED, Experiment, Point
from experiments.spec.messages import SpecError
from experiments.spec.sweep import Sweep
from experiments.theory.crossing import HALVINGS, Crossing, find_crossing
from experiments.theory.loads import choose_spines
from experiments.theory.prediction import without_jitter
from traffic.schemes import Role, names_of_role, playing

if TYPE_CHECKING:
    import pandas as pd

_VALUE = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) ?([A-Za-zµμ/%]*)")

Times = Mapping[tuple[int, str], float]
"""How long a run took, by seed and scheme: only of runs that can be trusted."""

Measure = Callable[[Replays], Times]
"""Finds the times of all runs of a work, whose ids no other work has."""


@dataclass(frozen=True)
class Axis:
    """A key of an experiment, and the numbers between which it is searched, in `unit`."""

    key: str
    low: float
    high: float
    unit: str

    @classmethod
    def of(cls, key: str, from_: str, to: str) -> Axis:
        """Read two values of one unit; 0 has any. Raises SpecError."""
        numbers = []
        for text in (from_, to):
            match = _VALUE.fullmatch(text.strip())
            if match is None:
                raise SpecError(f"{key}: {text!r} is not a number with or without a unit; write such as 0 or 100%")
            numbers.append((float(match[1]), match[2]))
        (low, low_unit), (high, unit) = numbers
        if low and low_unit != unit:
            raise SpecError(f"{key}: {from_} and {to} have different units; write both alike")
        if not low < high:
            raise SpecError(f"{key}: from {from_} to {to} there is nothing; write the smaller value first")
        return cls(key, low, high, unit)

    def written(self, number: float) -> str:
        """Return a value of the axis as an experiment has it."""
        return f"{number:.10g}{self.unit}"

    def point(self, experiment: Experiment, number: float) -> Point:
        """Return the experiment at a value of the axis. Raises SpecError."""
        value: object = self.written(number)
        if not self.unit:
            value = int(number) if float(number).is_integer() else number
        [point] = experiment.model_copy(update={"sweep": Sweep({self.key: (value,)})}).points()
        return point


@dataclass(frozen=True)
class Frontier:
    """What was found for one traffic: where `splitting` falls more than `within` behind `spraying`."""

    traffic: str
    splitting: str
    spraying: str
    within: float
    axis: Axis
    found: Crossing

    def __str__(self) -> str:
        """The answer in a sentence."""
        axis, found = self.axis, self.found
        behind = f"{self.splitting} falls more than {100 * self.within:g} % behind {self.spraying}"
        seeds = sum(len(each.ratios) for each in found.tried)
        basis = f"{100 * found.confidence:g} % confidence, {seeds} pairs of runs"
        if found.low is not None and found.high is not None:
            where = f"between {axis.written(found.low)} and {axis.written(found.high)}"
            return f"{self.traffic}: {behind} {where} of {axis.key} ({basis})."
        if found.high is not None:
            return f"{self.traffic}: {behind} at {axis.written(found.high)} of {axis.key} or before ({basis})."
        if found.unclear_at:
            doubt = ", ".join(map(axis.written, found.unclear_at))
            return f"{self.traffic}: nowhere was it seen that {behind}, but at {doubt} of {axis.key} seeds do not tell."
        stays = f"{self.splitting} stays within {100 * self.within:g} % of {self.spraying}"
        return f"{self.traffic}: {stays} up to {axis.written(axis.high)} of {axis.key} ({basis})."

    @property
    def stretch(self) -> tuple[float, float]:
        """Between which values the crossing is; infinite where no value of the axis is beyond it."""
        low, high = self.found.low, self.found.high
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def rows(self) -> list[dict[str, object]]:
        """A row for every seed at every value that was tried."""
        return [
            {
                "traffic": self.traffic,
                self.axis.key: self.axis.written(each.value),
                "ratio": ratio,
                "side": str(each.side),
            }
            for each in self.found.tried
            for ratio in each.ratios
        ]


def compared(predicted: Frontier, emulated: Frontier) -> str:
    """Return a sentence: what theory says of one traffic, what was emulated, and whether they can both be right."""
    agree = max(predicted.stretch[0], emulated.stretch[0]) < min(predicted.stretch[1], emulated.stretch[1])
    words = f"{_where(predicted)} is predicted, {_where(emulated)} emulated"
    return f"{emulated.traffic}, {emulated.axis.key}: {words}; {'they agree' if agree else 'they differ'}."


def _where(frontier: Frontier) -> str:
    low, high = frontier.stretch
    written = frontier.axis.written
    if math.isinf(low) and math.isinf(high):
        return "nothing certain"
    if math.isinf(high):
        return f"none up to {written(low)}"
    return f"before {written(high)}" if math.isinf(low) else f"{written(low)} to {written(high)}"


def frontiers(
    experiment: Experiment,
    axis: Axis,
    within: float,
    measure: Measure,
    *,
    most_seeds: int,
    halvings: int = HALVINGS,
    expected: Sequence[Frontier] = (),
) -> Iterator[Frontier]:
    """Find the frontier of every traffic of `experiment`, one after the other. Raises SpecError.

    Seeds are 1, 2 and so on, at every value of the axis. A run has the same id in whatever order runs are asked for.
    `expected` are the frontiers that a search begins at, one for each traffic.
    """
    if experiment.sweep:
        raise SpecError(f"{experiment.name}: sweep: a frontier has an axis of its own; --set sweep=null")
    schemes = pair_of(experiment)
    for number in (axis.low, axis.high):
        axis.point(experiment, number)
    for index, label in enumerate(dict.fromkeys(run.label for run in Replays(experiment).runs)):

        def observe(value: float, first: int, count: int, index: int = index) -> Sequence[float]:
            seeds = range(first + 1, min(first + count, MAX_SEED) + 1)
            asked = experiment.model_copy(update={"schemes": schemes, "seeds": tuple(seeds)})
            point = axis.point(asked, value)
            work = Replays(point.experiment, point)
            work.runs = [
                replace(run, run_id=f"{index + 1}-{safe(axis.written(value))}-{run.scheme}-s{run.seed}")
                for run in work.runs
                if run.traffic == index
            ]
            times = measure(work)
            pairs = [(times.get((seed, schemes[0])), times.get((seed, schemes[1]))) for seed in seeds]
            return [splitting / spraying for splitting, spraying in pairs if splitting and spraying]

        near = [end for end in expected[index].stretch if math.isfinite(end)] if expected else []
        found = find_crossing(
            observe, axis.low, axis.high, 1 + within, most_seeds=most_seeds, near=near, halvings=halvings
        )
        yield Frontier(label, *schemes, within, axis, found)


def predicted(work: Replays) -> Times:
    """Return what the fluid model expects of every run; nothing of those it cannot hold."""
    times = {}
    for run in work.runs:
        work.check_listable(run)
        plan = work.plan(run)
        spines = choose_spines(plan, work.topology, run.seed)
        if exact := without_jitter(plan, work.topology, spines, work.faults(run)):
            times[run.seed, run.scheme] = exact.cct_s
    return times


def measured(work: Replays, runs: pd.DataFrame) -> Times:
    """Return what those runs of `work` took that can be trusted, by `runs`, a frame like runs.csv."""
    mine = {run.run_id for run in work.runs}
    rows = runs[runs.run_id.isin(mine) & (runs.fidelity == PASS)] if len(runs) else runs
    return {(int(row.seed), str(row.scheme)): float(row.cct_s) for row in rows.itertuples()}


def pair_of(experiment: Experiment) -> tuple[str, str]:
    """The schemes that are compared: which splits, and which sprays."""
    return _of_role(experiment, "splitting"), _of_role(experiment, "spraying")


def _of_role(experiment: Experiment, role: Role) -> str:
    """The scheme of the experiment that plays `role`, or the one that usually does."""
    return playing(role, experiment.schemes) or names_of_role(role)[0]
