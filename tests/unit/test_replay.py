"""Replays over the loopback: what the heart of the emulator promises wherever its sockets come from."""

from __future__ import annotations

import ctypes
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from emulator.errors import EmulatorError
from emulator.topology import LeafSpine
from traffic.collectives import build_schedule
from traffic.connections import Connections, window_bytes
from traffic.loopback import LoopbackSockets
from traffic.payload import Anything, RealData
from traffic.replay import Replay, ReplayResult, SubflowResult
from traffic.schedule import Flow, Schedule
from traffic.schemes import LISTEN_PORT, Piece, Subflow, TrafficPlan, plan_traffic
from traffic.transport import Transport

FABRIC = LeafSpine(2, 2, 2, host_rate_bps=1_000_000_000, fabric_rate_bps=1_000_000_000)
QUICK = Transport(stall_timeout_s=0.4)
KB = 1000
MB = 1_000_000


def schedule_of(flows: Sequence[Flow]) -> Schedule:
    return Schedule("test", "test", FABRIC.hosts, 1, sum(flow.size_bytes for flow in flows), flows)


def plan_of(schedule: Schedule | Sequence[Flow], scheme: str = "ecmp") -> TrafficPlan:
    schedule = schedule if isinstance(schedule, Schedule) else schedule_of(schedule)
    return plan_traffic(schedule, FABRIC, range(FABRIC.hosts), scheme)


def one_connection(flows: Sequence[Flow], pieces: Sequence[Piece], count: int = 1) -> TrafficPlan:
    """Any pieces on `count` connections from rank 0 to rank 1."""
    subflows = [Subflow(number, 0, 1, 10_000 + number, 0) for number in range(count)]
    return TrafficPlan(schedule_of(flows), range(FABRIC.hosts), "ecmp", subflows, pieces)


def play(
    plan: TrafficPlan,
    payload: Anything | None = None,
    sockets: LoopbackSockets | None = None,
    transport: Transport = QUICK,
) -> tuple[ReplayResult, list[float]]:
    """What came of a replay, and the progress that it reported."""
    progress = []
    with Replay(plan, FABRIC, sockets or LoopbackSockets(FABRIC), transport, payload) as replay:
        steps = replay.run()
        while True:
            try:
                progress.append(next(steps))
            except StopIteration as end:
                return end.value, progress


def carried(plan: TrafficPlan) -> list[int]:
    """The bytes that every connection is to carry."""
    loads: Counter[int] = Counter()
    for piece in plan.pieces:
        loads[piece.subflow] += piece.size_bytes
    return [loads[subflow.id] for subflow in plan.subflows]


def dependencies_kept(plan: TrafficPlan, result: ReplayResult) -> bool:
    return all(
        result.started_s[flow.id] >= result.finished_s[awaited]
        for flow in plan.schedule.flows
        for awaited in flow.waits_for
    )


COLLECTIVES: list[tuple[str, str, dict[str, Any]]] = [
    ("allreduce", "ring", {}),
    ("allreduce", "ring", {"channels": 2}),
    ("allreduce", "halving-doubling", {}),
    ("allreduce", "double-binary-tree", {"chunks": 4}),
    ("broadcast", "ring", {"chunks": 5}),
    ("broadcast", "tree", {"chunks": 3}),
    ("alltoall", "direct", {"window": 1}),
    ("alltoall", "direct", {"window": 4}),
    ("reducescatter", "ring", {}),
    ("permutation", "shift", {"shift": 3}),
]


@pytest.mark.parametrize("scheme", ["ecmp", "subflow-3", "ethereal"])
@pytest.mark.parametrize(("collective", "algorithm", "options"), COLLECTIVES)
def test_a_collective_ends_with_the_data_it_promises(
    collective: str, algorithm: str, options: dict[str, int], scheme: str
) -> None:
    schedule = build_schedule(collective, algorithm, ranks=4, size_bytes=240_052, **options)
    plan = plan_of(schedule, scheme)
    result, _ = play(plan, RealData(plan, seed=7))
    assert result.data_problems == []
    assert [subflow.received_bytes for subflow in result.subflows] == carried(plan)
    assert dependencies_kept(plan, result)


