"""Replays a plan over its open connections: sends, receives, and honours dependencies.

One thread drives all sockets through one epoll.
"""

from __future__ import annotations

import heapq
import select
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from emulator.errors import EmulatorError
from emulator.topology import LeafSpine
from traffic.connections import Connections, Sockets
from traffic.payload import CHUNK_BYTES, Anything
from traffic.plan import Piece, TrafficPlan
from traffic.repath import Mover, Repath
from traffic.tcpinfo import ConnectionResult, result_of
from traffic.transport import Transport

_PROGRESS_PERIOD_S = 0.2
_NOTE_PERIOD_S = 0.05
# A receiver is woken once a batch, not once a packet: after so much, or what its subflow's share brings in so long.
_WAKE_BYTES, _WAKE_S = 1 << 16, 0.05


@dataclass(frozen=True)
class ReplayResult:
    """Times are of CLOCK_MONOTONIC, of every flow and computation by its id.

    `data_problems` says what is wrong with the data that was carried; None where none was checked. `waited` are pairs
    of a time and how long, up to then, the replay has waited for the network instead of keeping it waiting. `own_tasks`
    is as `Schedule` has it.
    """

    started_s: Sequence[float]
    finished_s: Sequence[float]
    connections: Sequence[ConnectionResult]
    data_problems: Sequence[str] | None = None
    waited: Sequence[tuple[float, float]] = ()
    own_tasks: int | None = None

    @property
    def cct_s(self) -> float:
        """From the first send, or computation, to the last byte received or computation done; other tenants' aside."""
        return max(self.finished_s[: self.own_tasks]) - min(self.started_s[: self.own_tasks])


class Replay:
    """A plan's connections on a fabric, ready to play. A context manager: leaving it closes every socket."""

    def __init__(
        self,
        plan: TrafficPlan,
        fabric: LeafSpine,
        sockets: Sockets,
        transport: Transport,
        payload: Anything | None = None,
        repath: Repath | None = None,
    ) -> None:
        """With `repath`, connections that bring nothing any more are moved to other paths."""
        self.connections = Connections(plan, fabric, sockets, transport)
        self._payload, self._repath = payload or Anything(), repath

    def __enter__(self) -> Replay:
        self.connections.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.connections.close()

    def run(self) -> Generator[float, None, ReplayResult]:
        """Play it, once; yields now and then which part of all bytes has arrived, and returns what came of it.

        Raises EmulatorError, naming the flows that are stuck, when nothing has arrived for the stall time-out.
        """
        return _Player(self.connections, self._payload, self._repath).run()


@dataclass(slots=True)
class _Expected:
    """A piece on its way to its receiver."""

    flow: int
    offset: int
    missing: int


