"""Replays a plan over its open connections: sends, receives, and honours dependencies.

One thread drives all sockets of a process through one epoll. Here that process is this one; `traffic.abreast` has
several.
"""

from __future__ import annotations

import heapq
import os
import select
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count

from emulator.errors import EmulatorError
from emulator.topology import LeafSpine
from traffic.board import Part
from traffic.connections import Connections, Sockets
from traffic.outcome import ReplayResult, Report, result
from traffic.payload import CHUNK_BYTES, Anything
from traffic.plan import Piece, TrafficPlan
from traffic.repath import Mover, Repath
from traffic.tcpinfo import ConnectionResult, result_of
from traffic.transport import Transport
from traffic.watch import PROGRESS_PERIOD_S, Far, Patience, Watch

_POST_S = 0.001  # after so long, notices that found no room are sent again
_NOTICES = -(1 << 62)
# A receiver is woken once a batch, not once a packet: after so much, or what its subflow's share brings in so long.
_WAKE_BYTES, _WAKE_S = 1 << 16, 0.05


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

    def run(self) -> Generator[Far, None, ReplayResult]:
        """Play it, once; yields now and then how far it is, and returns what came of it.

        Raises EmulatorError, naming the flows that are stuck, when nothing has arrived for the stall time-out.
        """
        plan, fabric = self.connections.plan, self.connections.fabric
        part = Part.whole(plan, fabric.hosts)
        watch = Watch(part.board, plan, fabric, self.connections.transport.stall_timeout_s)
        player = Player(self.connections, self._payload, part, self._repath, watch.period_s)
        for _ in player.turns(time.monotonic()):
            if (arrived := watch.look()) is not None:
                yield arrived
        return result(part, [player.report()])


@dataclass(slots=True)
class _Expected:
    """A piece on its way to its receiver."""

    flow: int
    offset: int
    missing: int


