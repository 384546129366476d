"""Schedules of collectives: order, steps, sizes and bytes are as known; what cannot be built is refused."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedules import ALL, BANDWIDTH_OPTIMAL, quick, schedules

from traffic.collectives import ScheduleError, build_schedule
from traffic.collectives.layout import SpanMap, divide, element_bytes
from traffic.collectives.tree import Tree, double_binary_tree
from traffic.schedule import Schedule
from traffic.symbolic import prove


@quick
@given(schedule=schedules())
def test_flows_are_listed_in_an_order_and_in_steps_that_never_deadlock(schedule: Schedule) -> None:
    steps = [flow.step for flow in schedule.flows]
    assert [flow.id for flow in schedule.flows] == list(range(len(schedule.flows)))
    assert steps == sorted(steps)
    assert set(steps) == set(range(max(steps) + 1))
    for flow in schedule.flows:
        assert flow.size_bytes > 0
        assert 0 <= flow.channel < schedule.channels
        assert all(schedule.flows[earlier].step < flow.step for earlier in flow.waits_for)
        assert list(flow.waits_for) == sorted(set(flow.waits_for))


@quick
@given(schedule=schedules())
def test_total_bytes_are_those_of_the_formula(schedule: Schedule) -> None:
    n, size = schedule.ranks, schedule.size_bytes
    total = {"allreduce": 2 * (n - 1) * size, "permutation": n * size}.get(schedule.collective, (n - 1) * size)
    assert schedule.payload_bytes == total


@quick
@given(schedule=schedules(even=True))
def test_bandwidth_optimal_algorithms_send_and_receive_busbw_factor_times_size(schedule: Schedule) -> None:
    sent: Counter[int] = Counter()
    received: Counter[int] = Counter()
    for flow in schedule.flows:
        sent[flow.src] += flow.size_bytes
        received[flow.dst] += flow.size_bytes
    # busbw is so defined that these, and no others, can reach the link rate (nccl-tests, doc/PERFORMANCE.md)
    if (schedule.collective, schedule.algorithm) in BANDWIDTH_OPTIMAL:
        expected = {rank: pytest.approx(schedule.busbw_factor * schedule.size_bytes) for rank in range(schedule.ranks)}
        assert sent == expected
        assert received == expected
    elif schedule.collective == "broadcast":
        assert received == dict.fromkeys(range(1, schedule.ranks), schedule.size_bytes)
    elif schedule.collective == "permutation":
        assert sent == received == dict.fromkeys(range(schedule.ranks), schedule.size_bytes)


@pytest.mark.parametrize(
    ("collective", "algorithm", "steps"),
    [
        ("allreduce", "ring", 2 * 15),
        ("allreduce", "direct", 2),
        ("allreduce", "halving-doubling", 2 * 4),
        ("allgather", "ring", 15),
        ("allgather", "direct", 1),
        ("allgather", "recursive-doubling", 4),
        ("reducescatter", "ring", 15),
        ("reducescatter", "direct", 1),
        ("reducescatter", "recursive-halving", 4),
        ("alltoall", "direct", 1),
        ("broadcast", "ring", 15 + 7),
        ("broadcast", "tree", 4 + 7),
        ("allreduce", "double-binary-tree", 2 * 4 + 7),
        ("permutation", "shift", 1),
    ],
)
def test_sixteen_ranks_take_the_known_number_of_steps(collective: str, algorithm: str, steps: int) -> None:
    schedule = build_schedule(collective, algorithm, ranks=16, size_bytes=1 << 20)
    assert schedule.flows[-1].step + 1 == steps


@pytest.mark.parametrize("algorithm", ["ring", "double-binary-tree", "halving-doubling", "direct"])
def test_the_channels_of_an_allreduce_never_wait_for_each_other(algorithm: str) -> None:
    schedule = build_schedule("allreduce", algorithm, ranks=8, size_bytes=1 << 16, channels=4)
    for flow in schedule.flows:
        assert {schedule.flows[earlier].channel for earlier in flow.waits_for} <= {flow.channel}


def test_a_ring_forwards_each_chunk_once_that_chunk_is_there() -> None:
    schedule = build_schedule("allreduce", "ring", ranks=5, size_bytes=4 * 1000, channels=2, chunks=3)
    for flow in schedule.flows:
        assert flow.dst == (flow.src + 1) % 5
        if flow.step < 3:
            assert flow.waits_for == ()
        else:
            (waited,) = (schedule.flows[earlier] for earlier in flow.waits_for)
            assert waited.dst == flow.src
            assert (waited.src_offset_bytes, waited.size_bytes) == (flow.src_offset_bytes, flow.size_bytes)


@quick
@given(start=st.integers(0, 50), length=st.integers(0, 500), parts=st.integers(1, 40), unit=st.sampled_from((1, 4)))
def test_pieces_of_a_division_differ_by_at_most_one_element(start: int, length: int, parts: int, unit: int) -> None:
    spans = divide(range(start, start + length * unit), parts, unit)
    assert [offset for span in spans for offset in span] == list(range(start, start + length * unit))
    assert len(spans) == parts
    assert max(map(len, spans)) - min(map(len, spans)) in (0, unit)
    assert [len(span) for span in spans] == sorted(map(len, spans), reverse=True), "the larger ones first"
    assert all(len(span) % unit == 0 for span in spans)


@quick
@given(schedule=schedules())
def test_a_message_of_whole_elements_is_cut_between_elements(schedule: Schedule) -> None:
    unit = element_bytes(schedule.size_bytes)
    assert unit == (4 if schedule.size_bytes % 4 == 0 else 1)
    for flow in schedule.flows:
        assert (flow.size_bytes % unit, flow.src_offset_bytes % unit, flow.dst_offset_bytes % unit) == (0, 0, 0)


@quick
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 5)), max_size=12), st.integers(0, 30))
def test_a_span_map_is_a_list_of_values(puts: list[tuple[int, int, int]], at: int) -> None:
    plain, spans = [0] * 31, SpanMap(0)
    for start, stop, value in puts:
        spans.put(range(start, stop), value)
        plain[start:stop] = [value] * max(0, stop - start)
        plain = plain[:31]
    found = spans.get(range(at, 31))
    assert [value for span, value in found for _ in span] == plain[at:]
    assert [offset for span, _ in found for offset in span] == list(range(at, 31))


# Trees.


def children_of(tree: Tree) -> Counter[int]:
    return Counter(parent for parent, _, _ in tree.edges_down)


@pytest.mark.parametrize("ranks", range(2, 66))
def test_both_trees_span_all_ranks_and_are_shallow(ranks: int) -> None:
    for tree in double_binary_tree(ranks):
        assert len({child for _, child, _ in tree.edges_down}) == ranks - 1
        assert max(children_of(tree).values()) <= 2
        assert max(depth for _, _, depth in tree.edges_down) + 1 <= ranks.bit_length()
        assert tree.heights[tree.parents.index(None)] <= ranks.bit_length()


@pytest.mark.parametrize("ranks", range(2, 66, 2))
def test_an_inner_rank_of_one_tree_is_a_leaf_of_the_other(ranks: int) -> None:
    first, second = map(children_of, double_binary_tree(ranks))
    assert not first.keys() & second.keys()
    # so no rank sends more than twice the message in an AllReduce: half up, two halves down, half up
    sent: Counter[int] = Counter()
    for flow in build_schedule("allreduce", "double-binary-tree", ranks=ranks, size_bytes=1600).flows:
        sent[flow.src] += flow.size_bytes
    assert max(sent.values()) <= 2 * 1600


def test_the_tree_of_fourteen_is_the_one_in_nccl() -> None:
    tree, mirrored = double_binary_tree(14)
    assert tree.parents == (None, 2, 4, 2, 8, 6, 4, 6, 0, 10, 12, 10, 8, 12)
    assert mirrored.parents.index(None) == 13


# AllToAll: window and order.


@pytest.mark.parametrize("order", ["rotated", "synchronised", "shuffled"])
@pytest.mark.parametrize("window", [1, 2, 5, 100])
def test_a_window_is_filled_and_never_exceeded(window: int, order: str) -> None:
    schedule = build_schedule("alltoall", ranks=6, size_bytes=6000, channels=2, window=window, order=order, seed=1)
    random, arrived, under_way, peak = Random(1), set[int](), set[int](), Counter[int]()
    while len(arrived) < len(schedule.flows):
        for flow in schedule.flows:
            if flow.id not in arrived and arrived.issuperset(flow.waits_for):
                under_way.add(flow.id)
        for src, busy in Counter(schedule.flows[i].src for i in under_way).items():
            peak[src] = max(peak[src], busy)
        done = random.choice(sorted(under_way))
        under_way.remove(done)
        arrived.add(done)
    assert peak == {rank: min(window, 10) for rank in range(6)}


def test_the_order_decides_the_incast_of_each_step() -> None:
    def incast(order: str, seed: int = 0) -> list[int]:
        schedule = build_schedule("alltoall", ranks=16, size_bytes=1 << 16, window=1, order=order, seed=seed)
        return [max(Counter(f.dst for f in schedule.flows if f.step == step).values()) for step in range(15)]

    assert incast("rotated") == [1] * 15
    assert incast("synchronised")[0] == 15  # all but rank 0 begin with rank 0
    assert 1 < max(incast("shuffled")) < 15
    assert incast("shuffled", seed=1) == incast("shuffled", seed=1) != incast("shuffled", seed=2)


def test_without_a_window_nothing_waits() -> None:
    schedule = build_schedule("alltoall", ranks=8, size_bytes=1 << 10)
    assert not any(flow.waits_for for flow in schedule.flows)
    assert {flow.size_bytes for flow in schedule.flows} == {128}
    assert len(schedule.flows) == 8 * 7


def test_a_permutation_sends_to_the_rank_a_shift_away() -> None:
    schedule = build_schedule("permutation", ranks=16, size_bytes=1 << 10, channels=4, shift=4)
    assert Counter((flow.src, flow.dst) for flow in schedule.flows) == {(i, (i + 4) % 16): 4 for i in range(16)}
    assert {flow.size_bytes for flow in schedule.flows} == {256}


# What cannot be built.


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"collective": "allreduc"}, "unknown collective 'allreduc': use one of allreduce, allgather"),
        ({"algorithm": "star"}, "unknown algorithm 'star' of allreduce: use one of ring, direct, halving-doubling"),
        ({"algorithm": "halving-doubling", "ranks": 12}, "power of two of ranks, not 12: use 8 or 16"),
        ({"collective": "allgather", "algorithm": "recursive-doubling", "ranks": 9}, "use 8 or 16"),
        ({"collective": "reducescatter", "algorithm": "recursive-halving", "ranks": 3}, "use 2 or 4"),
        ({"ranks": 1}, "ranks of allreduce must be 2 or more, not 1"),
        ({"channels": 0}, "channels of allreduce must be 1 or more, not 0"),
        ({"size_bytes": -4}, "size_bytes of allreduce must be 1 or more, not -4"),
        ({"size_bytes": 60, "channels": 2}, "60 bytes is too small to cut into 2 channels x 8 ranks"),
        ({"size_bytes": 60, "channels": 2}, "at least 64 bytes"),
        ({"size_bytes": 7}, "at least 32 bytes"),
        ({"chunks": 0}, "chunks must be 1 or more, not 0"),
        ({"chunks": "many"}, "chunks of allreduce must be a whole number, not 'many'"),
        ({"window": 2}, "unknown option 'window' of allreduce by ring: its options are chunks"),
        ({"collective": "alltoall", "window": 0}, "window must be 1 or more"),
        ({"collective": "alltoall", "order": "sorted"}, "use one of rotated, synchronised, shuffled"),
        ({"collective": "permutation", "shift": 16}, "shift of 16 among 8 ranks sends every rank to itself"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(given_: dict[str, Any], says: str) -> None:
    with pytest.raises(ScheduleError) as raised:
        build_schedule(**{"collective": "allreduce", "ranks": 8, "size_bytes": 1 << 10, **given_})
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("too_small", [1, 4])
@pytest.mark.parametrize(("collective", "algorithm"), ALL)
def test_the_smallest_size_named_in_the_error_works(collective: str, algorithm: str, too_small: int) -> None:
    with pytest.raises(ScheduleError, match="at least") as raised:
        build_schedule(collective, algorithm, ranks=8, channels=5, size_bytes=too_small)
    smallest = int(str(raised.value).split("at least ")[1].split()[0])
    prove(build_schedule(collective, algorithm, ranks=8, channels=5, size_bytes=smallest))
    with pytest.raises(ScheduleError):
        build_schedule(collective, algorithm, ranks=8, channels=5, size_bytes=smallest - 4)