@pytest.mark.parametrize("windows", ["fitted", "default"])
def test_zeros_are_counted_to_the_byte_and_nobody_looks_at_them(windows: Any) -> None:
    plan = plan_of(build_schedule("allreduce", "ring", ranks=4, size_bytes=5_000_004), "subflow-3")
    result, _ = play(plan, transport=replace(QUICK, windows=windows))
    assert result.data_problems is None
    assert [subflow.received_bytes for subflow in result.subflows] == carried(plan)
    assert dependencies_kept(plan, result)


class Corrupting(RealData):
    """One byte of one flow arrives as another."""

    def arrived(self, flow: int, offset: int, data: memoryview) -> None:
        if flow == 2 and offset == 0:
            data[0] ^= 1
        super().arrived(flow, offset, data)


class Forgetful(RealData):
    """What one flow brought is never added."""

    def complete(self, flow: int) -> None:
        if flow != 2:
            super().complete(flow)


class Late(RealData):
    """Everything is sent as it was at the beginning: what arrived since does not count."""

    def __init__(self, plan: TrafficPlan, seed: int) -> None:
        super().__init__(plan, seed)
        for piece in plan.pieces:
            super().release(piece)

    def release(self, piece: Piece) -> None:
        pass


@pytest.mark.parametrize("payload", [Corrupting, Forgetful, Late])
def test_wrong_data_is_found(payload: Callable[[TrafficPlan, int], RealData]) -> None:
    plan = plan_of(build_schedule("allreduce", "ring", ranks=4, size_bytes=40_000))
    result, _ = play(plan, payload(plan, 7))
    assert result.data_problems
    assert "int32 differ from what allreduce promises" in result.data_problems[0]


def test_a_wrong_byte_is_found_at_its_place() -> None:
    plan = plan_of(build_schedule("permutation", "shift", ranks=4, size_bytes=40_000, shift=1))
    result, _ = play(plan, Corrupting(plan, 7))
    assert result.data_problems is not None
    (problem,) = result.data_problems
    assert problem.startswith("rank 3: 1 of 10000 int32 differ from what permutation promises, the first at byte 40000")


@pytest.mark.parametrize("reduce", [False, True])
def test_copies_overwrite_and_reductions_add(reduce: bool) -> None:
    """A ring AllReduce ends with its sums only if what reduces does and what does not does not."""
    plan = plan_of(build_schedule("allreduce", "ring", ranks=4, size_bytes=4000))
    flows = [replace(flow, reduce=reduce) for flow in plan.schedule.flows]
    wrong = replace(plan, schedule=replace(plan.schedule, flows=flows))
    result, _ = play(wrong, RealData(wrong, 7))
    assert result.data_problems


def test_a_flow_waits_for_all_that_it_waits_for() -> None:
    flows = [
        Flow(0, 0, 1, 3 * MB),
        Flow(1, 2, 3, 4),
        Flow(2, 1, 2, 4, waits_for=(0, 1)),
        Flow(3, 3, 0, 4, waits_for=(1,)),
        Flow(4, 2, 0, 4, waits_for=(2, 3)),
    ]
    plan = plan_of(flows)
    result, _ = play(plan)
    assert dependencies_kept(plan, result)
    assert result.started_s[3] < result.finished_s[0]  # it waits for no other
    assert all(finish > start for start, finish in zip(result.started_s, result.finished_s, strict=True))
    assert result.cct_s == max(result.finished_s) - min(result.started_s)