class Player:
    """The state of a part: what each subflow has still to send and receive, what each flow waits for.

    It looks up every `look_s` even where nothing happens.
    """

    def __init__(
        self,
        connections: Connections,
        payload: Anything,
        part: Part,
        repath: Repath | None = None,
        look_s: float = PROGRESS_PERIOD_S,
    ) -> None:
        plan = connections.plan
        self._mover = Mover(repath, connections) if repath else None
        self._look_s = min(look_s, repath.look_s) if repath else look_s
        self._connections, self._payload, self._part = connections, payload, part
        self._sink = memoryview(bytearray(CHUNK_BYTES))
        self._waited: list[tuple[float, float]] = []
        self._cpu_s = (0.0, 0.0)
        self._know_flows(plan)
        self._know_waiting(plan)
        self._know_subflows(plan, connections.fabric.host_rate_bps)

    def _know_flows(self, plan: TrafficPlan) -> None:
        board = self._part.board
        self._flows = plan.schedule.flows
        self._computes = plan.schedule.computes
        self._started, self._finished, self._missing = board.started_s, board.finished_s, board.missing
        self._received, self._number = board.received, self._part.number
        self._ready = [False] * len(self._started)
        sent: dict[int, Iterator[int]] = defaultdict(count)
        self._turn = [next(sent[flow.src]) for flow in self._flows]

    def _know_waiting(self, plan: TrafficPlan) -> None:
        tasks, mine = plan.schedule.tasks, self._part.number
        starts, ends = self._part.starts(), self._part.ends()
        self._tasks_left = ends.count(mine)
        self._waits = [len(task.waits_for) for task in tasks]
        self._waiters: dict[int, list[int]] = defaultdict(list)
        self._told: dict[int, set[int]] = defaultdict(set)  # the other processes that wait for what ends here
        for task in tasks:
            for awaited in task.waits_for:
                if starts[task.id] == mine:
                    self._waiters[awaited].append(task.id)
                elif ends[awaited] == mine:
                    self._told[awaited].add(starts[task.id])
        self._due = [self._order(task.id) for task in tasks if not task.waits_for and starts[task.id] == mine]
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
        self._abroad = [number for number in self._connections.senders if number not in self._connections.receivers]

    def turns(self, origin_s: float) -> Iterator[None]:
        """Play; times count from `origin_s`. Yields whenever all that was ready is done."""
        spent = os.times()
        with select.epoll() as epoll:
            ends = self._register(epoll)
            patience = Patience(epoll)
            self._origin = origin_s
            while self._tasks_left or self._sends():
                self._start_due()
                for descriptor in patience.wait(self._until_due_s()):
                    end = ends[descriptor]
                    if end > 0:
                        self._receive(end - 1)
                    elif end > _NOTICES:
                        self._send(-end)
                    else:
                        self._hear()
                if self._mover:
                    self._mover.look(time.monotonic(), self._awaited)
                yield
            patience.note()
        self._waited, now = patience.account, os.times()
        self._cpu_s = now.user - spent.user, now.system - spent.system

    def report(self) -> Report:
        """Tell what came of it."""
        return Report(self._results(), self._payload.problems(self._part.ranks), self._waited, self._cpu_s)

    def _register(self, epoll: select.epoll) -> dict[int, int]:
        """What stands behind each descriptor: positive numbers are receivers, the others senders, or notices.

        One number, since it is the cheapest thing that epoll's answer can be looked up as.
        """
        ends: dict[int, int] = {}
        for number, sender in self._connections.senders.items():
            epoll.register(sender.fileno(), select.EPOLLOUT | select.EPOLLET)
            ends[sender.fileno()] = -number
        for number, receiver in self._connections.receivers.items():
            self._wake_for(number)
            epoll.register(receiver.fileno(), select.EPOLLIN | select.EPOLLET)
            ends[receiver.fileno()] = number + 1
        if (notices := self._part.post.inbox(self._part.number)) is not None:
            epoll.register(notices, select.EPOLLIN)
            ends[notices] = _NOTICES
        return ends

    def _sends(self) -> bool:
        """Whether something is still to be sent to other processes."""
        while self._abroad and not (self._turns[self._abroad[-1]] or self._sendable[self._abroad[-1]]):
            self._abroad.pop()
        return bool(self._abroad) or not self._part.post.send()

    def _hear(self) -> None:
        """Take note of what is done elsewhere."""
        for task_id in self._part.post.take(self._part.number):
            self._release(task_id)

    def _order(self, task_id: int) -> tuple[float, int, int]:
        """Orders what is to start: hosts take turns, so that none waits while another starts all it has."""
        if task_id >= len(self._flows):
            return 0.0, -1, task_id
        return self._flows[task_id].start_s, self._turn[task_id], task_id

    def _until_due_s(self) -> float:
        """How long there is nothing to start or to end: until the next task's time, or to the next look at all."""
        look_s = self._look_s if self._part.post.send() else _POST_S
        if not self._due:
            return look_s
        return min(look_s, max(0.0, self._origin + self._due[0][0] - time.monotonic()))

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
        self._part.board.begun[self._part.number] += 1
        for number in self._subflows_of[flow_id]:
            turns = self._turns[number]
            while turns and self._ready[turns[0].flow]:
                piece = turns.popleft()
                self._payload.release(piece)
                self._sendable[number] += piece.size_bytes
            self._send(number)
        if not self._flows[flow_id].size_bytes:
            self._arrived(flow_id)

    def _arrived(self, flow_id: int) -> None:
        """All of a flow has arrived."""
        self._payload.complete(flow_id)
        self._part.board.ended[self._part.number] += 1
        self._complete(flow_id)

    def _complete(self, task_id: int) -> None:
        """A task is done, and other processes are told where they wait for it."""
        self._finished[task_id] = time.monotonic()
        self._tasks_left -= 1
        self._release(task_id)
        for process in self._told.get(task_id, ()):
            self._part.post.put(process, task_id)

    def _release(self, task_id: int) -> None:
        """What waited for a task alone may start."""
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
            self._received[self._number] += got
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

    def _results(self) -> dict[int, ConnectionResult]:
        senders, receivers = self._connections.senders, self._connections.receivers
        moves = self._mover.moves if self._mover else [0] * len(self._wake)
        numbers = senders.keys() | receivers.keys()
        return {each: result_of(senders.get(each), receivers.get(each), moves[each]) for each in numbers}
