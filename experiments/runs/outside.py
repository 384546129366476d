"""Has the sandbox perform runs, and judges each as it ends. Knows no console and no results folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from emulator.files import Folder
from emulator.meters.capture import capture_points
from emulator.order import FabricOrder
from emulator.programs import Ended, Output
from emulator.sandbox import Sandbox
from experiments.captures.summary import analyse
from experiments.judge.evidence import Built, Measured
from experiments.judge.rows import Judged
from experiments.runs.messages import Event, Failed, Glance, Gone, Job, Joined, Lost, Progress, Started
from experiments.runs.plan import Run
from experiments.runs.work import Seen, Work


@dataclass(frozen=True)
class Preparing:
    """What takes long is found before anything is emulated: that of run `number` of `total`."""

    number: int
    total: int


@dataclass(frozen=True)
class Decoding:
    """A run's captures are being read."""

    run_id: str


@dataclass(frozen=True)
class Done:
    """A run has finished and is judged."""

    run_id: str
    judged: Judged


Sandboxes = Callable[[BinaryIO], AbstractContextManager[Any]]
"""What makes a private world from its log, opened: `emulator.sandbox.Sandbox`, or `emulator.scripted.Scripted`."""

Outcome = (
    Preparing | Built | Started | Progress | Glance | Output | Ended | Decoding | Done | Failed | Lost | Joined | Gone
)


def conducted(
    work: Work,
    todo: Sequence[Run],
    log: BinaryIO,
    captures: Folder,
    userspace_limit_bps: int | None = None,
    sandbox: Sandboxes = Sandbox,
    *,
    watched: bool = False,
) -> Iterator[Outcome]:
    """Perform `todo`, some of the runs of `work`, and yield what happens as it does; a Glance too, where `watched`.

    `log` is the open file that the emulation and its daemons write to, `captures` the folder of packet captures.
    `sandbox` makes the private world, one for each of the `parts` of `work`; where the fabric is lost, it is built anew
    for the runs that are left. Raises EmulatorError when the fabric cannot be built.
    """
    for part in work.parts:
        own = {run.run_id for run in part.runs}
        if mine := [run for run in todo if run.run_id in own]:
            yield from _on_one_fabric(part, mine, log, captures, userspace_limit_bps, sandbox, watched=watched)


def _on_one_fabric(
    work: Work,
    todo: Sequence[Run],
    log: BinaryIO,
    captures: Folder,
    userspace_limit_bps: int | None,
    sandbox: Sandboxes,
    *,
    watched: bool,
) -> Iterator[Outcome]:
    by_id = {run.run_id: run for run in todo}
    for number, run in enumerate(todo, start=1):
        yield Preparing(number, len(todo))
        work.prepare(run)
    jobs = [replace(work.job(run, captures), watched=watched) for run in todo]
    while jobs:
        over: set[str] = set()
        lost = False
        with sandbox(log) as world:
            events = world.stream(_perform, work.order(userspace_limit_bps), jobs, timeout_s=work.silence_s)
            for outcome in _judged(work, by_id, events, captures):
                match outcome:
                    case Done(run_id) | Failed(run_id):
                        over.add(run_id)
                    case Lost():
                        lost = True
                yield outcome
        jobs = [job for job in jobs if job.run_id not in over] if lost else []


def _judged(work: Work, by_id: Mapping[str, Run], events: Iterator[Any], captures: Folder) -> Iterator[Outcome]:
    """What comes from the sandbox, on one fabric, with a run's row in place of what was measured."""
    built: Built | None = None
    for event in events:
        match event:
            case Built():
                built = event
                yield event
            case Measured(run_id) if built:
                captured = None
                if points := capture_points(built.ports, work.captures):
                    yield Decoding(run_id)
                    captured = analyse(captures / run_id, points, work.topology)
                yield Done(run_id, work.judged(by_id[run_id], event, Seen(built, captured)))
            case _:
                yield event


def _perform(order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
    """Runs in the sandbox."""
    from experiments.runs.inside import perform  # imports Mininet, which only a machine that emulates has

    yield from perform(order, jobs)