@pytest.mark.parametrize("window", [1, 3])
def test_no_more_flows_of_a_rank_are_under_way_than_its_window_allows(window: int) -> None:
    plan = plan_of(build_schedule("alltoall", "direct", ranks=4, size_bytes=4 * MB, window=window))
    result, _ = play(plan)
    most = 0
    for rank in range(4):
        own = [flow.id for flow in plan.schedule.flows if flow.src == rank]
        for at in (result.started_s[flow] for flow in own):
            most = max(most, sum(result.started_s[flow] <= at < result.finished_s[flow] for flow in own))
    assert most == window


def test_flows_start_at_their_times() -> None:
    """Of flows that wait for others, the time is a least."""
    starts_s = [0.0, 0.3, 0.15]
    flows = [Flow(number, 0, number + 1, 1000, start_s=start_s) for number, start_s in enumerate(starts_s)]
    flows += [Flow(3, 1, 0, 1000, waits_for=(0,), start_s=0.2), Flow(4, 2, 0, 1000, waits_for=(1,), start_s=0.1)]
    result, _ = play(plan_of(flows))
    since = [started_s - result.started_s[0] for started_s in result.started_s]
    assert since[:4] == pytest.approx([0.0, 0.3, 0.15, 0.2], abs=0.05)
    assert since[1] >= 0.29
    assert since[4] == pytest.approx(since[1], abs=0.05)
    assert dependencies_kept(plan_of(flows), result)


