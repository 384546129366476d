"""The sockets: opens every subflow, replays a plan over them, and honours its dependencies.

One thread drives them all through one epoll. A socket is made inside its host's network namespace and stays there, so
the thread itself never has to be anywhere.
"""

from __future__ import annotations

import heapq
import select
import socket
import struct
import time
from collections import defaultdict, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from emulator.namespaces import inside
from emulator.sandbox import EmulatorError
from emulator.topology import LeafSpine
from traffic.schemes import TrafficPlan
from traffic.transport import Transport

LISTEN_PORT = 5000
_CONNECT_TIMEOUT_S = 20.0
_PROGRESS_PERIOD_S = 0.2
_SEND_BYTES = 1 << 20
_SO_MAX_PACING_RATE = 47
_TCP_INFO = 11
# Receive and discard: the kernel drops the bytes instead of copying them (tcp(7)).
_DISCARD = socket.MSG_TRUNC


@dataclass(frozen=True)
class SubflowResult:
    """What TCP says of one connection (tcp_info of linux/tcp.h); `out_of_order_segments` is the receiver's count."""

    retransmitted_segments: int
    retransmitted_bytes: int
    reordering_seen: int
    out_of_order_segments: int
    received_bytes: int
    min_rtt_s: float


@dataclass(frozen=True)
class ReplayResult:
    """Times are of CLOCK_MONOTONIC, per flow in the order of the schedule."""

    started_s: Sequence[float]
    finished_s: Sequence[float]
    subflows: Sequence[SubflowResult]

    @property
    def cct_s(self) -> float:
        """First send to last byte received."""
        return max(self.finished_s) - min(self.started_s)


class Replay:
    """A plan's connections on a fabric. Use as a context manager: leaving it closes every socket."""

    def __init__(self, plan: TrafficPlan, fabric: LeafSpine, host_pids: Sequence[int], transport: Transport) -> None:
        self._plan, self._fabric, self._pids, self._transport = plan, fabric, host_pids, transport
        self._senders: list[socket.socket] = []
        self._receivers: list[socket.socket] = []

    def __enter__(self) -> Replay:
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for opened in [*self._senders, *self._receivers]:
            # A reset instead of TIME_WAIT: the next run binds the same ports.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            opened.close()

    def _open(self) -> None:
        plan, fabric = self._plan, self._fabric
        listeners: dict[int, socket.socket] = {}
        try:
            for host in sorted({subflow.dst_host for subflow in plan.subflows}):
                listener = listeners[host] = self._socket(host)
                listener.bind((fabric.host_ip(host), LISTEN_PORT))
                listener.listen(4096)
            for subflow in plan.subflows:
                sender = self._socket(subflow.src_host)
                self._senders.append(sender)
                sender.bind((fabric.host_ip(subflow.src_host), subflow.src_port))
                if self._transport.pacing == "fair":
                    payload_share = 1 / fabric.wire_bytes(1.0)
                    rate_bps = fabric.host_rate_bps * subflow.pacing_share * payload_share
                    sender.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, max(1, int(rate_bps / 8)))
                _tag(sender, subflow.path_tag)
                sender.connect_ex((fabric.host_ip(subflow.dst_host), LISTEN_PORT))
            self._receivers = self._accept(listeners)
        finally:
            for listener in listeners.values():
                listener.close()

    def _socket(self, host: int) -> socket.socket:
        with inside(self._pids[host]):
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = self._transport.congestion_control
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
        except OSError as error:
            made.close()
            raise EmulatorError(f"transport.congestion_control: this kernel has no {name}") from error
        return made

    def _accept(self, listeners: dict[int, socket.socket]) -> list[socket.socket]:
        """The receiving end of every subflow, once all are connected."""
        plan, fabric = self._plan, self._fabric
        expected = {(fabric.host_ip(s.src_host), s.src_port, s.dst_host): s for s in plan.subflows}
        accepted: dict[int, socket.socket] = {}
        deadline = time.monotonic() + _CONNECT_TIMEOUT_S
        poller = select.poll()
        hosts = {listener.fileno(): host for host, listener in listeners.items()}
        for descriptor in hosts:
            poller.register(descriptor, select.POLLIN)
        try:
            while len(accepted) < len(plan.subflows):
                for descriptor, _ in poller.poll(100):
                    host = hosts[descriptor]
                    for made, peer in _accept_all(listeners[host]):
                        subflow = expected[(*peer, host)]
                        _tag(made, subflow.path_tag)
                        accepted[subflow.id] = made
                if time.monotonic() > deadline:
                    missing = [s for s in plan.subflows if s.id not in accepted]
                    raise EmulatorError(
                        f"{len(missing)} of {len(plan.subflows)} connections did not open in {_CONNECT_TIMEOUT_S:g} s, "
                        f"the first from {fabric.host_name(missing[0].src_host)} to "
                        f"{fabric.host_name(missing[0].dst_host)}"
                    )
        except BaseException:
            for made in accepted.values():
                made.close()
            raise
        return [accepted[subflow.id] for subflow in plan.subflows]

    def run(self) -> Generator[float, None, ReplayResult]:
        """Replay the plan; yields now and then which part of all bytes has arrived, returns what came of it.

        Raises EmulatorError, naming the flows that are stuck, when nothing has arrived for the stall time-out.
        """
        return _Run(self._plan, self._fabric, self._senders, self._receivers, self._transport).run()


