"""The bound: known values for known traffic, and nothing below what the wires demand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.topology import LeafSpine
from experiments.theory.bound import bound_s
from traffic.schedule import Flow, Schedule

FABRIC = LeafSpine(leaves=4, spines=4, hosts_per_leaf=4, host_rate_bps=20_000_000, fabric_rate_bps=20_000_000)


def schedule_of(flows: Iterable[Flow]) -> Schedule:
    flows = list(flows)
    ranks = 1 + max((max(flow.src, flow.dst) for flow in flows), default=0)
    return Schedule("by hand", "by hand", ranks, 1, sum(flow.size_bytes for flow in flows), flows)


def seconds(payload_bytes: float, fabric: LeafSpine = FABRIC) -> float:
    """How long the payload fills one host's link."""
    return fabric.wire_bytes(payload_bytes) * 8 / fabric.host_rate_bps


def ring(ranks: int, steps: int, size_bytes: int, channels: int = 1) -> Schedule:
    flows: list[Flow] = []
    for step in range(steps):
        for channel in range(channels):
            for rank in range(ranks):
                before = ((step - 1) * channels + channel) * ranks + (rank - 1) % ranks
                flows.append(
                    Flow(len(flows), rank, (rank + 1) % ranks, size_bytes, step, channel, (before,) if step else ())
                )
    return schedule_of(flows)


def test_wire_overhead_is_that_of_full_segments() -> None:
    one = schedule_of([Flow(0, 0, 4, 8948)])
    assert bound_s(one, FABRIC, range(16)) == pytest.approx((8948 + 52 + 14) * 8 / 20e6)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_ring_takes_the_sum_of_its_steps(channels: int) -> None:
    schedule = ring(16, 30, 1_000_000, channels)
    assert bound_s(schedule, FABRIC, range(16)) == pytest.approx(30 * seconds(channels * 1_000_000), rel=1e-12)


def test_all_to_all_fills_every_host_once() -> None:
    pairs = [(src, dst) for src in range(16) for dst in range(16) if src != dst]
    schedule = schedule_of(Flow(id, src, dst, 100_000) for id, (src, dst) in enumerate(pairs))
    assert bound_s(schedule, FABRIC, range(16)) == pytest.approx(15 * seconds(100_000))


def test_incast_is_bound_by_its_receiver() -> None:
    schedule = schedule_of(Flow(id, id + 1, 0, 100_000) for id in range(15))
    assert bound_s(schedule, FABRIC, range(16)) == pytest.approx(15 * seconds(100_000))


def test_an_oversubscribed_leaf_is_bound_by_its_uplinks_all_together() -> None:
    fabric = LeafSpine(4, 2, 4, 20_000_000, 20_000_000)
    schedule = schedule_of(Flow(rank, rank, (rank + 4) % 16, 100_000) for rank in range(16))
    assert bound_s(schedule, fabric, range(16)) == pytest.approx(2 * seconds(100_000))
    inside = schedule_of(Flow(rank, rank, rank ^ 1, 100_000) for rank in range(16))
    assert bound_s(inside, fabric, range(16)) == pytest.approx(seconds(100_000))


def test_failed_links_leave_less_and_different_failures_leave_a_pair_less_still() -> None:
    schedule = schedule_of(Flow(rank, rank, rank + 4, 100_000) for rank in range(4))
    one_side = frozenset({(0, 0)})
    assert bound_s(schedule, FABRIC.without(one_side), range(16)) == pytest.approx(4 / 3 * seconds(100_000))
    both_sides = frozenset({(0, 0), (1, 1)})
    assert bound_s(schedule, FABRIC.without(both_sides), range(16)) == pytest.approx(2 * seconds(100_000))
    with pytest.raises(ValueError, match="no spine is left between leaf1 and leaf2"):
        bound_s(schedule, FABRIC.without((0, spine) for spine in range(4)), range(16))


@pytest.mark.parametrize("away", [True, False])
def test_a_pair_that_lost_a_link_does_not_slow_its_leaf_towards_others(away: bool) -> None:
    """Of a leaf's two peers one lost a link: the leaf has as many links as ever, and what the pair cannot use, others
    can. The other way round, what arrives at the leaf.
    """
    fabric = LeafSpine(4, 4, 4, 20_000_000, 10_000_000).without({(1, 0)})
    pairs = [(host, leaf * 4 + host) for leaf in (1, 2) for host in range(4)]
    pairs = pairs if away else [(dst, src) for src, dst in pairs]
    schedule = schedule_of(Flow(id, src, dst, 100_000) for id, (src, dst) in enumerate(pairs))
    wire_bits = fabric.wire_bytes(100_000) * 8
    assert bound_s(schedule, fabric, range(16)) == pytest.approx(8 * wire_bits / (4 * 10_000_000))


