"""Performs a few runs on one fabric and judges them: for measuring this machine, where no experiment is at hand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from controllers.dataplane import PLANES
from emulator.files import Folder
from emulator.meters.capture import Which
from emulator.topology import LeafSpine
from experiments.judge.evidence import Built
from experiments.judge.rows import FAIL, PASS
from experiments.runs.loads.replays import ReplayWork
from experiments.runs.messages import Failed, Job
from experiments.runs.outside import Done, conducted
from experiments.runs.plan import Run
from experiments.theory.bound import bound_s
from traffic.abreast import DEFAULT_PROCESSES, Processes
from traffic.collectives import build_schedule
from traffic.placement import place
from traffic.schedule import Schedule
from traffic.transport import Transport

_SHAPES = {16: (4, 4, 4), 32: (8, 4, 4), 64: (8, 8, 8), 128: (8, 8, 16)}
HOST_COUNTS = tuple(_SHAPES)
_STEADY_RATE_BPS = 20_000_000  # below it, a frame's way over four links is no small part of a second


@dataclass(frozen=True)
class Traffic:
    """One run: what is sent, under which scheme, and what is captured of it."""

    schedule: Schedule
    scheme: str = "ethereal"
    seed: int = 1
    captures: Which = "none"
    placement: str = "packed"


class Trials(ReplayWork):
    """Runs that no experiment file lists, all on one fabric. With `predicted`, theory is asked of each beforehand."""

    name = "probe"

    def __init__(
        self,
        topology: LeafSpine,
        traffic: Sequence[Traffic],
        dataplane: str,
        *,
        predicted: bool,
        processes: Processes = DEFAULT_PROCESSES,
    ) -> None:
        super().__init__()
        self.topology, self.transport, self.dataplane = topology, Transport(), dataplane
        self._traffic, self.predicts, self.processes = traffic, predicted, processes
        self.runs = [
            Run(str(number), number, each.schedule.collective, each.scheme, each.seed)
            for number, each in enumerate(traffic)
        ]

    def ideal(self, run: Run) -> tuple[Schedule, Sequence[int], float]:
        each = self._traffic[run.traffic]
        hosts = place(each.placement, self.topology, each.schedule.ranks)
        return each.schedule, hosts, bound_s(each.schedule, self.topology, hosts)

    def job(self, run: Run, captures: Folder) -> Job:
        return replace(super().job(run, captures), captures=self._traffic[run.traffic].captures)

    def estimate_s(self, run: Run) -> float:
        return self.bound_s(run)

    def columns(self, run: Run) -> dict[str, str]:
        return {}


def fabric_of(hosts: int, rate_bps: int, burst_frames: int = 1) -> LeafSpine:
    """Return a fabric of HOST_COUNTS hosts, not oversubscribed, whose host links have this rate."""
    leaves, spines, hosts_per_leaf = _SHAPES[hosts]
    fabric_rate_bps = rate_bps * hosts_per_leaf // spines
    return LeafSpine(leaves, spines, hosts_per_leaf, rate_bps, fabric_rate_bps, burst_frames=burst_frames)


def process_counts() -> list[int]:
    """By how many processes a replay is tried: one, two, and one a core."""
    return sorted({1, 2, len(os.sched_getaffinity(0))})


def bytes_in(fabric: LeafSpine, seconds: float = 1.0) -> int:
    """Return what one host's link carries in `seconds`, as payload; longer where a single frame takes long."""
    seconds *= max(1.0, _STEADY_RATE_BPS / fabric.host_rate_bps)
    return max(1, int(seconds * fabric.host_rate_bps / 8 / fabric.wire_bytes(1.0)))


def permutation(fabric: LeafSpine, seconds: float = 1.0, channels: int = 4) -> Schedule:
    """Have every host send to its counterpart in the next leaf: all links are busy for `seconds`."""
    return build_schedule(
        "permutation",
        ranks=fabric.hosts,
        size_bytes=bytes_in(fabric, seconds),
        channels=channels,
        shift=fabric.hosts_per_leaf,
    )


def alltoall(fabric: LeafSpine, seconds: float = 1.0, channels: int = 1) -> Schedule:
    """Have every host send to every other, for about `seconds`."""
    return build_schedule("alltoall", ranks=fabric.hosts, size_bytes=bytes_in(fabric, seconds), channels=channels)


def rows(
    fabric: LeafSpine,
    dataplane: str,
    traffic: Sequence[Traffic],
    *,
    predicted: bool = False,
    processes: Processes = DEFAULT_PROCESSES,
) -> Iterator[dict[str, Any]]:
    """Return the row of `runs.csv` of each run in turn, and what building the fabric took as `setup_s`.

    A run that does not finish has a row too: its fidelity is "fail", and there is no `cct_s`. With `predicted`, theory
    is asked what each run should take, before anything is built. `processes` replay, or as many as by default. Needs
    root. Raises EmulatorError where the fabric cannot be built.
    """
    work = Trials(fabric, traffic, dataplane, predicted=predicted, processes=processes)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        setup: dict[str, Any] = {}
        for outcome in conducted(work, work.runs, log, Folder(Path(folder))):
            match outcome:
                case Built():
                    setup = {"dataplane": outcome.dataplane, "setup_s": outcome.setup_s["ready"]}
                case Done(_, judged):
                    yield {**judged.row, "hosts": fabric.hosts, **setup}
                case Failed(run_id, reason):
                    run = work.runs[int(run_id)]
                    known = {**work.named(run), "collective": run.label, "hosts": fabric.hosts, **setup}
                    yield {**known, "fidelity": FAIL, "fidelity_reasons": reason}


def medians(
    fabric: LeafSpine,
    dataplane: str,
    schedules: Sequence[Schedule],
    schemes: Sequence[str],
    seeds: Sequence[int],
    numbers: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """A row a schedule and scheme, all on one fabric: the medians of `numbers` over the seeds that finished (None if
    none did), how many seeds had fidelity "pass", and why the others had not. Otherwise as `rows`.
    """
    traffic = [Traffic(schedule, scheme, seed) for schedule in schedules for scheme in schemes for seed in seeds]
    done = list(rows(fabric, dataplane, traffic))
    for first in range(0, len(done), len(seeds)):
        same = done[first : first + len(seeds)]
        finished = [row for row in same if "cct_s" in row]
        yield {
            **{name: same[0][name] for name in ("dataplane", "collective", "scheme")},
            **{name: median(row[name] for row in finished) if finished else None for name in numbers},
            "pass": f"{sum(row['fidelity'] == PASS for row in same)}/{len(same)}",
            "reasons": "; ".join(sorted({row["fidelity_reasons"] for row in same if row["fidelity_reasons"]})),
        }


def faithful(row: dict[str, Any], most_over_bound: float) -> bool:
    """Return whether a run's number can be trusted and is within `most_over_bound` of its bound."""
    return row["fidelity"] == PASS and bool(row["cct_over_bound"] <= most_over_bound)


def available() -> list[str]:
    """Return the data planes that are installed here."""
    return [name for name, plane in PLANES.items() if plane.installed()]
