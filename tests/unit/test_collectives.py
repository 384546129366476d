"""Schedules of collectives: every rank ends with what is promised, whatever the order; bytes and steps as known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traffic.collectives import COLLECTIVES, ScheduleError, algorithm_of, build_schedule
from traffic.collectives.layout import SpanMap, divide, element_bytes
from traffic.collectives.tree import Tree, double_binary_tree
from traffic.promises import check_buffer, expected_buffer, initial_buffer, promised_span
from traffic.schedule import Flow, Schedule
from traffic.symbolic import PromiseError, check_any_order, check_promise, prove

ALL = [(collective, algorithm) for collective, kind in COLLECTIVES.items() for algorithm in kind.algorithms]
POWERS_ONLY = ("halving-doubling", "recursive-halving", "recursive-doubling")
BANDWIDTH_OPTIMAL = [
    (collective, algorithm)
    for collective, algorithm in ALL
    if collective not in ("broadcast", "permutation") and algorithm != "double-binary-tree"
]

quick = settings(max_examples=120, deadline=None, derandomize=True)


@st.composite
def schedules(draw: st.DrawFn, even: bool = False) -> Schedule:
    """Any collective by any algorithm, any count it allows, any size that can be cut (even: in equal pieces)."""
    collective, algorithm = draw(st.sampled_from(ALL))
    ranks = draw(st.sampled_from((2, 4, 8, 16)) if algorithm in POWERS_ONLY else st.integers(2, 13))
    channels = draw(st.integers(1, 4))
    values: dict[str, st.SearchStrategy[Any]] = {
        "chunks": st.integers(1, 5),
        "window": st.none() | st.integers(1, 8),
        "order": st.sampled_from(("rotated", "synchronised", "shuffled")),
        "seed": st.integers(0, 9),
        "shift": st.integers(-20, 20).filter(lambda shift: shift % ranks),
    }
    options: dict[str, Any] = {name: draw(values[name]) for name in algorithm_of(collective, algorithm).options}
    parts = 2 * ranks * channels * options.get("chunks", 1)
    size_bytes = 4 * parts * draw(st.integers(1, 3)) if even else draw(st.integers(4 * parts, 20 * parts))
    return build_schedule(collective, algorithm, ranks=ranks, size_bytes=size_bytes, channels=channels, **options)


def small(collective: str, algorithm: str, **options: Any) -> Schedule:
    """Four ranks, two channels, uneven pieces."""
    if "chunks" in algorithm_of(collective, algorithm).options:
        options.setdefault("chunks", 2)
    return build_schedule(collective, algorithm, ranks=4, size_bytes=4 * 75, channels=2, **options)


def with_flows(schedule: Schedule, flows: list[Flow]) -> Schedule:
    return replace(schedule, flows=flows)


def without_flow(schedule: Schedule, gone: int) -> Schedule:
    """The schedule with one flow dropped and nobody waiting for it."""
    kept = [flow for flow in schedule.flows if flow.id != gone]
    new_id = {flow.id: place for place, flow in enumerate(kept)}
    return with_flows(
        schedule,
        [
            replace(flow, id=new_id[flow.id], waits_for=tuple(new_id[i] for i in flow.waits_for if i != gone))
            for flow in kept
        ],
    )


def ancestors(schedule: Schedule, flow: Flow, ignoring: int | None = None) -> set[int]:
    """All flows that must have arrived before `flow` starts, but for its own wait for `ignoring`."""
    found: set[int] = set()
    pending = [earlier for earlier in flow.waits_for if earlier != ignoring]
    while pending:
        earlier = pending.pop()
        if earlier not in found:
            found.add(earlier)
            pending += schedule.flows[earlier].waits_for
    return found


# What a rank ends with.


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


# Shape: order, steps, sizes, bytes.


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