def test_hosts_take_turns_when_all_may_start() -> None:
    """Eight flows each of three hosts, listed host by host: no host has started two before all have started one."""
    flows = [Flow(number, number // 8, 3, 1000, channel=number) for number in range(24)]
    result, _ = play(plan_of(flows))
    order = [flows[number].src for number in sorted(range(24), key=lambda number: result.started_s[number])]
    assert order == [0, 1, 2] * 8


def test_an_idle_schedule_is_no_stall() -> None:
    flows = [Flow(0, 0, 1, 1000), Flow(1, 0, 1, 1000, start_s=0.5)]
    result, _ = play(plan_of(flows), transport=Transport(stall_timeout_s=0.1))
    assert result.finished_s[1] - result.finished_s[0] == pytest.approx(0.5, abs=0.1)


def test_flows_of_one_connection_arrive_in_its_order_whichever_is_ready_first() -> None:
    """The first flow may start last; until then the bytes of the second must wait, or they would pass for its own."""
    flows = [
        Flow(0, 0, 1, 40_000, start_s=0.2),
        Flow(1, 0, 1, 40_000, src_offset_bytes=40_000, dst_offset_bytes=40_000),
        Flow(2, 0, 1, 4000, src_offset_bytes=80_000, dst_offset_bytes=80_000),
    ]
    schedule = Schedule("broadcast", "test", 2, 1, 84_000, flows)
    plan = plan_of(schedule)
    assert len(plan.subflows) == 1
    result, _ = play(plan, RealData(plan, 3))
    assert result.data_problems == []
    assert result.started_s[1] < result.started_s[0] < result.finished_s[0] <= result.finished_s[1]
    assert result.finished_s[1] <= result.finished_s[2]


def test_pieces_of_unequal_size_are_put_together_over_several_connections() -> None:
    """A flow in five pieces over two connections, and between them those of another."""
    flows = [
        Flow(0, 0, 1, 100_000),
        Flow(1, 0, 1, 20_000, src_offset_bytes=100_000, dst_offset_bytes=100_000),
    ]
    pieces = [
        Piece(0, 0, 0, 12),
        Piece(0, 1, 12, 70_000),
        Piece(1, 0, 0, 19_000),
        Piece(0, 0, 70_012, 29_984),
        Piece(1, 1, 19_000, 1000),
        Piece(0, 1, 99_996, 4),
    ]
    plan = one_connection(flows, pieces, count=2)
    schedule = Schedule("broadcast", "test", 2, 1, 120_000, flows)
    plan = replace(plan, schedule=schedule)
    result, _ = play(plan, RealData(plan, 3))
    assert result.data_problems == []
    assert [subflow.received_bytes for subflow in result.subflows] == [48_996, 71_004]


@pytest.mark.parametrize("verify", [False, True])
def test_flows_of_no_bytes_end_when_they_start(verify: bool) -> None:
    """Alone, after others and before others; whoever waits for them goes on."""
    flows = [
        Flow(0, 0, 1, 0),
        Flow(1, 0, 1, 4000, waits_for=(0,)),
        Flow(2, 1, 2, 0, waits_for=(1,)),
        Flow(3, 2, 3, 0, waits_for=(2,), reduce=True),
    ]
    plan = plan_of(Schedule("broadcast", "test", 2, 1, 4000, flows[:2])) if verify else plan_of(flows)
    result, _ = play(plan, RealData(plan, 1) if verify else None)
    assert dependencies_kept(plan, result)
    assert all(finish >= start > 0 for start, finish in zip(result.started_s, result.finished_s, strict=True))
    assert not result.data_problems


def test_progress_rises_to_nearly_all_and_is_reported_a_few_times_a_second() -> None:
    flows = [Flow(number, 0, 1, 250_000, start_s=number * 0.3) for number in range(4)]
    _, progress = play(plan_of(flows))
    assert progress == sorted(progress)
    assert set(progress) <= {0.25, 0.5, 0.75, 1.0}
    assert {0.25, 0.5, 0.75} <= set(progress)
    assert 3 <= len(progress) <= 5  # 0.9 s at one in 0.2 s


def test_the_account_of_waiting_is_that_of_a_replay_that_mostly_waits() -> None:
    flows = [Flow(number, 0, 1, 1000, start_s=number * 0.1) for number in range(6)]
    before = time.monotonic()
    result, _ = play(plan_of(flows))
    times_s, waited_s = zip(*result.waited, strict=True)
    assert before <= times_s[0] <= result.started_s[0]
    assert times_s[-1] >= max(result.finished_s)
    assert waited_s[0] == 0.0
    assert len(times_s) >= 5  # noted every twentieth of a second in which something happened
    for (time_s, waited), (next_s, waited_next) in pairwise(result.waited):
        assert 0 <= waited_next - waited <= next_s - time_s + 1e-6
        assert next_s - time_s > 0
    assert 0.4 < waited_s[-1] <= times_s[-1] - times_s[0]


def test_the_account_of_waiting_is_that_of_a_replay_that_is_kept_busy() -> None:
    class Slow(Anything):
        def complete(self, flow: int) -> None:
            time.sleep(0.1)

    result, _ = play(plan_of([Flow(number, 0, 1, 1000) for number in range(3)]), Slow())
    (first_s, _), *_, (last_s, waited_s) = result.waited
    assert last_s - first_s >= 0.3
    assert waited_s < 0.1


# Networks that misbehave: what `Sockets` makes is a socket that does.


class Faulty(socket.socket):
    """Sends as it should up to `limit` bytes; then `fault` says what becomes of the rest."""

    limit = 30_000
    passed = 0
    fault: Callable[[Faulty, memoryview], int]

    def send(self, data: Any, flags: int = 0) -> int:
        if room := self.limit - self.passed:
            sent = super().send(data[:room], flags)
            self.passed += sent
            return sent
        return self.fault(data)


class Swallowing(Faulty):
    def fault(self, data: memoryview) -> int:
        return len(data)


class Closing(Faulty):
    def fault(self, data: memoryview) -> int:
        self.shutdown(socket.SHUT_WR)
        return len(data)


class Broken(Faulty):
    def fault(self, data: memoryview) -> int:
        raise ConnectionResetError(104, "Connection reset by peer")


class FullForEver(Faulty):
    def fault(self, data: memoryview) -> int:
        raise BlockingIOError


class Repeating(Faulty):
    limit = 59_999

    def fault(self, data: memoryview) -> int:
        socket.socket.send(self, b"ab")
        return 1


class FaultySockets(LoopbackSockets):
    """The loopback, but for the sockets of host 0."""

    def __init__(self, kind: type[socket.socket]) -> None:
        super().__init__(FABRIC)
        self._kind = kind

    def socket(self, host: int) -> socket.socket:
        made = super().socket(host)
        if host:
            return made
        return self._kind(fileno=made.detach())


@pytest.mark.parametrize("kind", [Swallowing, FullForEver])
def test_a_replay_in_which_nothing_arrives_names_the_stuck_flows(kind: type[socket.socket]) -> None:
    flows = [
        Flow(0, 0, 1, 20_000),
        Flow(1, 0, 1, 40_000),
        Flow(2, 0, 1, 4000),
        Flow(3, 2, 3, 4000),
        Flow(4, 3, 2, 4000, waits_for=(2,)),
    ]
    began = time.monotonic()
    with pytest.raises(EmulatorError) as caught:
        play(plan_of(flows), sockets=FaultySockets(kind))
    assert str(caught.value) == (
        "no byte has arrived for 0.4 s; stuck: "
        "flow 1 h1 -> h2 (10000 of 40000 bytes), flow 2 h1 -> h2 (0 of 4000 bytes)"
    )
    assert 0.4 <= time.monotonic() - began < 2


def test_of_many_stuck_flows_five_are_named() -> None:
    with pytest.raises(EmulatorError, match=r"\(0 of 9000 bytes\) and 3 more$") as caught:
        play(plan_of([Flow(number, 0, 1, 9000) for number in range(11)]), sockets=FaultySockets(Swallowing))
    assert str(caught.value).count("->") == 5
    with pytest.raises(EmulatorError, match=r"\(0 of 9000 bytes\)$"):
        play(plan_of([Flow(number, 0, 1, 9000) for number in range(8)]), sockets=FaultySockets(Swallowing))


def test_bytes_that_trickle_in_are_no_stall() -> None:
    class Trickle(Faulty):
        """A kilobyte every 50 ms, for longer than the stall time-out."""

        limit = 0

        def fault(self, data: memoryview) -> int:
            time.sleep(0.05)
            return super(Faulty, self).send(data[:1000])

    result, _ = play(
        plan_of([Flow(0, 0, 1, 8000)]), sockets=FaultySockets(Trickle), transport=Transport(stall_timeout_s=0.2)
    )
    assert result.cct_s > 0.35


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Closing, "was closed by its sender"),
        (Broken, "broke: Connection reset by peer"),
        (Repeating, "delivered more than was sent"),
    ],
)
def test_a_connection_that_ends_is_named(kind: type[socket.socket], said: str) -> None:
    with pytest.raises(EmulatorError) as caught:
        play(plan_of([Flow(0, 0, 3, 60_000)]), sockets=FaultySockets(kind))
    assert str(caught.value) == f"the connection from h1 (port 10000) to h4 {said}"