class _Patience:
    """Waits for the network, and keeps the account of it: pairs of a time and how long was waited up to then."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.waited_s = 0.0
        self.account = [(time.monotonic(), 0.0)]

    def wait(self, limit_s: float) -> list[int]:
        """The descriptors that are ready, once one is or `limit_s` have passed."""
        asked = time.monotonic()
        ready = self._epoll.poll(limit_s)
        answered = time.monotonic()
        self.waited_s += answered - asked
        if answered - self.account[-1][0] > _NOTE_PERIOD_S:
            self.note()
        return [descriptor for descriptor, _ in ready]

    def note(self) -> None:
        self.account.append((time.monotonic(), self.waited_s))


class _Player:
    """The state of one replay: what each subflow has still to send and receive, what each flow waits for."""

    def __init__(self, connections: Connections, payload: Anything, repath: Repath | None) -> None:
        plan = connections.plan
        self._mover = Mover(repath, connections) if repath else None
        self._look_s = min(_PROGRESS_PERIOD_S, repath.look_s) if repath else _PROGRESS_PERIOD_S
        self._connections, self._payload = connections, payload
        self._sink = memoryview(bytearray(CHUNK_BYTES))
        self._received = 0
        self._know_flows(plan)
        self._know_subflows(plan, connections.fabric.host_rate_bps)

    def _know_flows(self, plan: TrafficPlan) -> None:
        self._flows = flows = plan.schedule.flows
        self._computes = plan.schedule.computes
        tasks = plan.schedule.tasks
        self._started = [0.0] * len(tasks)
        self._finished = [0.0] * len(tasks)
        self._missing = [flow.size_bytes for flow in flows]
        self._ready = [False] * len(tasks)
        self._tasks_left = len(tasks)
        self._under_way = 0  # flows
        self._waits = [len(task.waits_for) for task in tasks]
        self._waiters: dict[int, list[int]] = defaultdict(list)
        for task in tasks:
            for awaited in task.waits_for:
                self._waiters[awaited].append(task.id)
        sent: dict[int, Iterator[int]] = defaultdict(count)
        self._turn = [next(sent[flow.src]) for flow in flows]
        self._due = [self._order(task.id) for task in tasks if not task.waits_for]
        heapq.heapify(self._due)

    def _know_subflows(self, plan: TrafficPlan, host_rate_bps: int) -> None:
        # Bytes leave a subflow in the order of its pieces even if their flows become ready in another: the receiver
        # tells them apart by nothing else.
        self._subflows_of: list[list[int]] = [[] for _ in self._flows]
        self._turns: list[deque[Piece]] = [deque() for _ in plan.connections]
        self._expected: list[deque[_Expected]] = [deque() for _ in plan.connections]
        for piece in plan.pieces:
            self._subflows_of[piece.flow].append(piece.connection)
            self._turns[piece.connection].append(piece)
            self._expected[piece.connection].append(_Expected(piece.flow, piece.offset_bytes, piece.size_bytes))
        self._sendable = [0] * len(plan.connections)
        receivers = Counter(connection.dst_host for connection in plan.connections)
        share_bytes = host_rate_bps / 8 * _WAKE_S
        self._batch = [
            max(1, min(_WAKE_BYTES, int(share_bytes / receivers[connection.dst_host])))
            for connection in plan.connections
        ]
        self._wake = [1] * len(plan.connections)  # what each receiver is set to

    def run(self) -> Generator[float, None, ReplayResult]:
        total = max(1, self._connections.plan.schedule.payload_bytes)
        with select.epoll() as epoll:
            ends = self._register(epoll)
            patience = _Patience(epoll)
            self._origin = reported = moved = time.monotonic()
            while self._tasks_left:
                self._start_due()
                before = self._received
                for descriptor in patience.wait(self._until_due_s()):
                    end = ends[descriptor]
                    if end > 0:
                        self._receive(end - 1)
                    else:
                        self._send(-end)
                now = time.monotonic()
                if self._mover:
                    self._mover.look(now, self._awaited)
                if self._received > before or not self._under_way:
                    moved = now
                elif now - moved > self._connections.transport.stall_timeout_s:
                    raise EmulatorError(self._stuck())
                if now - reported > _PROGRESS_PERIOD_S:
                    reported = now
                    yield self._received / total
            patience.note()
        problems, own_tasks = self._payload.problems(), self._connections.plan.schedule.own_tasks
        return ReplayResult(self._started, self._finished, self._results(), problems, patience.account, own_tasks)

    def _register(self, epoll: select.epoll) -> dict[int, int]:
        """What stands behind each descriptor: positive numbers are receivers, the others senders.

        One number, since it is the cheapest thing that epoll's answer can be looked up as.
        """
        ends: dict[int, int] = {}
        both = zip(self._connections.senders, self._connections.receivers, strict=True)
        for number, (sender, receiver) in enumerate(both):
            self._wake_for(number)
            epoll.register(sender.fileno(), select.EPOLLOUT | select.EPOLLET)
            epoll.register(receiver.fileno(), select.EPOLLIN | select.EPOLLET)
            ends[sender.fileno()], ends[receiver.fileno()] = -number, number + 1
        return ends

    def _order(self, task_id: int) -> tuple[float, int, int]:
        """Orders what is to start: hosts take turns, so that none waits while another starts all it has."""
        if task_id >= len(self._flows):
            return 0.0, -1, task_id
        return self._flows[task_id].start_s, self._turn[task_id], task_id

    def _until_due_s(self) -> float:
        """How long there is nothing to start or to end: until the next task's time, or to the next look at all."""
        if not self._due:
            return self._look_s
        return min(self._look_s, max(0.0, self._origin + self._due[0][0] - time.monotonic()))

    def _start_due(self) -> None:
        """Start every task that waits for none and whose time has come; end the computations whose time is over."""
        now = time.monotonic()
        while self._due and self._origin + self._due[0][0] <= now:
            task_id = heapq.heappop(self._due)[-1]
            if task_id < len(self._flows):
                self._start(task_id)
            elif self._ready[task_id]:
                self._complete(task_id)
            else:
                self._compute(task_id)

    def _compute(self, task_id: int) -> None:
        """Begin a computation: its end is due like any start."""
        self._started[task_id] = now = time.monotonic()
        self._ready[task_id] = True
        if seconds := self._computes[task_id - len(self._flows)].seconds:
            heapq.heappush(self._due, (now - self._origin + seconds, -1, task_id))
        else:
            self._complete(task_id)

    def _start(self, flow_id: int) -> None:
        self._started[flow_id] = time.monotonic()
        self._ready[flow_id] = True
        self._under_way += 1
        for number in self._subflows_of[flow_id]:
            turns = self._turns[number]
            while turns and self._ready[turns[0].flow]:
                piece = turns.popleft()
                self._payload.release(piece)
                self._sendable[number] += piece.size_bytes
            self._send(number)
        if not self._missing[flow_id]:
            self._arrived(flow_id)  # a flow of no bytes

    def _arrived(self, flow_id: int) -> None:
        """All of a flow has arrived."""
        self._payload.complete(flow_id)
        self._under_way -= 1
        self._complete(flow_id)

    def _complete(self, task_id: int) -> None:
        """A task is done: what waited for it alone may start."""
        self._finished[task_id] = time.monotonic()
        self._tasks_left -= 1
        for waiter in self._waiters[task_id]:
            self._waits[waiter] -= 1
            if self._waits[waiter] == 0:
                heapq.heappush(self._due, self._order(waiter))

    def _send(self, number: int) -> None:
        """Hand the kernel what it takes; epoll says when it takes more."""
        send, payload = self._connections.senders[number].send, self._payload
        while self._sendable[number]:
            try:
                sent = send(payload.next(number, self._sendable[number]))
            except BlockingIOError:
                return
            except OSError as error:
                raise EmulatorError(f"{self._connections.name(number)} broke: {error.strerror}") from error
            payload.sent(number, sent)
            self._sendable[number] -= sent

    def _receive(self, number: int) -> None:
        """Take what has arrived."""
        receive, flags = self._connections.receivers[number].recv_into, self._payload.receive_flags
        while self._expected[number]:
            try:
                got = receive(self._sink, CHUNK_BYTES, flags)
            except BlockingIOError:
                self._wake_for(number)
                return
            except OSError as error:
                raise EmulatorError(f"{self._connections.name(number)} broke: {error.strerror}") from error
            if got == 0:
                raise EmulatorError(f"{self._connections.name(number)} was closed by its sender")
            self._received += got
            self._take(number, self._sink[:got])

    def _take(self, number: int, data: memoryview) -> None:
        """Give what a subflow brought to the flows that it belongs to, in the order of their pieces."""
        queue = self._expected[number]
        while data:
            if not queue:
                raise EmulatorError(f"{self._connections.name(number)} delivered more than was sent")
            piece = queue[0]
            taken = min(len(data), piece.missing)
            if not self._payload.receive_flags:
                self._payload.arrived(piece.flow, piece.offset, data[:taken])
            piece.offset += taken
            piece.missing -= taken
            if piece.missing == 0:
                queue.popleft()
            self._missing[piece.flow] -= taken
            if self._missing[piece.flow] == 0:
                self._arrived(piece.flow)
            data = data[taken:]

    def _wake_for(self, number: int) -> None:
        """Have epoll speak of a receiver once a batch or the rest of its piece is there."""
        if not self._expected[number]:
            return
        wanted = min(self._batch[number], self._expected[number][0].missing)
        if wanted != self._wake[number]:
            self._wake[number] = wanted
            self._connections.receivers[number].setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)

    def _awaited(self, number: int) -> tuple[int, int] | None:
        """What a subflow has still to bring of what was handed to it: pieces, and bytes of the first; None: nothing."""
        queue = self._expected[number]
        return (len(queue), queue[0].missing) if queue and self._ready[queue[0].flow] else None

    def _stuck(self) -> str:
        plan, name = self._connections.plan, self._connections.fabric.host_name
        stuck = [flow for flow in self._flows if self._started[flow.id] and self._missing[flow.id]]
        listed = ", ".join(
            f"flow {flow.id} {name(plan.hosts[flow.src])} -> {name(plan.hosts[flow.dst])} "
            f"({flow.size_bytes - self._missing[flow.id]} of {flow.size_bytes} bytes)"
            for flow in stuck[:5]
        )
        more = f" and {len(stuck) - 5} more" if len(stuck) > 5 else ""
        return f"no byte has arrived for {self._connections.transport.stall_timeout_s:g} s; stuck: {listed}{more}"

    def _results(self) -> list[ConnectionResult]:
        ends = zip(self._connections.senders, self._connections.receivers, strict=True)
        moves = self._mover.moves if self._mover else [0] * len(self._connections.senders)
        return [result_of(*both, moved) for both, moved in zip(ends, moves, strict=True)]
