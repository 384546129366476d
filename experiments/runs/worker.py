"""What a worker of a cluster does for a command: says what it is, and performs runs in a sandbox of its own.

What is here runs on another machine, in a worker that somebody started there as root. It is called by name, so that
worker and command must be of the same version.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from emulator.caller import as_caller
from emulator.doctor.diagnose import diagnose
from emulator.doctor.kernel import without_congestion_control
from emulator.errors import EmulatorError
from emulator.files import Folder
from emulator.programs import Ended, Output
from emulator.sandbox import Sandbox
from experiments.judge.evidence import Built
from experiments.judge.rows import Judged
from experiments.results.manifest import here
from experiments.runs.messages import Failed, Lost, Started
from experiments.runs.outside import Done, Outcome, Sandboxes, conducted
from experiments.runs.work import Work
from experiments.spec.experiment import Experiment, restore_experiment

RESOURCE = "fabric"
"""What Dask counts on a worker: it has one, and every task takes it."""

PIECE_BYTES = 4_000_000  # of a capture, or of a log: what is sent at once
_SEND_TIMEOUT_S = 300.0  # for a command that is slow to write, or whose queue is full
_LOOK_S = 0.2  # how often it is asked whether somebody still waits for the runs


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
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return self.make(restore_experiment(self.experiment, "the experiment", folder))


@dataclass(frozen=True)
class Needs:
    """What a worker must have: these `versions`, these congestion controls, and all that `examine` finds missing.

    `warn` says what else is to be known of a machine that is to perform the runs.
    """

    versions: Mapping[str, str | None]
    congestion_controls: Collection[str]
    warn: Callable[[], str | None]
    examine: Callable[[], str | None]


@dataclass(frozen=True)
class Greeting:
    """What a worker says of its machine; `lacks` is why it cannot perform the runs, for people, after its name."""

    node: str
    about: Mapping[str, Any]
    lacks: str = ""
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Delivery:
    """What came of a run, as a whole, and what the log says since the last delivery; or a piece of a capture."""

    attempt: int
    outcomes: Sequence[Outcome] = ()
    log: bytes = b""


@dataclass(frozen=True)
class CapturePiece:
    """A part of the file `name` among the captures of a run, from its byte `offset` on."""

    attempt: int
    run_id: str
    name: str
    offset: int
    content: bytes


@dataclass(frozen=True)
class Over:
    """Nothing of an attempt is left on the worker: neither processes nor files."""

    attempt: int


Message = Delivery | CapturePiece | Over


def greet(needs: Needs) -> Greeting:
    """Return what this machine is and lacks; called on a worker."""
    about, node = here(), os.uname().nodename
    lacks = _other_version(about["versions"], needs.versions) or needs.examine()
    for name in sorted(needs.congestion_controls):
        lacks = lacks or without_congestion_control(name)
    warning = None if lacks else needs.warn()
    return Greeting(node, about, lacks or "", [warning] if warning else [])


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


@dataclass(frozen=True)
class Task:
    """Some runs of one fabric, for one machine. `attempt` tells it apart from all others of its command."""

    asked: Asked
    run_ids: Sequence[str]
    attempt: int
    machine: str
    mailbox: str
    """The name of the queue that leads to the command."""

    limit_bps: Callable[[int], int | None]
    """How much Open vSwitch in user space carries faithfully on this machine, by the number of hosts."""

    sandbox: Sandboxes = field(default=Sandbox)


def perform(task: Task) -> None:
    """Perform the runs of `task` and deliver each as it ends; called on a worker.

    Raises EmulatorError when the fabric cannot be built, or when nobody wants the runs any more.
    """
    from distributed import Queue, get_client, get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        known = worker.state.tasks.get(key)  # Dask cannot interrupt a task: it only marks it as cancelled
        return known is not None and known.state == "executing"

    queue = Queue(task.mailbox, client=get_client())

    def send(message: Message) -> None:
        queue.put(pickle.dumps(message, protocol=5), timeout=_SEND_TIMEOUT_S)

    try:
        with _own_folder() as folder, (folder / "run.log").open("a+b") as log:
            _perform(task, folder, log, send, wanted)
    finally:
        with contextlib.suppress(Exception):  # whoever would take it may be gone, of which there are many signs
            send(Over(task.attempt))
            queue.close()


def _perform(
    task: Task, folder: Path, log: BinaryIO, send: Callable[[Message], None], wanted: Callable[[], bool]
) -> None:
    work = task.asked.work(folder)
    asked_for = set(task.run_ids)
    todo = [run for run in work.runs if run.run_id in asked_for]
    captures, limit_bps = Folder(folder / "captures"), task.limit_bps(work.topology.hosts)
    said, kept = _Said(log), list[Outcome]()
    for outcome in conducted(work, todo, log, captures, limit_bps, _while_wanted(task.sandbox, wanted)):
        if not wanted():
            raise EmulatorError("nobody wants these runs any more")
        match outcome:
            case Done(run_id, judged):
                _send_captures(task.attempt, run_id, captures, send)
                row = {**judged.row, "machine": task.machine}
                send(Delivery(task.attempt, [*kept, Done(run_id, Judged(row, judged.frames))], said.since()))
            case Failed():
                send(Delivery(task.attempt, [*kept, outcome], said.since()))
            case Built():
                send(Delivery(task.attempt, [replace(outcome, machine=task.machine)], said.since()))
            case Lost(reason):
                send(Delivery(task.attempt, [Lost(f"{task.machine}: {reason}")], said.since()))
            case Started():
                kept = [outcome]
                continue
            case Output() | Ended():
                kept.append(outcome)
                continue
            case _:  # what only matters while it lasts
                continue
        kept = []
    send(Delivery(task.attempt, log=said.since()))


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


def _send_captures(attempt: int, run_id: str, captures: Folder, send: Callable[[Message], None]) -> None:
    """Send the files of a run's captures, if it has any, and remove them here."""
    own = captures.path / run_id
    for path in sorted(own.iterdir()) if own.is_dir() else ():
        with path.open("rb") as file:
            offset = 0
            while (piece := file.read(PIECE_BYTES)) or offset == 0:
                send(CapturePiece(attempt, run_id, path.name, offset, piece))
                offset += len(piece)
                if not piece:
                    break
        path.unlink()
