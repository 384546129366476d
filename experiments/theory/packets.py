"""What packets make of a plan: windows over queues that are first in, first out, with dependencies honoured.

The fluid model (`experiments.theory.fluid`) has connections share links as fairly as can be. TCP shares them as its
windows happen to stand in their queues: who waits in several has less of each, who begins while queues are long has
less for a while, and a frame is on one link at a time. So here every frame is sent, as packet simulators do (htsim:
M. Handley and others, "Re-architecting datacenter networks and stacks for low latency and high performance", 2017):

- a connection has at most its window under way (`traffic.transport.window_bytes`), and no more than its socket holds,
  which its rank fills again once a third is free, as Linux wakes writers;
- a host's NIC takes two frames of a connection at a time (Linux's TCP small queues), and sends them in that order;
- every port sends frames in the order in which they came, as fast as its token bucket lets it (`emulator.shaping`);
- acknowledgements take no time, and windows are so small that slow start is over at once (RFC 6928);
- a task starts up to one frame's time on a host's link after the last that it waited for: which of two frames comes
  first is chance, and where that changes the whole, the run is a knife-edge.

Nothing is lost. Where a queue would overflow, this model has no answer.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import NamedTuple

from emulator.ports import shaping_for
from emulator.topology import IP_TCP_HEADER_BYTES, LeafSpine
from experiments.theory.capacity import Change
from experiments.theory.loads import Ints, link_capacities_bps, routes
from traffic.plan import TrafficPlan
from traffic.transport import SOCKET_BYTES, Transport, window_bytes

_IN_NIC = 2  # frames of a connection
_FRAME_OVERHEAD_BYTES = 1280  # what a frame takes of a socket besides its payload: sk_buff, headers, skb_shared_info
_REFILL = 2 / 3  # of a socket: below it, its rank writes again
_START = -1  # in place of a port: an event is a task's

_Path = tuple[int, ...]


class _Frame(NamedTuple):
    connection: int
    size_bytes: int
    bits: float
    path: _Path
    hop: int


def simulate_packets(
    plan: TrafficPlan,
    fabric: LeafSpine,
    spines: Ints,
    chance: random.Random,
    *,
    transport: Transport | None = None,
    changes: Sequence[Change] = (),
) -> float | None:
    """Return the seconds that `plan` takes over the paths `spines` gives; None where a queue would overflow.

    `changes` are what links carry from some times on; they leave each something. What other tenants send has no part
    in the time.
    """
    return _Packets(plan, fabric, spines, chance, transport or Transport(), changes).run()


def frames_of(plan: TrafficPlan, fabric: LeafSpine) -> int:
    """Return about how many frames carry `plan`."""
    segment_bytes = fabric.mtu_bytes - IP_TCP_HEADER_BYTES
    return plan.schedule.payload_bytes // segment_bytes + len(plan.pieces)


class _Paths:
    """The ports that frames of each connection cross: of several ways, the one that is furthest behind its share."""

    def __init__(self, plan: TrafficPlan, fabric: LeafSpine, spines: Ints) -> None:
        links, shares = routes(plan, fabric, spines)
        ways = (links.shape[1] - 2) // 2
        self._paths: list[list[_Path]] = []
        self._shares: list[list[float]] = []
        for crossed, share in zip(links.tolist(), shares.tolist(), strict=True):
            source, destination = crossed[:2]
            up, down = crossed[2 : 2 + ways], crossed[2 + ways :]
            used = [way for way in range(ways) if share[2 + way] > 0]
            within: _Path = (source, destination) if share[0] else ()
            self._paths.append([(source, up[way], down[way], destination) for way in used] or [within])
            self._shares.append([share[2 + way] for way in used] or [1.0])
        ends = [(made.src_host, fabric.leaf_of(made.dst_host)) for made in plan.connections]
        behind: dict[tuple[int, int], dict[_Path, float]] = defaultdict(lambda: defaultdict(float))
        self._behind = [behind[each] for each in ends]  # a NIC counts by leaf, whatever the connection

    def of(self, connection: int) -> _Path:
        """The path of the connection's next frame."""
        paths = self._paths[connection]
        if len(paths) == 1:
            return paths[0]
        behind = self._behind[connection]
        ways = [path[1:3] for path in paths]
        for way, share in zip(ways, self._shares[connection], strict=True):
            behind[way] += share
        chosen = max(range(len(ways)), key=lambda number: behind[ways[number]])
        behind[ways[chosen]] -= 1
        return paths[chosen]