def test_a_slow_fabric_slows_a_single_flow() -> None:
    fabric = LeafSpine(2, 2, 1, 20_000_000, 5_000_000)
    assert bound_s(schedule_of([Flow(0, 0, 1, 100_000)]), fabric, range(2)) == pytest.approx(2 * seconds(100_000))


@pytest.mark.parametrize("hosts", [range(16), [rank % 4 * 4 + rank // 4 for rank in range(16)]])
def test_halving_doubling_takes_the_sum_of_its_exchanges(hosts: list[int]) -> None:
    flows: list[Flow] = []
    sizes = [800_000, 400_000, 200_000, 100_000]
    exchanges = [(8 >> k, size) for k, size in enumerate(sizes)]
    for step, (distance, size) in enumerate(exchanges + exchanges[::-1]):
        partners = exchanges[step - 1][0] if step <= 4 else exchanges[::-1][step - 5][0]
        for rank in range(16):
            waits_for = ((step - 1) * 16 + (rank ^ partners),) if step else ()
            flows.append(Flow(len(flows), rank, rank ^ distance, size, step, 0, waits_for))
    assert bound_s(schedule_of(flows), FABRIC, hosts) == pytest.approx(2 * seconds(sum(sizes)))


def test_a_binary_tree_pays_both_children_at_every_level() -> None:
    # Reduce to rank 0 up a tree of 7: a parent receives from two children through one link, and then sends once.
    flows = [Flow(id, rank, (rank - 1) // 2, 100_000) for id, rank in enumerate((3, 4, 5, 6))]
    flows += [Flow(4, 1, 0, 100_000, 1, 0, (0, 1)), Flow(5, 2, 0, 100_000, 1, 0, (2, 3))]
    assert bound_s(schedule_of(flows), FABRIC, range(16)) == pytest.approx(4 * seconds(100_000))
    # And back down: two sends of a parent share its link, so does what hangs below each of them.
    down = [Flow(0, 0, 1, 100_000), Flow(1, 0, 2, 100_000)]
    down += [
        Flow(id, rank, child, 100_000, 1, 0, (rank - 1,))
        for id, (rank, child) in enumerate([(1, 3), (1, 4), (2, 5), (2, 6)], start=2)
    ]
    assert bound_s(schedule_of(down), FABRIC, range(16)) == pytest.approx(4 * seconds(100_000))


def test_a_shared_link_is_followed_by_the_shortest_of_what_must_follow() -> None:
    """Two flows leave one host, and either is followed by a long one: the last to leave still has its own to come."""
    flows = [Flow(0, 0, 1, 100_000), Flow(1, 0, 2, 100_000)]
    flows += [Flow(2, 1, 3, 300_000, 1, 0, (0,)), Flow(3, 2, 4, 290_000, 1, 0, (1,))]
    assert bound_s(schedule_of(flows), FABRIC, range(16)) == pytest.approx(seconds(2 * 100_000 + 290_000))


def test_the_longest_of_what_follows_a_flow_counts_in_whatever_order_it_is_listed() -> None:
    flows = [Flow(0, 0, 1, 100_000), Flow(1, 0, 2, 100_000), Flow(2, 5, 6, 1)]
    flows += [Flow(3, 1, 7, 1, 1, 0, (0,)), Flow(4, 2, 7, 1, 1, 0, (1,))]
    flows += [Flow(5, 1, 3, 300_000, 1, 0, (0, 2)), Flow(6, 2, 4, 300_000, 1, 0, (1, 2))]
    assert bound_s(schedule_of(flows), FABRIC, range(16)) == pytest.approx(seconds(500_000), rel=1e-4)


def test_a_pipelined_broadcast_pays_every_chunk_once_and_every_hop_once() -> None:
    chunks, ranks = 10, 8
    flows: list[Flow] = []
    for chunk in range(chunks):
        for rank in range(ranks - 1):
            flows.append(Flow(len(flows), rank, rank + 1, 50_000, chunk + rank, 0, (len(flows) - 1,) if rank else ()))
    expected = (chunks + ranks - 2) * seconds(50_000)
    assert bound_s(schedule_of(flows), FABRIC, range(16)) == pytest.approx(expected)


def by_priority(schedule: Schedule, fabric: LeafSpine, order: Iterable[int]) -> float:
    """CCT if flows take all they can get of their links, in `order`, over all spines at once: one possible schedule."""
    capacity = {("tx", host): fabric.host_rate_bps for host in range(fabric.hosts)}
    capacity |= {("rx", host): fabric.host_rate_bps for host in range(fabric.hosts)}
    capacity |= {
        (way, leaf): fabric.spines * fabric.fabric_rate_bps for way in ("up", "down") for leaf in range(fabric.leaves)
    }
    flows = schedule.flows
    links = [[("tx", flow.src), ("rx", flow.dst)] for flow in flows]
    for flow in flows:
        src_leaf, dst_leaf = fabric.leaf_of(flow.src), fabric.leaf_of(flow.dst)
        if src_leaf != dst_leaf:
            links[flow.id] += [("up", src_leaf), ("down", dst_leaf)]
    left = [fabric.wire_bytes(flow.size_bytes) * 8 for flow in flows]
    now, ended = min(flow.start_s for flow in flows), set[int]()
    origin, order = now, list(order)
    while len(ended) < len(flows):
        free = dict.fromkeys(capacity, 0.0) | capacity
        rates = {}
        for id in order:
            if id not in ended and ended.issuperset(flows[id].waits_for) and flows[id].start_s <= now:
                rates[id] = min(free[link] for link in links[id])
                for link in links[id]:
                    free[link] -= rates[id]
        events = {id: now + left[id] / rate for id, rate in rates.items() if rate > 1e-3}
        until = min([*events.values(), *(flow.start_s for flow in flows if flow.start_s > now)])
        for id, rate in rates.items():
            left[id] -= rate * (until - now)
        ended |= {id for id, at in events.items() if at <= until * (1 + 1e-12)}
        now = until
    return now - origin


@st.composite
def small_schedules(draw: st.DrawFn, most: int = 12) -> Schedule:
    """Flows of any sizes among 6 hosts, each waiting for any earlier ones."""
    flows: list[Flow] = []
    for id in range(draw(st.integers(1, most))):
        src, dst = draw(st.permutations(range(6)))[:2]
        waits_for = draw(st.sets(st.integers(0, id - 1), max_size=3)) if id else set()
        start_s = draw(st.sampled_from([0.0, 0.0, 0.1, 0.5]))
        flows.append(Flow(id, src, dst, draw(st.integers(1, 20)) * 50_000, 0, 0, tuple(sorted(waits_for)), start_s))
    return schedule_of(flows)


small_fabrics = st.builds(
    LeafSpine,
    leaves=st.just(3),
    spines=st.integers(1, 3),
    hosts_per_leaf=st.just(2),
    fabric_rate_bps=st.sampled_from([4_000_000, 20_000_000]),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(schedule=small_schedules(), fabric=small_fabrics, seed=st.integers(0, 9999))
def test_no_order_of_service_beats_it(schedule: Schedule, fabric: LeafSpine, seed: int) -> None:
    bound = bound_s(schedule, fabric, range(6))
    random = Random(seed)
    for _ in range(5):
        order = random.sample(range(len(schedule.flows)), len(schedule.flows))
        assert by_priority(schedule, fabric, order) >= bound * (1 - 1e-9)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(schedule=small_schedules(most=5), fabric=small_fabrics)
def test_the_best_order_of_service_comes_close(schedule: Schedule, fabric: LeafSpine) -> None:
    best = min(by_priority(schedule, fabric, order) for order in permutations(range(len(schedule.flows))))
    bound = bound_s(schedule, fabric, range(6))
    assert bound * (1 - 1e-9) <= best <= 1.5 * bound


@settings(max_examples=50, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 100), min_size=1, max_size=8))
def test_a_chain_takes_the_sum_of_its_links(sizes: list[int]) -> None:
    chain = [Flow(id, id, id + 1, size * 1000, 0, 0, (id - 1,) if id else ()) for id, size in enumerate(sizes)]
    assert bound_s(schedule_of(chain), FABRIC, range(16)) == pytest.approx(seconds(sum(sizes) * 1000))


def test_start_times_count_from_the_earliest() -> None:
    apart = schedule_of([Flow(0, 0, 1, 100_000, start_s=5.0), Flow(1, 2, 3, 100_000, start_s=6.0)])
    assert bound_s(apart, FABRIC, range(16)) == pytest.approx(1.0 + seconds(100_000))
    # What starts late is not the whole of it: the early flow keeps the link busy meanwhile.
    same_link = schedule_of([Flow(0, 0, 1, 1_000_000, start_s=5.0), Flow(1, 0, 2, 1_000_000, start_s=5.1)])
    assert bound_s(same_link, FABRIC, range(16)) == pytest.approx(seconds(2_000_000))


def test_nothing_to_send_takes_no_time() -> None:
    assert bound_s(schedule_of([]), FABRIC, range(16)) == 0.0
    assert bound_s(schedule_of([Flow(0, 0, 1, 100_000)]), FABRIC, [3, 3]) == 0.0


def test_more_work_never_takes_less() -> None:
    schedule = ring(16, 4, 1_000_000)
    more = schedule_of([*schedule.flows, Flow(len(schedule.flows), 3, 9, 1, waits_for=(5,))])
    assert bound_s(more, FABRIC, range(16)) >= bound_s(schedule, FABRIC, range(16))
    assert math.isfinite(bound_s(more, FABRIC, range(16)))