class Reset(socket.socket):
    """Listens as it should; what it accepts breaks when it is read."""

    def accept(self) -> tuple[socket.socket, Any]:
        made, peer = super().accept()
        return Reset(fileno=made.detach()), peer

    def recv_into(self, *_: Any) -> int:
        raise ConnectionResetError(104, "Connection reset by peer")


def test_a_receiver_that_is_reset_is_named() -> None:
    with pytest.raises(EmulatorError) as caught:
        play(plan_of([Flow(0, 3, 0, 60_000)]), sockets=FaultySockets(Reset))
    assert str(caught.value) == "the connection from h4 (port 10000) to h1 broke: Connection reset by peer"


def test_an_unknown_congestion_control_is_named_and_nothing_stays_open() -> None:
    plan = plan_of([Flow(0, 0, 1, 1000)])
    with pytest.raises(EmulatorError, match=r"^transport.congestion_control: this kernel has no nosuch$"):
        play(plan, transport=Transport(congestion_control="nosuch"))
    play(plan)  # the same ports


# What connections are given, as the kernel tells.


def test_both_ends_of_a_connection_are_what_the_plan_says() -> None:
    plan = plan_of(build_schedule("alltoall", "direct", ranks=4, size_bytes=4 * MB), "ethereal")
    sockets = LoopbackSockets(FABRIC)
    connections = Connections(plan, FABRIC, sockets, Transport(congestion_control="reno"))
    connections.open()
    try:
        assert {subflow.path_tag for subflow in plan.subflows} == {0, 1, 2}
        for subflow, sender, receiver in zip(plan.subflows, connections.senders, connections.receivers, strict=True):
            source = (sockets.address(subflow.src_host), subflow.src_port)
            target = (sockets.address(subflow.dst_host), LISTEN_PORT)
            assert (sender.getsockname(), sender.getpeername()) == (source, target)
            assert (receiver.getsockname(), receiver.getpeername()) == (target, source)
            for end in (sender, receiver):
                assert end.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == subflow.path_tag * 4
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
                assert not end.getblocking()
    finally:
        connections.close()
    assert {end.fileno() for end in (*connections.senders, *connections.receivers)} == {-1}


