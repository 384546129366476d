"""Runs on the machines of a Dask cluster: handed out, delivered in order of completion, done elsewhere where one dies.

Which worker performs which runs is decided here, not by Dask's scheduler: a worker that dies takes only the run with it
that was under way, and all schemes of one traffic and seed stay on one machine as long as it lives.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from emulator.errors import EmulatorError
from emulator.files import Folder
from emulator.sandbox import Sandbox
from experiments.runs.messages import Failed, Gone, Joined
from experiments.runs.outside import Done, Outcome, Sandboxes
from experiments.runs.plan import Run
from experiments.runs.scheduler import Address, Machine, Scheduler
from experiments.runs.work import Work
from experiments.runs.worker import Asked, CapturePiece, Delivery, Message, Needs, Over, Task, greet, perform

GREETING_S = 60.0  # for a worker to try what its kernel can do, or to end what it does for somebody else
_ALONE_S = 60.0  # without any machine; a nanny starts a worker again within seconds
_LOOK_S = 0.5  # how often it is looked which workers there are
_POLL_S = 0.02
_GONE_S = 10.0  # for the workers to end what they have built
_MOST_UNDER_WAY = 64  # deliveries that wait for this command, in the scheduler's memory
_MOST_DEATHS = 3  # of machines during one run, which is then to blame


@dataclass
class _Attempt:
    """A task under way on `machine`; `left` are its runs that are not over, in order."""

    machine: Machine
    future: Any
    left: list[Run]


@dataclass
class Cluster:
    """The machines that a scheduler has, for as long as the `with` block lasts.

    Raises EmulatorError where the scheduler is not to be reached, or a machine lacks something: before any run.
    """

    address: Address
    needs: Needs
    _machines: dict[str, Machine] = field(default_factory=dict)
    _greetings: dict[str, Any] = field(default_factory=dict)
    _unfit: set[str] = field(default_factory=set)
    _looked_s: float = -_LOOK_S
    _runs: _Runs | None = None

    def __enter__(self) -> Cluster:
        self._scheduler = Scheduler(self.address)
        try:
            self._meet()
        except BaseException:
            self._scheduler.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._runs:  # who followed them may have been interrupted
            self._runs.withdraw()
        self._scheduler.close()

    def _meet(self) -> None:
        """Wait for every worker that is there to say what it is. Raises EmulatorError unless all are fit."""
        end_s = time.monotonic() + GREETING_S
        self._look()
        if not self._greetings:
            raise EmulatorError(
                f"the scheduler at {self.address} has no worker that emulates: have the machines' owners start some, "
                "with --resources fabric=1 --nthreads 1"
            )
        lacking = []
        while self._greetings and time.monotonic() < end_s:
            lacking += [gone.reason for gone in self.changes() if isinstance(gone, Gone)]
            time.sleep(_POLL_S)
        if lacking:
            raise EmulatorError("; ".join(lacking))
        if not self._machines:
            raise EmulatorError(
                f"no worker of the scheduler at {self.address} answered in {GREETING_S:.0f} s: does it perform "
                "somebody else's runs?"
            )

    @property
    def machines(self) -> list[Machine]:
        """Those that perform runs."""
        return list(self._machines.values())

    def joined(self) -> list[Joined]:
        """Return what there is to say of every machine."""
        return [machine.joined() for machine in self.machines]

    def changes(self) -> Iterator[Joined | Gone]:
        """Yield which machines have come since, and which have gone. Raises EmulatorError without a scheduler."""
        if time.monotonic() - self._looked_s >= _LOOK_S:
            yield from self._look()
        for worker, greeting in [each for each in self._greetings.items() if each[1].done()]:
            del self._greetings[worker]
            yield self._met(worker, greeting)

    def _look(self) -> list[Gone]:
        self._looked_s = time.monotonic()
        there = self._scheduler.workers()
        for worker in there.keys() - self._machines.keys() - self._greetings.keys() - self._unfit:
            self._greetings[worker] = self._scheduler.submit(there[worker], greet, self.needs)
        for worker in self._greetings.keys() - there.keys():
            self._scheduler.cancel([self._greetings.pop(worker)])
        gone = [self._machines.pop(worker) for worker in self._machines.keys() - there.keys()]
        return [Gone(machine.name, "its worker has ended, or does not answer") for machine in gone]

    def _met(self, worker: str, greeting: Any) -> Joined | Gone:
        address, _, _ = worker.partition(" ")
        try:
            answer = greeting.result(timeout=GREETING_S)
        except Exception as error:  # whatever another version raises
            self._unfit.add(worker)
            said = " ".join(str(error).split())
            return Gone(address, f"the worker at {address} cannot be used, and is another version: {said}")
        if answer.lacks:
            self._unfit.add(worker)
            return Gone(answer.node, f"the worker at {address} ({answer.node}) cannot be used: {answer.lacks}")
        machine = Machine.of(address, answer, [each.name for each in self.machines])
        self._machines[worker] = machine
        return machine.joined()

    def leave_out(self, machine: Machine) -> None:
        """Give `machine` nothing more to do."""
        for worker in [worker for worker, each in self._machines.items() if each is machine]:
            del self._machines[worker]
            self._unfit.add(worker)

    def conducted(
        self,
        asked: Asked,
        work: Work,
        todo: Sequence[Run],
        log: BinaryIO,
        captures: Folder,
        limit_bps: Callable[[int], int | None],
        sandbox: Sandboxes = Sandbox,
    ) -> Iterator[Outcome]:
        """Have `todo` performed, and yield what came of each run as it ends, in one piece.

        As `runs.outside.conducted` does here; `work` is what `asked` makes, and `limit_bps` is asked on every machine.
        Raises EmulatorError where the scheduler is lost, or no machine is left.
        """
        yield from self.joined()
        self._runs = _Runs(self, self._scheduler, asked, work, log, captures, limit_bps, sandbox)
        yield from self._runs.conducted(todo)


def groups_of(work: Work, todo: Sequence[Run]) -> list[list[Run]]:
    """Return `todo` in groups of what is to be compared: on one fabric the same traffic with the same seed."""
    part_of = {run.run_id: number for number, part in enumerate(work.parts) for run in part.runs}
    groups: dict[tuple[int, str, int], list[Run]] = {}
    for run in todo:
        groups.setdefault((part_of[run.run_id], run.label, run.seed), []).append(run)
    return list(groups.values())


@dataclass
class _Runs:
    """What is left of an experiment, and who does it."""

    cluster: Cluster
    scheduler: Scheduler
    asked: Asked
    work: Work
    log: BinaryIO
    captures: Folder
    limit_bps: Callable[[int], int | None]
    sandbox: Sandboxes

    def __post_init__(self) -> None:
        self._mailbox = f"spraylab-{uuid.uuid4().hex}"
        self._numbers = itertools.count(1)
        self._attempts: dict[int, _Attempt] = {}
        self._waiting: list[list[Run]] = []
        self._over: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._alone_since_s: float | None = None
        self._reason = "none was left"
        self._part_of = {run.run_id: number for number, part in enumerate(self.work.parts) for run in part.runs}

    def conducted(self, todo: Sequence[Run]) -> Iterator[Outcome]:
        self._waiting = groups_of(self.work, todo)
        with self.scheduler.queue(self._mailbox, _MOST_UNDER_WAY) as self._queue:
            try:
                while self._waiting or self._attempts:
                    self._hand_out()
                    ended = [number for number, each in self._attempts.items() if each.future.done()]
                    stop = False
                    for outcome in self._delivered():  # all that those which have ended had to say
                        yield outcome
                        stop = stop or (isinstance(outcome, Failed) and outcome.status != 0)
                    if stop:
                        return
                    for number in ended:
                        yield from self._settled(number)
                    for change in self.cluster.changes():
                        yield change
                        if isinstance(change, Gone):
                            self._reason = f"{change.machine}: {change.reason}"
                    yield from self._missed()
                    self._check_alone()
                    time.sleep(_POLL_S)
            finally:
                self.withdraw()

    def _hand_out(self) -> None:
        """Give every idle machine a share of what waits.

        It is half of what each would get if all were shared out now, so that few fabrics are built and all machines are
        busy to the end.
        """
        busy = {id(attempt.machine) for attempt in self._attempts.values()}
        for machine in self.cluster.machines:
            if self._waiting and id(machine) not in busy:
                share_s = self._estimate_s(*self._waiting) / (2 * len(self.cluster.machines))
                runs = list(self._waiting.pop(0))
                while self._waiting and self._on_one_fabric(runs[0], self._waiting[0][0]):
                    if self._estimate_s(runs, self._waiting[0]) > share_s:
                        break
                    runs += self._waiting.pop(0)
                self._start(machine, runs)

    def _on_one_fabric(self, run: Run, other: Run) -> bool:
        return self._part_of[run.run_id] == self._part_of[other.run_id]

    def _estimate_s(self, *groups: Sequence[Run]) -> float:
        return sum(self.work.estimate_s(run) for group in groups for run in group)

    def _start(self, machine: Machine, runs: list[Run]) -> None:
        number, ids = next(self._numbers), [run.run_id for run in runs]
        task = Task(self.asked, ids, number, machine.name, self._mailbox, self.limit_bps, self.sandbox)
        self._attempts[number] = _Attempt(machine, self.scheduler.submit(machine.address, perform, task), runs)

    def _delivered(self) -> Iterator[Outcome]:
        """What has come from the workers. Nothing of a run that is over already, which may come twice."""
        for message in self._messages():
            match message:
                case Delivery(_, outcomes, said):
                    self.log.write(said)
                    self.log.flush()
                    if not self._stale(outcomes):
                        for outcome in outcomes:
                            yield outcome
                            if isinstance(outcome, Done | Failed):
                                self._end(outcome.run_id)
                case CapturePiece(_, run_id) if run_id not in self._over:
                    self._keep(message)

    def _stale(self, outcomes: Sequence[Outcome]) -> bool:
        return any(isinstance(each, Done | Failed) and each.run_id in self._over for each in outcomes)

    def _end(self, run_id: str) -> None:
        self._over.add(run_id)
        for attempt in self._attempts.values():
            attempt.left = [run for run in attempt.left if run.run_id != run_id]
        self._waiting = [left for group in self._waiting if (left := [run for run in group if run.run_id != run_id])]

    def _messages(self) -> Iterator[Message]:
        for content in self._queue.get_all():
            yield pickle.loads(content)  # from workers whom TLS vouches for: they get code from here likewise

    def _keep(self, piece: CapturePiece) -> None:
        folder = self.captures / piece.run_id
        folder.make()
        with folder.append(piece.name) if piece.offset else folder.empty(piece.name) as file:
            file.write(piece.content)

    def _settled(self, number: int) -> Iterator[Outcome]:
        """A task has ended: where it was not as it should be, others do what it had left, and its machine no more."""
        attempt = self._attempts.pop(number)
        if not attempt.left:
            return
        error = attempt.future.exception(timeout=GREETING_S)
        if error is not None:
            yield Gone(attempt.machine.name, str(error))
            self._reason = f"{attempt.machine.name}: {error}"
            self.cluster.leave_out(attempt.machine)
        yield from self._again(attempt, str(error or "it ended before its last run"))

    def _missed(self) -> Iterator[Outcome]:
        """Take back what machines were doing that are gone."""
        there = {id(machine) for machine in self.cluster.machines}
        lost = [number for number, attempt in self._attempts.items() if id(attempt.machine) not in there]
        for number in lost:
            yield from self._delivered()
            attempt = self._attempts.pop(number)
            self.scheduler.cancel([attempt.future])
            yield from self._again(attempt, "its worker has ended, or does not answer")

    def _again(self, attempt: _Attempt, reason: str) -> Iterator[Outcome]:
        """Have what is left of an attempt done by others, but not a run forever that ends every machine."""
        if not attempt.left:
            return
        suspect = attempt.left[0]
        self._deaths[suspect.run_id] += 1
        if self._deaths[suspect.run_id] >= _MOST_DEATHS:
            self._end(suspect.run_id)
            attempt.left = [run for run in attempt.left if run is not suspect]
            yield Failed(suspect.run_id, f"{_MOST_DEATHS} machines were lost during it; the last, {reason}")
        self._waiting = groups_of(self.work, attempt.left) + self._waiting

    def _check_alone(self) -> None:
        """Raises EmulatorError when there has been nobody for long."""
        if self.cluster.machines:
            self._alone_since_s = None
            return
        self._alone_since_s = self._alone_since_s or time.monotonic()
        if time.monotonic() - self._alone_since_s >= _ALONE_S:
            raise EmulatorError(f"no machine of the cluster is left; the last, {self._reason}")

    def withdraw(self) -> None:
        """Cancel what is under way, and wait until nothing of it is left on the machines. Raises nothing."""
        under_way = {number for number, attempt in self._attempts.items() if not attempt.future.done()}
        self.scheduler.cancel([attempt.future for attempt in self._attempts.values()])
        self._attempts.clear()
        end_s = time.monotonic() + _GONE_S
        with contextlib.suppress(EmulatorError):
            while under_way and time.monotonic() < end_s:
                under_way -= {message.attempt for message in self._messages() if isinstance(message, Over)}
                time.sleep(_POLL_S)
