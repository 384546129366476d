"""Every rank ends with what its collective promises, whatever the order; a planted fault is found and named."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedules import ALL, ancestors, quick, schedules, small, with_flows, without_flow

from traffic.collectives import ScheduleError, build_schedule
from traffic.promises import check_buffer, expected_buffer, initial_buffer, promised_span
from traffic.schedule import Flow, Schedule
from traffic.symbolic import PromiseError, check_any_order, check_promise, prove


@quick
@given(schedule=schedules(), seed=st.integers(0, 1000))
def test_every_rank_ends_with_what_is_promised_in_any_order(schedule: Schedule, seed: int) -> None:
    prove(schedule)
    check_promise(schedule, seed)


@quick
@given(schedule=schedules(even=True), seed=st.integers(0, 1000))
def test_real_data_sent_in_a_random_order_gives_the_expected_buffers(schedule: Schedule, seed: int) -> None:
    buffers = [initial_buffer(schedule, rank, seed) for rank in range(schedule.ranks)]
    random, arrived, left = Random(seed), set[int](), list(schedule.flows)
    while left:
        startable = [flow for flow in left if arrived.issuperset(flow.waits_for)]
        flow = random.choice(startable)
        left.remove(flow)
        arrived.add(flow.id)
        words = flow.size_bytes // 4
        sent = buffers[flow.src][flow.src_offset_bytes // 4 :][:words]
        place = buffers[flow.dst][flow.dst_offset_bytes // 4 :][:words]
        place[:] = place + sent if flow.reduce else sent
    for rank, buffer in enumerate(buffers):
        assert check_buffer(schedule, rank, buffer, seed) is None


@pytest.mark.parametrize(("collective", "algorithm"), ALL)
def test_one_wrong_bit_is_named(collective: str, algorithm: str) -> None:
    schedule = small(collective, algorithm)
    for rank in range(schedule.ranks):
        span = promised_span(schedule, rank)
        buffer = expected_buffer(schedule, rank, seed=5)
        assert check_buffer(schedule, rank, buffer, seed=5) is None
        buffer[span.stop // 4 - 1] ^= 1 << 17
        report = check_buffer(schedule, rank, buffer, seed=5)
        assert report is not None
        assert f"rank {rank}: 1 of {len(span) // 4} " in report
        assert f"byte {span.stop - 4}:" in report


def test_an_allreduce_expects_the_wrapped_sum_of_what_the_ranks_hold() -> None:
    schedule = build_schedule("allreduce", ranks=5, size_bytes=4000)
    total = sum(initial_buffer(schedule, rank, seed=3).astype(np.int64) for rank in range(5))
    wrapped = (total + 2**31) % 2**32 - 2**31
    assert np.abs(total).max() > 2**31  # some sums do wrap
    for rank in range(5):
        assert np.array_equal(expected_buffer(schedule, rank, seed=3), wrapped)


def test_ranks_and_seeds_hold_different_data() -> None:
    schedule = build_schedule("allreduce", ranks=4, size_bytes=4000)
    held = [initial_buffer(schedule, rank, seed) for rank in range(4) for seed in range(3)]
    for place, buffer in enumerate(held):
        assert len(set(buffer.tolist())) > 990
        assert all(np.mean(buffer == other) < 0.01 for other in held[:place])


def test_nothing_is_verified_that_is_not_int32_or_promises_nothing() -> None:
    with pytest.raises(ScheduleError, match="multiple of 4"):
        initial_buffer(build_schedule("allreduce", ranks=2, size_bytes=1002), 0)
    with pytest.raises(ScheduleError, match="only allreduce, allgather"):
        initial_buffer(Schedule("matrix", "file", 2, 1, 4, [Flow(0, 0, 1, 4)]), 0)


# Mutants: the proof must find each.


@pytest.mark.parametrize(("collective", "algorithm"), ALL)
def test_a_dropped_flow_is_found(collective: str, algorithm: str) -> None:
    schedule = small(collective, algorithm)
    for flow in schedule.flows:
        with pytest.raises(PromiseError):
            prove(without_flow(schedule, flow.id))


@pytest.mark.parametrize(("collective", "algorithm"), ALL)
def test_a_dropped_dependency_is_found(collective: str, algorithm: str) -> None:
    schedule = small(collective, algorithm)
    flows = list(schedule.flows)
    dropped = 0
    for flow in flows:
        for earlier in flow.waits_for:
            if earlier in ancestors(schedule, flow, ignoring=earlier):
                continue  # still waited for, through another
            waits_for = tuple(other for other in flow.waits_for if other != earlier)
            eager = replace(flow, waits_for=waits_for)
            with pytest.raises(PromiseError):
                check_any_order(with_flows(schedule, [*flows[: flow.id], eager, *flows[flow.id + 1 :]]))
            dropped += 1
    forwards = algorithm not in ("shift",) and (collective == "allreduce" or algorithm != "direct")
    assert (dropped > 0) == forwards


@pytest.mark.parametrize(("collective", "algorithm"), ALL)
def test_a_flow_cut_short_or_sent_twice_or_moved_is_found(collective: str, algorithm: str) -> None:
    schedule = small(collective, algorithm)
    flows = list(schedule.flows)
    for flow in flows:
        others = flows[: flow.id], flows[flow.id + 1 :]
        short = replace(flow, size_bytes=flow.size_bytes - 4)
        moved = replace(flow, dst_offset_bytes=flow.dst_offset_bytes + (4 if flow.dst_offset_bytes == 0 else -4))
        mutants = [[*others[0], short, *others[1]], [*others[0], moved, *others[1]]]
        if flow.reduce:
            again = replace(flow, id=len(flows), waits_for=(len(flows) - 1,))
            mutants.append([*flows, again])
        for mutant in mutants:
            with pytest.raises(PromiseError):
                prove(with_flows(schedule, mutant))


def test_random_orders_alone_find_a_missing_dependency_too() -> None:
    schedule = small("allreduce", "ring")
    flows = [replace(flow, waits_for=()) if flow.id == len(schedule.flows) - 1 else flow for flow in schedule.flows]
    found = set()
    for seed in range(30):
        try:
            check_promise(with_flows(schedule, flows), seed)
        except PromiseError as error:
            found.add(str(error))
    assert found


def test_flows_that_wait_for_each_other_are_reported_as_stuck() -> None:
    schedule = build_schedule("broadcast", "ring", ranks=3, size_bytes=400, chunks=1)
    first, second = schedule.flows
    circle = with_flows(schedule, [replace(first, waits_for=(1,)), second])
    with pytest.raises(PromiseError, match="2 flows can never start, the first flow 0"):
        check_promise(circle)
    with pytest.raises(PromiseError, match="listed after it"):
        check_any_order(circle)


def test_two_flows_that_write_the_same_bytes_must_be_ordered() -> None:
    written_twice = Schedule("broadcast", "twice", 2, 1, 400, [Flow(0, 0, 1, 400), Flow(1, 0, 1, 400, step=1)])
    with pytest.raises(PromiseError, match=r"flow 1 .* does not wait for flow 0"):
        check_any_order(written_twice)


def test_the_messages_say_which_flow_which_rank_which_bytes() -> None:
    schedule = build_schedule("broadcast", "ring", ranks=3, size_bytes=400, chunks=1)
    first, second = schedule.flows
    eager = with_flows(schedule, [first, replace(second, waits_for=())])
    with pytest.raises(PromiseError, match=r"flow 1 \(rank 1 -> 2, bytes 0-399\) does not wait for flow 0"):
        check_any_order(eager)
    with pytest.raises(PromiseError, match="bytes 0-399 of rank 2 end with nothing instead of bytes 0-399 of ranks 0"):
        prove(with_flows(schedule, [first]))