class _Run:
    """The state of one replay: what each subflow has still to send and receive, what each flow waits for."""

    def __init__(
        self,
        plan: TrafficPlan,
        fabric: LeafSpine,
        senders: Sequence[socket.socket],
        receivers: Sequence[socket.socket],
        transport: Transport,
    ) -> None:
        self._plan, self._fabric = plan, fabric
        self._senders, self._receivers, self._transport = senders, receivers, transport
        flows = plan.schedule.flows
        self._payload = memoryview(bytes(_SEND_BYTES))
        self._sink = bytearray(_SEND_BYTES)
        self._started = [0.0] * len(flows)
        self._finished = [0.0] * len(flows)
        self._missing = [flow.size_bytes for flow in flows]
        self._waits = [len(flow.waits_for) for flow in flows]
        self._waiters: dict[int, list[int]] = defaultdict(list)
        for flow in flows:
            for awaited in flow.waits_for:
                self._waiters[awaited].append(flow.id)
        self._pieces_of: list[list[tuple[int, int]]] = [[] for _ in flows]
        self._to_receive: list[deque[list[int]]] = [deque() for _ in plan.subflows]
        for piece in plan.pieces:
            self._pieces_of[piece.flow].append((piece.subflow, piece.size_bytes))
            self._to_receive[piece.subflow].append([piece.flow, piece.size_bytes])
        # What a subflow may send now, and the pieces whose turn has not come: bytes leave in the order listed even if
        # flows become ready in another, or the receiver could not tell them apart.
        self._sendable = [0] * len(plan.subflows)
        self._turns = [deque(piece[0] for piece in queue) for queue in self._to_receive]
        self._ready: list[set[int]] = [set() for _ in plan.subflows]
        self._sizes = [{piece[0]: piece[1] for piece in queue} for queue in self._to_receive]
        self._flows_left = len(flows)
        self._received = 0

    def run(self) -> Generator[float, None, ReplayResult]:
        flows = self._plan.schedule.flows
        total = max(1, self._plan.schedule.payload_bytes)
        with select.epoll() as epoll:
            by_descriptor: dict[int, int] = {}
            for number, (sender, receiver) in enumerate(zip(self._senders, self._receivers, strict=True)):
                by_descriptor[sender.fileno()] = by_descriptor[receiver.fileno()] = number
                epoll.register(sender.fileno(), select.EPOLLOUT | select.EPOLLET)
                epoll.register(receiver.fileno(), select.EPOLLIN | select.EPOLLET)
            receivers = {receiver.fileno() for receiver in self._receivers}
            origin = time.monotonic()
            later = [(flow.start_s, flow.id) for flow in flows if self._waits[flow.id] == 0]
            heapq.heapify(later)
            reported = moved = origin
            while self._flows_left:
                now = time.monotonic()
                while later and origin + later[0][0] <= now:
                    self._start(heapq.heappop(later)[1])
                wait = _PROGRESS_PERIOD_S
                if later:
                    wait = min(wait, max(0.0, origin + later[0][0] - now))
                before = self._received
                for descriptor, _ in epoll.poll(wait):
                    number = by_descriptor[descriptor]
                    if descriptor in receivers:
                        for flow_id in self._receive(number):
                            for waiter in self._waiters[flow_id]:
                                self._waits[waiter] -= 1
                                if self._waits[waiter] == 0:
                                    heapq.heappush(later, (flows[waiter].start_s, waiter))
                    else:
                        self._send(number)
                now = time.monotonic()
                if self._received > before or (later and self._received == 0):
                    moved = now
                elif now - moved > self._transport.stall_timeout_s and not self._idle_by_plan(later, origin, now):
                    raise EmulatorError(self._stuck())
                if now - reported > _PROGRESS_PERIOD_S:
                    reported = now
                    yield self._received / total
        return ReplayResult(self._started, self._finished, self._results())

    def _idle_by_plan(self, later: Sequence[tuple[float, int]], origin: float, now: float) -> bool:
        """Nothing is under way and the next flow's start time has not come."""
        under_way = any(start and not end for start, end in zip(self._started, self._finished, strict=True))
        return bool(later) and origin + later[0][0] > now and not under_way

    def _start(self, flow_id: int) -> None:
        self._started[flow_id] = time.monotonic()
        for number, _ in self._pieces_of[flow_id]:
            ready, turns = self._ready[number], self._turns[number]
            ready.add(flow_id)
            while turns and turns[0] in ready:
                self._sendable[number] += self._sizes[number][turns.popleft()]
            self._send(number)

    def _send(self, number: int) -> None:
        """Hand the kernel what it takes; epoll says when it takes more."""
        send = self._senders[number].send
        while self._sendable[number]:
            try:
                sent = send(self._payload[: self._sendable[number]])
            except BlockingIOError:
                return
            except OSError as error:
                raise EmulatorError(f"{self._name(number)} broke: {error.strerror}") from error
            self._sendable[number] -= sent

    def _receive(self, number: int) -> Iterator[int]:
        """Take what has arrived and yield the flows it completes."""
        receive, sink, queue = self._receivers[number].recv_into, self._sink, self._to_receive[number]
        while True:
            try:
                got = receive(sink, _SEND_BYTES, _DISCARD)
            except BlockingIOError:
                return
            except OSError as error:
                raise EmulatorError(f"{self._name(number)} broke: {error.strerror}") from error
            if got == 0:
                raise EmulatorError(f"{self._name(number)} was closed by its sender")
            self._received += got
            while got:
                if not queue:
                    raise EmulatorError(f"{self._name(number)} delivered {got} bytes more than were sent")
                head = queue[0]
                taken = min(got, head[1])
                got -= taken
                head[1] -= taken
                flow_id = head[0]
                self._missing[flow_id] -= taken
                if head[1] == 0:
                    queue.popleft()
                if self._missing[flow_id] == 0:
                    self._finished[flow_id] = time.monotonic()
                    self._flows_left -= 1
                    yield flow_id

    def _name(self, number: int) -> str:
        subflow, name = self._plan.subflows[number], self._fabric.host_name
        return f"the connection from {name(subflow.src_host)} (port {subflow.src_port}) to {name(subflow.dst_host)}"

    def _stuck(self) -> str:
        flows, hosts, name = self._plan.schedule.flows, self._plan.hosts, self._fabric.host_name
        stuck = [flow for flow in flows if self._started[flow.id] and self._missing[flow.id]]
        listed = ", ".join(
            f"flow {flow.id} {name(hosts[flow.src])} -> {name(hosts[flow.dst])} "
            f"({flow.size_bytes - self._missing[flow.id]} of {flow.size_bytes} bytes)"
            for flow in stuck[:5]
        )
        more = f" and {len(stuck) - 5} more" if len(stuck) > 5 else ""
        return f"no byte has arrived for {self._transport.stall_timeout_s:g} s; stuck: {listed}{more}"

    def _results(self) -> list[SubflowResult]:
        # (The list is read at the end: a connection's own counters lag the last byte by an acknowledgement.)
        results = []
        for sender, receiver in zip(self._senders, self._receivers, strict=True):
            sent, got = _tcp_info(sender), _tcp_info(receiver)
            results.append(
                SubflowResult(
                    retransmitted_segments=_u32(sent, 100),
                    retransmitted_bytes=_u64(sent, 208),
                    reordering_seen=_u32(sent, 220),
                    out_of_order_segments=_u32(got, 224),
                    received_bytes=_u64(got, 128),
                    min_rtt_s=_u32(sent, 148) / 1e6,
                )
            )
        return results


def _tag(opened: socket.socket, path_tag: int) -> None:
    if path_tag:
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, path_tag << 2)


def _accept_all(listener: socket.socket) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    while True:
        try:
            made, peer = listener.accept()
        except BlockingIOError:
            return
        made.setblocking(False)
        yield made, peer


def _tcp_info(opened: socket.socket) -> bytes:
    return opened.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256).ljust(256, b"\0")


def _u32(data: bytes, offset: int) -> int:
    (value,) = struct.unpack_from("=I", data, offset)
    return int(value)


def _u64(data: bytes, offset: int) -> int:
    (value,) = struct.unpack_from("=Q", data, offset)
    return int(value)
