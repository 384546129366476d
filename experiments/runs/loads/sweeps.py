"""The runs of a sweep: an experiment at each of its points, on one fabric as long as the fabric is the same."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from emulator.files import Folder
from experiments.judge.evidence import Measured
from experiments.judge.rows import Judged
from experiments.runs.loads.replays import Replays
from experiments.runs.messages import Job
from experiments.runs.plan import Run, merged
from experiments.runs.work import Seen, Work, refuse
from experiments.spec.budget import too_many_in_all, too_many_runs
from experiments.spec.experiment import Experiment


class Sweep(Work):
    """The runs of several points: those of one fabric first, all points of a seed before the next seed."""

    def __init__(self, experiment: Experiment, works: Sequence[Replays]) -> None:
        self.take(experiment)
        self.works = works
        self.runs = sorted((run for work in works for run in work.runs), key=lambda run: run.run_id)
        self._work = {run.run_id: work for work in works for run in work.runs}

    @property
    def parts(self) -> Sequence[Work]:
        return [OneFabric(self.experiment, together) for together in _by_fabric(self.works)]

    def prepare(self, run: Run) -> None:
        self._work[run.run_id].prepare(run)

    def job(self, run: Run, captures: Folder) -> Job:
        return self._work[run.run_id].job(run, captures)

    def judged(self, run: Run, measured: Measured[Any], seen: Seen) -> Judged:
        return self._work[run.run_id].judged(run, measured, seen)

    def estimate_s(self, run: Run) -> float:
        return self._work[run.run_id].estimate_s(run)

    def columns(self, run: Run) -> dict[str, str]:
        return self._work[run.run_id].columns(run)

    def too_short(self) -> dict[str, str]:
        return {label: reason for work in self.works for label, reason in work.too_short().items()}

    @property
    def congestion_controls(self) -> Collection[str]:
        return {name for work in self.works for name in work.congestion_controls}

    def check_emulable(self) -> None:
        refuse(too_many_in_all(sum(work.pieces_in_all() for work in self.works), len(self.runs)), self.name)
        for work in self.works:
            work.check_emulable()


class OneFabric(Sweep):
    """The runs of those points of a sweep whose fabric and transport are the same: see `_by_fabric`."""

    def __init__(self, experiment: Experiment, works: Sequence[Replays]) -> None:
        super().__init__(experiment, works)
        self.take(works[0].experiment)

    @property
    def parts(self) -> Sequence[Work]:
        return [self]


def replay_work(experiment: Experiment) -> Work:
    """Return the runs of an experiment's traffic, at every point where it has a sweep. Raises SpecError."""
    works = works_of(experiment)
    return Sweep(experiment, works) if experiment.sweep else works[0]


def works_of(experiment: Experiment) -> list[Replays]:
    """Return the runs of every point of an experiment, or all where it sweeps nothing. Raises SpecError."""
    if not experiment.sweep:
        return [Replays(experiment)]
    points = experiment.points()
    entries, schemes, seeds = map(len, (experiment.traffic, experiment.schemes, experiment.seeds))
    refuse(too_many_runs(len(points) * entries, schemes, seeds), experiment.name)
    works = [Replays(point.experiment, point) for point in points]
    before, total = 0, sum(len(work.runs) for work in works)
    for together in _by_fabric(works):
        for work, runs in zip(together, merged([work.runs for work in together], before, total), strict=True):
            work.runs = runs
            before += len(runs)
    return works


def _by_fabric(works: Sequence[Replays]) -> list[list[Replays]]:
    """The points that can be performed on one fabric, in the order in which the first of each comes."""
    groups: list[list[Replays]] = []
    for work in works:
        order = work.order(), work.captures, work.transport
        for group in groups:
            if order == (group[0].order(), group[0].captures, group[0].transport):
                group.append(work)
                break
        else:
            groups.append([work])
    return groups
