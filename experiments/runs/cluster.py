"""Runs on the machines of a Dask cluster: handed out, delivered in order of completion, done elsewhere where one dies.

Which worker performs which runs is decided here, not by Dask's scheduler: a worker that dies takes only the run with it
that was under way, and all schemes of one traffic and seed stay on one machine as long as it lives.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from emulator.errors import EmulatorError
from emulator.files import Folder
from emulator.sandbox import Sandbox
from experiments.runs.messages import Failed, Gone, Joined
from experiments.runs.outside import Done, Outcome, Sandboxes
from experiments.runs.plan import Run
from experiments.runs.scheduler import Address, Scheduler
from experiments.runs.work import Work
from experiments.runs.worker import Asked, CapturePiece, Delivery, Greeting, Needs, Over, Task, greet, perform

GREETING_S = 60.0  # for a worker to try what its kernel can do, or to end what it does for somebody else
_ALONE_S = 60.0  # without any machine; a nanny starts a worker again within seconds
_LOOK_S = 0.5  # how often it is looked which workers there are
_POLL_S = 0.05  # how often they are asked what they have to say
_WORTH_A_FABRIC_S = 20.0  # of runs; to have it up takes about one, and what is shared out finely is balanced better
_GONE_S = 10.0  # for the workers to end what they have built
_MOST_DEATHS = 3  # of machines during one run, which is then to blame
_DIED = "its worker has ended, or does not answer"


@dataclass(frozen=True, eq=False)
class Machine:
    """A worker that performs runs, and what is to be known of where it is."""

    address: str
    name: str
    about: Mapping[str, Any]
    warnings: Sequence[str]

    @classmethod
    def of(cls, address: str, greeting: Greeting, taken: Sequence[str]) -> Machine:
        """Return the one at `address`, named as its host, and by its port too where that is `taken`."""
        name, warnings = greeting.node, list(greeting.warnings)
        if name in taken:
            warnings.append(f"two workers are on {name}: the runs of one disturb those of the other")
            name = f"{name}-{re.split('[:/]', address)[-1]}"
        return cls(address, name, greeting.about, warnings)


@dataclass
class Cluster:
    """The machines that a scheduler has, for as long as the `with` block lasts.

    `meet` connects to it. Raises EmulatorError where it is not to be reached, or a machine lacks something: before any
    run.
    """

    address: Address
    needs: Needs
    meet: Callable[[Address], Scheduler] = Scheduler
    _machines: dict[str, Machine] = field(default_factory=dict)
    _greetings: dict[str, Any] = field(default_factory=dict)
    _unfit: set[str] = field(default_factory=set)
    _looked_s: float = -_LOOK_S
    _runs: _Runs | None = None

    def __enter__(self) -> Cluster:
        self._scheduler = self.meet(self.address)
        try:
            self._greet_all()
        except BaseException:
            self._scheduler.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._runs:  # who followed them may have been interrupted
            self._runs.withdraw()
        self._scheduler.close()

    def _greet_all(self) -> None:
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
        return [Gone(machine.name, _DIED) for machine in gone]

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
        return _joined(machine)

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
        yield from map(_joined, self.machines)
        self._runs = _Runs(self, self._scheduler, asked, work, log, captures, limit_bps, sandbox)
        yield from self._runs.conducted(todo)


def _joined(machine: Machine) -> Joined:
    return Joined(machine.name, machine.about, machine.warnings)


def groups_of(work: Work, todo: Sequence[Run]) -> list[list[Run]]:
    """Return `todo` in groups of what is to be compared: on one fabric the same traffic with the same seed."""
    part_of = {run.run_id: number for number, part in enumerate(work.parts) for run in part.runs}
    groups: dict[tuple[int, str, int], list[Run]] = {}
    for run in todo:
        groups.setdefault((part_of[run.run_id], run.label, run.seed), []).append(run)
    return list(groups.values())


@dataclass
class _Attempt:
    """A task under way on `machine`; `left` are its runs that are not over, in order."""

    machine: Machine
    future: Any
    left: list[Run]


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
    _waiting: list[list[Run]] = field(default_factory=list)
    _attempts: dict[str, _Attempt] = field(default_factory=dict)
    _deaths: Counter[str] = field(default_factory=Counter)
    _last_words: str = "none was left"
    _met_s: float = 0.0

    def conducted(self, todo: Sequence[Run]) -> Iterator[Outcome]:
        self._waiting, self._met_s = groups_of(self.work, todo), time.monotonic()
        try:
            while self._waiting or self._attempts:
                self._hand_out()
                for change in self.cluster.changes():
                    yield self._noted(change)
                ended = [number for number, each in self._attempts.items() if self._is_over(each)]
                for outcome in self._received():  # all that those which have ended had to say
                    yield outcome
                    if isinstance(outcome, Failed) and outcome.status != 0:
                        return
                for number in ended:
                    yield from self._settled(self._attempts.pop(number))
                self._check_alone()
                time.sleep(_POLL_S)
        finally:
            self.withdraw()

    def _hand_out(self) -> None:
        """Give every idle machine a share of what waits."""
        busy = {id(attempt.machine) for attempt in self._attempts.values()}
        idle = [machine for machine in self.cluster.machines if id(machine) not in busy]
        for number, machine in enumerate(idle):
            if self._waiting:
                self._start(machine, self._share(len(self.cluster.machines), len(idle) - number))

    def _share(self, machines: int, idle: int) -> list[Run]:
        """Take what is to be done next, on one fabric, from what waits; `idle` of the `machines` have nothing to do.

        It is half of what each machine would get if all were shared out now, so that all are busy to the end, but no
        less than what is worth a fabric of its own, if there is so much for each that is idle.
        """
        waiting_s = sum(map(self._estimate_s, self._waiting))
        left_s = max(waiting_s / machines / 2, min(waiting_s / idle, _WORTH_A_FABRIC_S))
        ids = (frozenset(run.run_id for run in part.runs) for part in self.work.parts)
        own = next(each for each in ids if self._waiting[0][0].run_id in each)
        runs: list[Run] = []
        while self._waiting and self._waiting[0][0].run_id in own:
            left_s -= self._estimate_s(self._waiting[0])
            if runs and left_s < -1e-9:  # sums of floats
                break
            runs += self._waiting.pop(0)
        return runs

    def _estimate_s(self, group: Sequence[Run]) -> float:
        return sum(self.work.estimate_s(run) for run in group)

    def _start(self, machine: Machine, runs: list[Run]) -> None:
        number, ids = uuid.uuid4().hex, [run.run_id for run in runs]
        task = Task(number, self.asked, ids, machine.name, self.scheduler.post, self.limit_bps, self.sandbox)
        self._attempts[number] = _Attempt(machine, self.scheduler.submit(machine.address, perform, task), runs)

    def _noted(self, change: Joined | Gone) -> Joined | Gone:
        if isinstance(change, Gone):
            self._last_words = f"{change.machine}: {change.reason}"
        return change

    def _is_over(self, attempt: _Attempt) -> bool:
        return attempt.machine not in self.cluster.machines or bool(attempt.future.done())

    def _received(self) -> Iterator[Outcome]:
        """What has come from the workers, but for those that were given up: others do what they had left."""
        for message in self.scheduler.received():
            attempt = self._attempts.get(message.attempt)
            match message:
                case Delivery(_, outcomes, said) if attempt:
                    self.log.write(said)
                    self.log.flush()
                    for outcome in outcomes:
                        yield outcome
                        if isinstance(outcome, Done | Failed):
                            attempt.left = [run for run in attempt.left if run.run_id != outcome.run_id]
                case CapturePiece() if attempt:
                    self._keep(message)

    def _keep(self, piece: CapturePiece) -> None:
        folder = self.captures / piece.run_id
        folder.make()
        with folder.append(piece.name) if piece.offset else folder.empty(piece.name) as file:
            file.write(piece.content)

    def _settled(self, attempt: _Attempt) -> Iterator[Outcome]:
        """An attempt has ended: have what is left of it done by others, but no run forever that ends every machine."""
        reason = _DIED
        if attempt.machine not in self.cluster.machines:
            self.scheduler.cancel([attempt.future])
        elif reason := self._error_of(attempt.future):
            self.cluster.leave_out(attempt.machine)
            yield self._noted(Gone(attempt.machine.name, reason))
        if attempt.left:
            suspect = attempt.left[0]
            self._deaths[suspect.run_id] += 1
            if self._deaths[suspect.run_id] >= _MOST_DEATHS:
                said = reason or "it did not come to an end"
                yield Failed(suspect.run_id, f"{_MOST_DEATHS} machines were lost during it; the last: {said}")
                attempt.left = attempt.left[1:]
            self._waiting = groups_of(self.work, attempt.left) + self._waiting

    def _error_of(self, future: Any) -> str:
        """Why a task failed, in words; "" where it did not."""
        try:
            error = future.exception(timeout=GREETING_S)
        except (Exception, CancelledError) as cancelled:  # by Dask itself
            error = cancelled
        if error is None:
            return ""
        said = " ".join(str(error).split())
        return said if said and isinstance(error, EmulatorError) else f"{type(error).__name__}: {said}"

    def _check_alone(self) -> None:
        """Raises EmulatorError when there has been nobody for long."""
        now_s = time.monotonic()
        if self.cluster.machines:
            self._met_s = now_s
        elif now_s - self._met_s >= _ALONE_S:
            raise EmulatorError(f"no machine of the cluster is left; the last, {self._last_words}")

    def withdraw(self) -> None:
        """Cancel what is under way, and wait until nothing of it is left on the machines. Raises nothing."""
        under_way = {number for number, attempt in self._attempts.items() if not self._is_over(attempt)}
        self.scheduler.cancel([attempt.future for attempt in self._attempts.values()])
        self._attempts.clear()
        end_s = time.monotonic() + _GONE_S
        with contextlib.suppress(EmulatorError):
            while under_way and time.monotonic() < end_s:
                under_way -= {message.attempt for message in self.scheduler.received() if isinstance(message, Over)}
                time.sleep(_POLL_S)
