"""Replays over the loopback: what a replay promises wherever its sockets come from."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from replaying import MB, QUICK, FaultySockets, carried, dependencies_kept, one_connection, plan_of, play

from traffic.collectives import build_schedule
from traffic.payload import Anything, RealData
from traffic.plan import Piece, TrafficPlan
from traffic.schedule import Flow, Schedule
from traffic.transport import Transport

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


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("scheme", ["ecmp", "subflow-3", "ethereal"])
@pytest.mark.parametrize(("collective", "algorithm", "options"), COLLECTIVES)
def test_a_collective_ends_with_the_data_it_promises(
    collective: str, algorithm: str, options: dict[str, int], scheme: str, processes: int
) -> None:
    schedule = build_schedule(collective, algorithm, ranks=4, size_bytes=240_052, **options)
    plan = plan_of(schedule, scheme)
    result, _ = play(plan, RealData(plan, seed=7), processes=processes)
    assert result.data_problems == []
    assert [connection.received_bytes for connection in result.connections] == carried(plan)
    assert dependencies_kept(plan, result)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("windows", ["fitted", "default"])
def test_zeros_are_counted_to_the_byte_and_nobody_looks_at_them(windows: Any, processes: int) -> None:
    plan = plan_of(build_schedule("allreduce", "ring", ranks=4, size_bytes=5_000_004), "subflow-3")
    result, _ = play(plan, transport=replace(QUICK, windows=windows), processes=processes)
    assert result.data_problems is None
    assert [connection.received_bytes for connection in result.connections] == carried(plan)
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


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("payload", [Corrupting, Forgetful, Late])
def test_wrong_data_is_found(payload: Callable[[TrafficPlan, int], RealData], processes: int) -> None:
    plan = plan_of(build_schedule("allreduce", "ring", ranks=4, size_bytes=40_000))
    result, _ = play(plan, payload(plan, 7), processes=processes)
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


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_flow_waits_for_all_that_it_waits_for(processes: int) -> None:
    flows = [
        Flow(0, 0, 1, 3 * MB, start_s=0.5),
        Flow(1, 2, 3, 4),
        Flow(2, 1, 2, 4, waits_for=(0, 1)),
        Flow(3, 3, 0, 4, waits_for=(1,)),
        Flow(4, 2, 0, 4, waits_for=(2, 3)),
    ]
    plan = plan_of(flows)
    result, _ = play(plan, processes=processes)
    assert dependencies_kept(plan, result)
    assert result.started_s[3] < result.finished_s[0]  # it waits for no other
    assert all(finish > start for start, finish in zip(result.started_s, result.finished_s, strict=True))
    assert result.cct_s == max(result.finished_s) - min(result.started_s)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 3])
def test_no_more_flows_of_a_rank_are_under_way_than_its_window_allows(window: int, processes: int) -> None:
    plan = plan_of(build_schedule("alltoall", "direct", ranks=4, size_bytes=4 * MB, window=window))
    result, _ = play(plan, processes=processes)
    most = 0
    for rank in range(4):
        own = [flow.id for flow in plan.schedule.flows if flow.src == rank]
        for at in (result.started_s[flow] for flow in own):
            most = max(most, sum(result.started_s[flow] <= at < result.finished_s[flow] for flow in own))
    assert most == window


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_flows_start_at_their_times(processes: int) -> None:
    """Of flows that wait for others, the time is a least."""
    starts_s = [0.0, 0.3, 0.15]
    flows = [Flow(number, 0, number + 1, 1000, start_s=start_s) for number, start_s in enumerate(starts_s)]
    flows += [Flow(3, 1, 0, 1000, waits_for=(0,), start_s=0.2), Flow(4, 2, 0, 1000, waits_for=(1,), start_s=0.1)]
    result, _ = play(plan_of(flows), processes=processes)
    since = [started_s - result.started_s[0] for started_s in result.started_s]
    assert since[:4] == pytest.approx([0.0, 0.3, 0.15, 0.2], abs=0.1)
    assert min(since[1] - 0.3, since[2] - 0.15, since[3] - 0.2) > -0.01, "never before its time"
    assert since[4] == pytest.approx(since[1], abs=0.1)
    assert dependencies_kept(plan_of(flows), result)


def test_hosts_take_turns_when_all_may_start() -> None:
    """Eight flows each of three hosts, listed host by host: no host has started two before all have started one."""
    flows = [Flow(number, number // 8, 3, 1000, channel=number) for number in range(24)]
    result, _ = play(plan_of(flows))
    order = [flows[number].src for number in sorted(range(24), key=lambda number: result.started_s[number])]
    assert order == [0, 1, 2] * 8


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_an_idle_schedule_is_no_stall(processes: int) -> None:
    flows = [Flow(0, 0, 1, 1000), Flow(1, 0, 1, 1000, start_s=0.5)]
    result, _ = play(plan_of(flows), transport=Transport(stall_timeout_s=0.1), processes=processes)
    assert result.finished_s[1] - result.started_s[0] >= 0.49


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_flows_of_one_connection_arrive_in_its_order_whichever_is_ready_first(processes: int) -> None:
    """The first flow may start last; until then the bytes of the second must wait, or they would pass for its own."""
    flows = [
        Flow(0, 0, 1, 40_000, start_s=0.2),
        Flow(1, 0, 1, 40_000, src_offset_bytes=40_000, dst_offset_bytes=40_000),
        Flow(2, 0, 1, 4000, src_offset_bytes=80_000, dst_offset_bytes=80_000),
    ]
    schedule = Schedule("broadcast", "test", 2, 1, 84_000, flows)
    plan = plan_of(schedule)
    assert len(plan.connections) == 1
    result, _ = play(plan, RealData(plan, 3), processes=processes)
    assert result.data_problems == []
    assert result.started_s[1] < result.started_s[0] < result.finished_s[0] <= result.finished_s[1]
    assert result.finished_s[1] <= result.finished_s[2]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_pieces_of_unequal_size_are_put_together_over_several_connections(processes: int) -> None:
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
    result, _ = play(plan, RealData(plan, 3), processes=processes)
    assert result.data_problems == []
    assert [connection.received_bytes for connection in result.connections] == [48_996, 71_004]


class Reluctant(socket.socket):
    """Takes no more than 3000 bytes at a time."""

    def send(self, data: Any, flags: int = 0) -> int:
        return super().send(data[:3000], flags)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_nothing_is_lost_where_a_socket_takes_less_than_it_is_given(processes: int) -> None:
    """Three flows wait on one connection while the first of them leaves in parts."""
    flows = [
        Flow(number, 0, 1, 10_000, src_offset_bytes=10_000 * number, dst_offset_bytes=10_000 * number)
        for number in range(3)
    ]
    pieces = [Piece(0, 0, 0, 6000), Piece(0, 0, 6000, 4000), Piece(1, 0, 0, 10_000), Piece(2, 0, 0, 10_000)]
    plan = replace(one_connection(flows, pieces), schedule=Schedule("broadcast", "test", 2, 1, 30_000, flows))
    result, _ = play(plan, RealData(plan, 3), FaultySockets(Reluctant), processes=processes)
    assert result.data_problems == []


def test_the_kernel_drops_what_nobody_looks_at() -> None:
    class Looking(Anything):
        def arrived(self, flow: int, offset: int, data: memoryview) -> None:
            raise AssertionError("bytes were copied")

    result, _ = play(plan_of([Flow(0, 0, 1, 100_000)]), Looking())
    assert result.connections[0].received_bytes == 100_000


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("verify", [False, True])
def test_flows_of_no_bytes_end_when_they_start(verify: bool, processes: int) -> None:
    """Alone, after others and before others; whoever waits for them goes on."""
    flows = [
        Flow(0, 0, 1, 0),
        Flow(1, 0, 1, 4000, waits_for=(0,)),
        Flow(2, 1, 2, 0, waits_for=(1,)),
        Flow(3, 2, 3, 0, waits_for=(2,), reduce=True),
    ]
    plan = plan_of(Schedule("broadcast", "test", 2, 1, 4000, flows[:2])) if verify else plan_of(flows)
    result, _ = play(plan, RealData(plan, 1) if verify else None, processes=processes)
    assert dependencies_kept(plan, result)
    assert all(finish >= start > 0 for start, finish in zip(result.started_s, result.finished_s, strict=True))
    assert not result.data_problems


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_progress_rises_and_is_reported_a_few_times_a_second(processes: int) -> None:
    flows = [Flow(number, 0, 1, 250_000, start_s=number * 0.45) for number in range(3)]
    _, progress = play(plan_of(flows), processes=processes)
    assert progress == sorted(progress)
    assert {1 / 3, 2 / 3} <= set(progress) <= {1 / 3, 2 / 3, 1.0}
    assert 3 <= len(progress) <= 5  # 0.9 s at one in 0.2 s


def test_the_account_of_waiting_is_that_of_a_replay_that_mostly_waits() -> None:
    flows = [Flow(number, 0, 1, 1000, start_s=number * 0.1) for number in range(6)]
    before = time.monotonic()
    result, _ = play(plan_of(flows))
    times_s, waited_s = zip(*result.waited[0], strict=True)
    assert before <= times_s[0] <= result.started_s[0]
    assert times_s[-1] >= max(result.finished_s)
    assert waited_s[0] == 0.0
    assert len(times_s) >= 5  # noted every twentieth of a second in which something happened
    for (time_s, waited), (next_s, waited_next) in pairwise(result.waited[0]):
        assert 0 <= waited_next - waited <= next_s - time_s + 1e-6
        assert next_s - time_s > 0
    assert 0.4 < waited_s[-1] <= times_s[-1] - times_s[0]


def test_the_account_of_waiting_is_that_of_a_replay_that_is_kept_busy() -> None:
    class Slow(Anything):
        def complete(self, flow: int) -> None:
            time.sleep(0.1)

    result, _ = play(plan_of([Flow(number, 0, 1, 1000) for number in range(3)]), Slow())
    (first_s, _), *_, (last_s, waited_s) = result.waited[0]
    assert last_s - first_s >= 0.3
    assert waited_s < 0.1