def test_windows_are_fitted_to_the_queue_the_link_and_the_number_of_connections() -> None:
    fabric = LeafSpine(2, 2, 2, host_rate_bps=10_000_000, queue_bytes=4_000_000)
    assert window_bytes(fabric, 1) == 500_000  # what 10 Mb/s carry in 0.4 s
    assert window_bytes(fabric, 4) == 125_000
    assert window_bytes(replace(fabric, queue_bytes=200_000), 1) == 100_000  # half of the queue
    assert window_bytes(fabric, 10_000) == 2 * (9000 - 52)  # two segments at least


def test_connections_begin_with_fitted_windows_where_they_are_asked_for() -> None:
    """Ten connections to a host whose queue holds a megabyte. (What Linux makes of a window later is its own.)"""
    fabric = replace(FABRIC, queue_bytes=1_000_000)
    plan = plan_of([Flow(number, 0, 1, MB, channel=number) for number in range(10)])
    for windows in ("fitted", "default"):
        connections = Connections(plan, fabric, LoopbackSockets(fabric), replace(QUICK, windows=windows))
        connections.open()
        clamps = [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP) for end in connections.receivers]
        connections.close()
        assert (set(clamps) == {50_000}) == (windows == "fitted")


def test_connections_that_do_not_open_are_counted_and_the_first_is_named() -> None:
    class Unreachable(LoopbackSockets):
        """Host 3 listens where nobody looks for it."""

        def address(self, host: int) -> str:
            self.asked = getattr(self, "asked", 0) + (host == 3)
            return super().address(host + 10 * (host == 3 and self.asked > 1))

    plan = plan_of([Flow(0, 0, 1, 1000), Flow(1, 2, 3, 1000), Flow(2, 0, 3, 1000)])
    connections = Connections(plan, FABRIC, Unreachable(FABRIC), QUICK)
    began = time.monotonic()
    with pytest.raises(EmulatorError) as caught:
        connections.open(timeout_s=0.3)
    assert str(caught.value) == "2 of 3 connections did not open in 0.3 s, the first from h3 to h4"
    assert 0.3 <= time.monotonic() - began < 1
    assert {sender.fileno() for sender in connections.senders} == {-1}


def test_a_stranger_who_knocks_is_sent_away() -> None:
    class Visited(LoopbackSockets):
        """Before the first connection, a stranger comes to host 1."""

        stranger: socket.socket | None = None

        def socket(self, host: int) -> socket.socket:
            if host == 0 and not self.stranger:
                self.stranger = super().socket(0)
                self.stranger.connect_ex((self.address(1), LISTEN_PORT))
            return super().socket(host)

    sockets = Visited(FABRIC)
    result, _ = play(plan_of([Flow(0, 0, 1, 1000)]), sockets=sockets)
    assert [subflow.received_bytes for subflow in result.subflows] == [1000]
    assert sockets.stranger
    sockets.stranger.settimeout(5)
    assert sockets.stranger.recv(1) == b""
    sockets.stranger.close()