class _Packets:
    """The state of one simulation. Ports are numbered as links are (`experiments.theory.loads.Routes`)."""

    def __init__(
        self,
        plan: TrafficPlan,
        fabric: LeafSpine,
        spines: Ints,
        chance: random.Random,
        transport: Transport,
        changes: Sequence[Change],
    ) -> None:
        self._plan, self._chance, self._changes = plan, chance, list(changes)
        self._segment_bytes = fabric.mtu_bytes - IP_TCP_HEADER_BYTES
        self._together_bytes = self._segment_bytes * (1 if plan.scheme.spreads else fabric.burst_frames)
        self._bits_per_byte = 8 * fabric.wire_bytes(1)
        self._late_s = fabric.wire_bytes(self._segment_bytes) * 8 / fabric.host_rate_bps
        self._events: list[tuple[float, int, int, int]] = []
        self._numbered = 0
        self._know_ports(fabric)
        self._know_tasks()
        self._know_connections(fabric, transport)
        self._paths = _Paths(plan, fabric, spines)

    def _know_ports(self, fabric: LeafSpine) -> None:
        self._rates = link_capacities_bps(fabric).tolist()
        self._bucket_bits = 8 * shaping_for(fabric.host_rate_bps, fabric).burst_bytes
        self._room_bits = 8 * fabric.queue_bytes
        self._queues: list[deque[_Frame]] = [deque() for _ in self._rates]
        self._queued_bits = [0.0] * len(self._rates)
        self._full_s = [0.0] * len(self._rates)  # when each port's token bucket is full, if nothing more is sent
        self._overflown = False

    def _know_tasks(self) -> None:
        schedule = self._plan.schedule
        tasks, flows = schedule.tasks, schedule.flows
        self._seconds = [*([0.0] * len(flows)), *(compute.seconds for compute in schedule.computes)]
        self._missing = [flow.size_bytes for flow in flows]
        self._started = [False] * len(tasks)
        self._end_s = [0.0] * len(tasks)
        self._waits = [len(task.waits_for) for task in tasks]
        self._waiters: dict[int, list[int]] = defaultdict(list)
        for task in tasks:
            for awaited in task.waits_for:
                self._waiters[awaited].append(task.id)
        origin_s = schedule.origin_s
        self._not_before_s = [*(flow.start_s - origin_s for flow in flows), *([0.0] * len(schedule.computes))]

    def _know_connections(self, fabric: LeafSpine, transport: Transport) -> None:
        connections = self._plan.connections
        receivers = Counter(made.dst_host for made in connections)
        fits = max(1, -(-SOCKET_BYTES // (self._segment_bytes + _FRAME_OVERHEAD_BYTES)))
        held_bytes = fits * self._segment_bytes
        fitted = transport.windows == "fitted"
        self._window = [
            min(window_bytes(fabric, receivers[made.dst_host]), held_bytes) if fitted else held_bytes
            for made in connections
        ]
        self._full = [window >= held_bytes for window in self._window]
        self._refill_bytes = _REFILL * held_bytes
        self._held_back = [False] * len(connections)  # until its rank writes again
        self._sendable, self._under_way = [0] * len(connections), [0] * len(connections)
        self._in_nic = [0] * len(connections)
        self._turns: list[deque[tuple[int, int]]] = [deque() for _ in connections]
        self._connections_of: list[list[int]] = [[] for _ in self._missing]
        for piece in self._plan.pieces:
            if not piece.size_bytes:
                continue
            self._turns[piece.connection].append((piece.flow, piece.size_bytes))
            self._connections_of[piece.flow].append(piece.connection)
        self._expected = [deque([flow, size] for flow, size in turns) for turns in self._turns]

    def run(self) -> float | None:
        for task, waits in enumerate(self._waits):
            if not waits:
                self._at(self._not_before_s[task], _START, task)
        while self._events and not self._overflown:
            now, _, port, task = heapq.heappop(self._events)
            while self._changes and self._changes[0].at_s <= now:
                self._rates = self._changes.pop(0).rates_bps.tolist()
            if port != _START:
                self._leave(now, port)
            elif self._started[task]:
                self._end(now, task)
            else:
                self._start(now, task)
        return None if self._overflown else max(self._end_s[: self._plan.schedule.own_tasks], default=0.0)

    def _at(self, time_s: float, port: int, task: int = 0) -> None:
        self._numbered += 1
        heapq.heappush(self._events, (time_s, self._numbered, port, task))

    def _start(self, now: float, task: int) -> None:
        self._started[task] = True
        if task >= len(self._missing):
            self._at(now + self._seconds[task], _START, task)
            return
        if not self._missing[task]:
            self._end(now, task)
        for connection in self._connections_of[task]:
            turns = self._turns[connection]
            while turns and self._started[turns[0][0]]:
                self._sendable[connection] += turns.popleft()[1]
            self._send(now, connection)

    def _end(self, now: float, task: int) -> None:
        self._end_s[task] = now
        for waiter in self._waiters[task]:
            self._waits[waiter] -= 1
            if not self._waits[waiter]:
                late_s = self._chance.uniform(0, self._late_s)
                self._at(max(now + late_s, self._not_before_s[waiter]), _START, waiter)

    def _send(self, now: float, connection: int) -> None:
        """Hand the NIC what it takes and the window leaves room for."""
        while self._sendable[connection] and self._in_nic[connection] < _IN_NIC:
            under_way = self._under_way[connection]
            if self._held_back[connection] and under_way > self._refill_bytes:
                return
            room = (self._window[connection] - under_way) // self._segment_bytes * self._segment_bytes
            self._held_back[connection] = room <= 0 and self._full[connection]
            if room <= 0:
                return
            path = self._paths.of(connection)
            sendable_bytes = self._sendable[connection]
            size_bytes = min(self._together_bytes, sendable_bytes, room) if path else sendable_bytes
            self._sendable[connection] -= size_bytes
            self._under_way[connection] += size_bytes
            self._in_nic[connection] += 1
            self._enter(now, _Frame(connection, size_bytes, size_bytes * self._bits_per_byte, path, 0))

    def _enter(self, now: float, frame: _Frame) -> None:
        """A frame comes to the next port on its path, or to its receiver."""
        if frame.hop == len(frame.path):
            self._arrive(now, frame)
            return
        port = frame.path[frame.hop]
        self._queued_bits[port] += frame.bits
        if self._queued_bits[port] > self._room_bits:
            self._overflown = True
        self._queues[port].append(frame)
        if len(self._queues[port]) == 1:
            self._serve(now, port)

    def _serve(self, now: float, port: int) -> None:
        """The frame at the head leaves as soon as the bucket holds its bits."""
        bits, rate = self._queues[port][0].bits, self._rates[port]
        leaves = max(now, self._full_s[port] - (self._bucket_bits - bits) / rate)
        self._full_s[port] = max(leaves, self._full_s[port]) + bits / rate
        self._at(leaves, port)

    def _leave(self, now: float, port: int) -> None:
        frame = self._queues[port].popleft()
        self._queued_bits[port] -= frame.bits
        if self._queues[port]:
            self._serve(now, port)
        if frame.hop == 0:
            self._in_nic[frame.connection] -= 1
            self._send(now, frame.connection)
        self._enter(now, frame._replace(hop=frame.hop + 1))

    def _arrive(self, now: float, frame: _Frame) -> None:
        connection, left = frame.connection, frame.size_bytes
        expected = self._expected[connection]
        if not frame.path:
            self._in_nic[connection] -= 1
        self._under_way[connection] -= left
        while left:
            piece = expected[0]
            taken = min(left, piece[1])
            piece[1] -= taken
            left -= taken
            if not piece[1]:
                expected.popleft()
            self._missing[piece[0]] -= taken
            if not self._missing[piece[0]]:
                self._end(now, piece[0])
        self._send(now, connection)
