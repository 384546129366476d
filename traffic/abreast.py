"""Replays a plan by several processes, each of which has all sockets of some hosts: so it is not held by one core.

What forwards packets does so on the core of whoever sends them, most of the time, so that one process would keep the
whole fabric on one core. The processes are forked from this one, which plays nothing: it starts them by one clock,
watches them, and puts together what they tell. A rank mostly waits for what it receives itself; where it waits for what
ends at another process's host, that process tells (`traffic.board.Post`).
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import signal
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, Literal

from emulator.child import end_with_parent
from emulator.errors import EmulatorError
from emulator.topology import LeafSpine
from traffic.board import Board, Part, Post
from traffic.connections import Connections, Sockets
from traffic.outcome import ReplayResult, result
from traffic.payload import Anything
from traffic.plan import TrafficPlan
from traffic.replay import Player
from traffic.transport import Transport
from traffic.watch import PROGRESS_PERIOD_S, Far, Watch

_OPEN_TIMEOUT_S = 60.0
_TELL_TIMEOUT_S = 20.0
_SEEN_WITHIN_S = 0.5  # that a process has ended is known a moment after its connections are
_LEAD_S = 0.02  # from the word to start until the start, for the word to reach all


Processes = int | Literal["auto"]
"""How many replay; "auto": as many as fit the machine and the data plane."""

DEFAULT_PROCESSES: Processes = 1
"""What several change of completion times is not known yet."""


def owners(plan: TrafficPlan, hosts: int, processes: int) -> list[int]:
    """Return which of `processes` plays for each host: neighbours together, all with about the same bytes to move."""
    weights = [0] * hosts
    for flow in plan.schedule.flows:
        weights[plan.hosts[flow.src]] += flow.size_bytes
        weights[plan.hosts[flow.dst]] += flow.size_bytes
    total = sum(weights)
    if not total:
        return [0] * hosts
    # By where the middle of a host's share lies among those of all.
    middles = (end - weight / 2 for end, weight in zip(accumulate(weights), weights, strict=True))
    return [min(processes - 1, int(middle * processes / total)) for middle in middles]


def most_processes(cores: int, plan: TrafficPlan) -> int:
    """Return how many processes a plan is replayed by at most: each has a host that sends."""
    return max(1, min(cores, len({connection.src_host for connection in plan.connections})))


@dataclass(frozen=True)
class _Worker:
    """One of the processes, and this end of the channel to it."""

    number: int
    process: ForkProcess
    channel: Connection


class Abreast:
    """A plan's connections on a fabric, ready to be played by `processes`. As `traffic.replay.Replay` is used.

    Nothing moves its connections, and they are none of MPTCP.
    """

    def __init__(
        self,
        plan: TrafficPlan,
        fabric: LeafSpine,
        sockets: Sockets,
        transport: Transport,
        payload: Anything | None = None,
        processes: int = 2,
    ) -> None:
        self._plan, self._fabric, self._sockets, self._transport = plan, fabric, sockets, transport
        self._payload, self._board, self._post = payload or Anything(), Board(plan, processes), Post(processes)
        self._owners = owners(plan, fabric.hosts, processes)
        self._workers: list[_Worker] = []

    def __enter__(self) -> Abreast:
        try:
            for number in range(len(self._board.received)):
                self._workers.append(self._started(number))
            self._each("listening", _OPEN_TIMEOUT_S)
            self._tell("connect")
            self._each("open", _OPEN_TIMEOUT_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes, and with them all connections."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.channel.close()
        self._workers.clear()
        self._post.close()

    def run(self) -> Generator[Far, None, ReplayResult]:
        """Play it, once, as `Replay.run` does. Raises EmulatorError too where a process ends before it is done."""
        watch = Watch(self._board, self._plan, self._fabric, self._transport.stall_timeout_s)
        self._tell(time.monotonic() + _LEAD_S)
        playing = list(self._workers)
        while playing:
            ready = wait([worker.channel for worker in playing], watch.period_s)
            for worker in [each for each in playing if each.channel in ready]:
                self._said(worker)
                playing.remove(worker)
            if (arrived := watch.look()) is not None:
                yield arrived
        self._tell("report")
        reports = self._each("report", _TELL_TIMEOUT_S)
        return result(self._part(0), reports)

    def _part(self, number: int) -> Part:
        return Part(self._plan, self._board, self._owners, number, self._post)

    def _started(self, number: int) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        inherited = [ours, *(worker.channel for worker in self._workers)]
        process = multiprocessing.get_context("fork").Process(
            target=_work, args=(self, number, theirs, inherited), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(number, process, ours)

    def _tell(self, what: Any) -> None:
        for worker in self._workers:
            with contextlib.suppress(BrokenPipeError):  # why, is said where its answer is awaited
                worker.channel.send(what)

    def _each(self, what: str, timeout_s: float) -> list[Any]:
        """Return what every process answers. Raises EmulatorError where one does not."""
        deadline, said = time.monotonic() + timeout_s, {}
        left = list(self._workers)
        while left:
            ready = wait([worker.channel for worker in left], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise EmulatorError(f"{self._name(left[0])} did not say {what!r} in {timeout_s:g} s and was ended")
            for worker in [each for each in left if each.channel in ready]:
                said[worker.number] = self._said(worker)
                left.remove(worker)
        return [said[number] for number in sorted(said)]

    def _said(self, worker: _Worker) -> Any:
        """Return what a process has to say. Raises EmulatorError: what it raised, or that it ended."""
        try:
            said = worker.channel.recv()
        except (EOFError, OSError) as error:
            said = EmulatorError(f"{self._name(worker)} {_how(worker.process)}")
            said.__cause__ = error
        if isinstance(said, EmulatorError):
            raise self._ended() or said
        return said

    def _ended(self) -> EmulatorError | None:
        """What says of a process that it has ended, if one has: of that, others only see that their connections are."""
        by_sentinel = {worker.process.sentinel: worker for worker in self._workers}
        ended = wait(list(by_sentinel), _SEEN_WITHIN_S)
        worker = next((worker for sentinel, worker in by_sentinel.items() if sentinel in ended), None)
        return EmulatorError(f"{self._name(worker)} {_how(worker.process)}") if worker else None

    def _name(self, worker: _Worker) -> str:
        return f"process {worker.number + 1} of {len(self._workers)} that replay the traffic"

    def work(self, number: int, channel: Connection) -> None:
        """Be process `number`: do what the other end of `channel` says until that goes away."""

        def listening() -> None:
            channel.send("listening")
            channel.recv()

        part = self._part(number)
        connections = Connections(self._plan, self._fabric, self._sockets, self._transport, part.has)
        connections.open(listening=listening)
        try:
            player = Player(connections, self._payload, part, look_s=PROGRESS_PERIOD_S)
            channel.send("open")
            for _ in player.turns(channel.recv()):
                pass
            channel.send("done")
            channel.recv()
            channel.send(player.report())
            channel.recv()
        finally:
            connections.close()


def _how(process: ForkProcess) -> str:
    process.join(_SEEN_WITHIN_S)
    status = process.exitcode
    if status is None:
        return "does not answer any more"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended unexpectedly (exit status {status}); its last words are in run.log"


def _work(abreast: Abreast, number: int, channel: Connection, inherited: Sequence[Connection]) -> None:
    """In the new process: work, and say why that did not go."""
    end_with_parent()
    for each in inherited:
        each.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us says what is to be done about it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()  # what was inherited stays, and need not be looked through, nor copied for that
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # whoever it was has gone
        try:
            abreast.work(number, channel)
        except EmulatorError as error:
            channel.send(EmulatorError(str(error)))
            channel.recv()