class TcpInfo(ctypes.Structure):
    """struct tcp_info, as linux/tcp.h has it."""

    _fields_ = (
        *((f"byte_{number}", ctypes.c_uint8) for number in range(8)),
        *((name, ctypes.c_uint32) for name in (
            "rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets", "last_data_sent",
            "last_ack_sent", "last_data_recv", "last_ack_recv", "pmtu", "rcv_ssthresh", "rtt", "rttvar",
            "snd_ssthresh", "snd_cwnd", "advmss", "reordering", "rcv_rtt", "rcv_space", "total_retrans",
        )),
        *((name, ctypes.c_uint64) for name in ("pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received")),
        *((name, ctypes.c_uint32) for name in ("segs_out", "segs_in", "notsent_bytes", "min_rtt", "data_segs_in",
                                               "data_segs_out")),
        *((name, ctypes.c_uint64) for name in ("delivery_rate", "busy_time", "rwnd_limited", "sndbuf_limited")),
        *((name, ctypes.c_uint32) for name in ("delivered", "delivered_ce")),
        *((name, ctypes.c_uint64) for name in ("bytes_sent", "bytes_retrans")),
        *((name, ctypes.c_uint32) for name in ("dsack_dups", "reord_seen", "rcv_ooopack", "snd_wnd", "rcv_wnd",
                                               "rehash")),
        *((name, ctypes.c_uint16) for name in ("total_rto", "total_rto_recoveries")),
    )  # fmt: skip


class Told(socket.socket):
    """A sender of which the kernel tells what was planted."""

    def getsockopt(self, *arguments: Any) -> Any:
        if arguments[:2] != (socket.IPPROTO_TCP, socket.TCP_INFO):
            return super().getsockopt(*arguments)
        return bytes(TcpInfo(total_retrans=3, bytes_retrans=1 << 33, total_rto=2, reord_seen=7, min_rtt=1500,
                             bytes_received=99, rcv_ooopack=99))  # fmt: skip


def test_what_tcp_says_is_read_from_the_end_that_knows() -> None:
    result, _ = play(plan_of([Flow(0, 0, 1, 1000)]), sockets=FaultySockets(Told))
    assert result.subflows == [
        SubflowResult(
            retransmitted_segments=3,
            retransmitted_bytes=1 << 33,
            timeouts=2,
            reordering_seen=7,
            out_of_order_segments=0,
            received_bytes=1000,
            min_rtt_s=0.0015,
        )
    ]


def test_an_older_kernel_that_tells_less_is_taken_for_zeros() -> None:
    class Older(Told):
        def getsockopt(self, *arguments: Any) -> Any:
            told = super().getsockopt(*arguments)
            return told[: TcpInfo.bytes_retrans.offset] if isinstance(told, bytes) else told

    result, _ = play(plan_of([Flow(0, 0, 1, 1000)]), sockets=FaultySockets(Older))
    (subflow,) = result.subflows
    assert (subflow.retransmitted_segments, subflow.retransmitted_bytes, subflow.timeouts) == (3, 0, 0)


def test_receivers_are_woken_by_batches_and_not_by_packets() -> None:
    """A receiver that was woken at every segment would read a thousand times."""

    class Counted(Anything):
        receive_flags = 0

        def __init__(self) -> None:
            super().__init__()
            self.reads: list[int] = []

        def arrived(self, flow: int, offset: int, data: memoryview) -> None:
            self.reads.append(len(data))

    payload = Counted()
    play(plan_of([Flow(0, 0, 1, 8 * MB)]), payload)
    assert sum(payload.reads) == 8 * MB
    assert np.mean(payload.reads) > 40_000
