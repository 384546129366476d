"""What a worker of a cluster does for a command: says what it is, and performs runs in a sandbox of its own.

What is here runs on another machine, in a worker that somebody started there as root. It is called by name, so that
worker and command must be of the same version.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from emulator.caller import as_caller
from emulator.doctor.diagnose import diagnose
from emulator.doctor.kernel import without_congestion_control
from emulator.errors import EmulatorError
from emulator.files import Folder
from emulator.inputs import quote
from emulator.programs import Ended, Output
from emulator.sandbox import Sandbox
from experiments.judge.evidence import Built
from experiments.results.manifest import here
from experiments.runs.messages import Failed, Lost, Started
from experiments.runs.outside import Done, Outcome, Sandboxes, conducted
from experiments.runs.work import Work
from experiments.spec.experiment import Experiment, restore_experiment
from experiments.spec.messages import SpecError
from traffic.schemes import scheme_of

PIECE_BYTES = 4_000_000  # of a capture, or of a log: what is sent at once
_LOOK_S = 0.2  # how often it is asked whether somebody still waits for the runs


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Asked:
    """What runs are made from, wherever they are performed: an experiment as a manifest has it, and what it names.

    `files` are by their places, relative ones as the experiment has them; `make` gives the runs of an experiment.
    """

    experiment: Mapping[str, Any]
    files: Mapping[str, bytes]
    make: Callable[[Experiment], Work]

    def work(self, folder: Path) -> Work:
        """Write the files to `folder` and return the runs; they have the same ids everywhere. Raises SpecError."""
        for place, content in self.files.items():
            path = folder / place
            if not path.resolve().is_relative_to(folder.resolve()):
                raise SpecError(f"{quote(place)}: is no place in a results folder, such as inputs/flows.csv")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return self.make(restore_experiment(self.experiment, "the experiment", folder))


@dataclass(frozen=True)
class Needs:
    """What a worker must have: these `versions`, what `schemes` and congestion controls take, all that `examine` asks.

    `warn` says what else is to be known of a machine that is to perform the runs.
    """

    versions: Mapping[str, str | None]
    congestion_controls: Collection[str] = ()
    schemes: Collection[str] = ()
    dataplane: str = "auto"
    warn: Callable[[], str | None] = _nothing
    examine: Callable[[], str | None] = _nothing


@dataclass(frozen=True)
class Greeting:
    """What a worker says of its machine; `lacks` is why it cannot perform the runs, for people, after its name."""

    node: str
    about: Mapping[str, Any]
    lacks: str = ""
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Delivery:
    """What came of a run, as a whole, and what the log says since the last delivery."""

    attempt: str
    outcomes: Sequence[Outcome] = ()
    log: bytes = b""


@dataclass(frozen=True)
class CapturePiece:
    """A part of the file `name` among the captures of a run, from its byte `offset` on."""

    attempt: str
    run_id: str
    name: str
    offset: int
    content: bytes


@dataclass(frozen=True)
class Over:
    """Nothing of an attempt is left on the worker: neither processes nor files."""

    attempt: str


Message = Delivery | CapturePiece | Over


@dataclass(frozen=True)
class Line:
    """What a task has of its command: `send` takes what it has to say, `wanted` is whether anybody waits for it."""

    send: Callable[[Message], None]
    wanted: Callable[[], bool]


class Post(Protocol):
    """The way from a task to its command. Pickled on its way to the worker."""

    def open(self) -> AbstractContextManager[Line]:
        """Give the running task its end of it."""


@dataclass(frozen=True)
class Task:
    """Some runs of one fabric, for one machine. No other is ever called as this `attempt` is."""

    attempt: str
    asked: Asked
    run_ids: Sequence[str]
    machine: str
    post: Post
    limit_bps: Callable[[int], int | None]
    """How much Open vSwitch in user space carries faithfully on this machine, by the number of hosts."""

    sandbox: Sandboxes = Sandbox


def greet(needs: Needs) -> Greeting:
    """Return what this machine is and lacks; called on a worker."""
    about = here()
    lacks = _other_version(about["versions"], needs.versions) or needs.examine() or _lacks_feature(needs)
    warnings = [] if lacks else [f"{name} will not run: {why}" for name, why in _unrunnable(needs, needs.dataplane)]
    if not lacks and (warning := needs.warn()):
        warnings.append(warning)
    return Greeting(os.uname().nodename, about, lacks or "", warnings)


def _lacks_feature(needs: Needs) -> str | None:
    """What this kernel has not, whatever forwards."""
    controls = filter(None, map(without_congestion_control, sorted(needs.congestion_controls)))
    schemes = (f"{name} will not run there: {why}" for name, why in _unrunnable(needs, "linux"))
    return next(chain(controls, schemes), None)


def _unrunnable(needs: Needs, dataplane: str) -> Iterator[tuple[str, str]]:
    for name in needs.schemes:
        if why := scheme_of(name).lacking(dataplane):
            yield name, why


def _other_version(theirs: Mapping[str, str | None], ours: Mapping[str, str | None]) -> str | None:
    for name, version in ours.items():
        if theirs.get(name) != version:
            return (
                f"its {name} is {theirs.get(name) or 'unknown'}, this command's {version or 'unknown'}: "
                "have the same checkout on both"
            )
    return None


def unfit() -> str | None:
    """Return why this machine, or whoever started the worker, cannot emulate; None: nothing is missing."""
    if os.geteuid() != 0:
        return "it does not run as root: have its owner start it as root"
    missing = next((finding for finding in diagnose() if finding.status == "missing"), None)
    if missing is None:
        return None
    remedy = f" ({missing.remedy})" if missing.remedy else ""
    return f"it cannot emulate: {missing.name}: {missing.detail}{remedy}"


def perform(task: Task) -> None:
    """Perform the runs of `task` and deliver each as it ends; called on a worker.

    Raises EmulatorError when the fabric cannot be built, or when nobody wants the runs any more.
    """
    with task.post.open() as line:
        try:
            with _own_folder() as folder, (folder / "run.log").open("a+b") as log:
                _perform(task, folder, log, line)
        finally:
            with contextlib.suppress(Exception):  # whoever would take it may be gone, of which there are many signs
                line.send(Over(task.attempt))


def _perform(task: Task, folder: Path, log: BinaryIO, line: Line) -> None:
    work = task.asked.work(folder)
    asked_for = set(task.run_ids)
    todo = [run for run in work.runs if run.run_id in asked_for]
    captures, limit_bps = Folder(folder / "captures"), task.limit_bps(work.topology.hosts)
    said, kept = _Said(log), list[Outcome]()

    def deliver(*outcomes: Outcome) -> None:
        line.send(Delivery(task.attempt, outcomes, said.since()))

    for outcome in conducted(work, todo, log, captures, limit_bps, _while_wanted(task.sandbox, line.wanted)):
        if not line.wanted():
            raise EmulatorError("nobody wants these runs any more")
        match outcome:
            case Built():
                deliver(replace(outcome, machine=task.machine))
            case Lost(reason):
                deliver(Lost(f"{task.machine}: {reason}"))
            case Started():
                kept = [outcome]
            case Output() | Ended():
                kept.append(outcome)
            case Done(run_id, judged):
                _send_captures(task.attempt, run_id, captures, line.send)
                deliver(*kept, Done(run_id, replace(judged, row={**judged.row, "machine": task.machine})))
                kept = []
            case Failed():
                deliver(*kept, outcome)
                kept = []
            case _:  # what only matters while it lasts
                pass
    deliver()


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """Give a folder that goes with the block, of whoever called sudo to start the worker: captures are theirs."""
    with as_caller():
        made = tempfile.TemporaryDirectory(prefix="spraylab-", ignore_cleanup_errors=True)
    with made as name:
        yield Path(name)


def _while_wanted(sandbox: Sandboxes, wanted: Callable[[], bool]) -> Sandboxes:
    """Return `sandbox`, made to end as soon as nobody wants what happens in it."""

    @contextlib.contextmanager
    def watched(log: BinaryIO) -> Iterator[Any]:
        with sandbox(log) as world:
            over = threading.Event()

            def watch() -> None:
                while not over.wait(_LOOK_S):
                    if not wanted():
                        world.kill()
                        return

            thread = threading.Thread(target=watch, daemon=True)
            thread.start()
            try:
                yield world
            finally:
                over.set()
                thread.join()

    return watched


class _Said:
    """What is new in a log each time that it is asked for, but no more than a piece: its end."""

    def __init__(self, log: BinaryIO) -> None:
        self._log, self._read_bytes = log, 0

    def since(self) -> bytes:
        size_bytes = os.fstat(self._log.fileno()).st_size
        start = max(self._read_bytes, size_bytes - PIECE_BYTES)
        self._read_bytes = size_bytes
        return os.pread(self._log.fileno(), size_bytes - start, start)


def _send_captures(attempt: str, run_id: str, captures: Folder, send: Callable[[Message], None]) -> None:
    """Send the files of a run's captures, if it has any, and remove them here."""
    own = captures.path / run_id
    for path in sorted(own.iterdir()) if own.is_dir() else ():
        with path.open("rb") as file:
            offset = 0
            while piece := file.read(PIECE_BYTES):
                send(CapturePiece(attempt, run_id, path.name, offset, piece))
                offset += len(piece)
        path.unlink()
