"""Every scheme's plan: pieces, connections and ports; and what the paper's evaluation says, in shape."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from flows_by_hand import all_to_all, permutation, quick, ratio, schedule_of
from hypothesis import given
from hypothesis import strategies as st

from emulator.topology import LeafSpine
from experiments.theory.loads import choose_spines
from traffic.plan import FIRST_SOURCE_PORT, cut, plan_traffic
from traffic.schedule import Flow
from traffic.schemes import SCHEMES, scheme_of

# Every scheme's plan

EVERY = (*(scheme.name for scheme in SCHEMES), "subflow-2", "subflow-16")


@quick
@given(
    scheme=st.sampled_from(EVERY),
    sizes=st.lists(st.integers(0, 10_000), min_size=1, max_size=6),
    equal=st.booleans(),
    spines=st.integers(1, 8),
    shift=st.integers(1, 7),
)
def test_pieces_cover_every_flow_once_and_in_order(
    scheme: str, sizes: list[int], equal: bool, spines: int, shift: int
) -> None:
    fabric = LeafSpine(2, spines, 4)
    flows = [
        replace(flow, size_bytes=sizes[0 if equal else flow.channel])
        for flow in permutation(fabric, len(sizes), 0, shift).flows
    ]
    plan = plan_traffic(schedule_of(flows, 8), fabric, range(8), scheme_of(scheme))
    reached: dict[int, int] = defaultdict(int)
    for piece in plan.pieces:
        flow, connection = plan.schedule.flows[piece.flow], plan.connections[piece.connection]
        assert (connection.src_host, connection.dst_host) == (flow.src, flow.dst)
        assert piece.offset_bytes == reached[piece.flow]
        assert piece.size_bytes > 0
        reached[piece.flow] += piece.size_bytes
    assert all(reached[flow.id] == flow.size_bytes for flow in plan.schedule.flows)
    assert [connection.id for connection in plan.connections] == list(range(len(plan.connections)))
    assert {connection.id for connection in plan.connections} == {piece.connection for piece in plan.pieces}
    ports = Counter((connection.src_host, connection.src_port) for connection in plan.connections)
    assert set(ports.values()) <= {1}
    assert plan == plan_traffic(plan.schedule, fabric, range(8), scheme_of(scheme))


@pytest.mark.parametrize("scheme", EVERY)
def test_flows_of_a_pair_and_channel_share_their_connections_and_others_none(scheme: str) -> None:
    fabric = LeafSpine(2, 2, 2)
    flows = [Flow(id, 0, 2, 64_000, step=id // 2, channel=id % 2) for id in range(6)]
    plan = plan_traffic(schedule_of(flows, 4), fabric, range(4), scheme_of(scheme))
    used = {flow.id: {piece.connection for piece in plan.pieces if piece.flow == flow.id} for flow in flows}
    assert used[0] == used[2] == used[4] and used[1] == used[3] == used[5]
    assert not used[0] & used[1]


def test_a_piece_takes_the_connection_of_its_spine_whichever_piece_it_is() -> None:
    fabric = LeafSpine(2, 2, 1)
    flows = [Flow(0, 0, 1, 1000), Flow(1, 0, 1, 1000, step=1, channel=1), Flow(2, 0, 1, 1000, step=1)]
    plan = plan_traffic(schedule_of(flows, 2), fabric, range(2), scheme_of("ethereal"))
    both, other, second = ([piece.connection for piece in plan.pieces if piece.flow == flow.id] for flow in flows)
    assert len(both) == 2 and second == both[1:] and other not in ([both[0]], second)


@pytest.mark.parametrize("scheme", EVERY)
def test_every_host_numbers_its_ports_without_a_gap(scheme: str) -> None:
    """A host has ports for so many connections as there are from the first port up, and no more."""
    fabric = LeafSpine(2, 2, 2)
    plan = plan_traffic(all_to_all(fabric, 64_000), fabric, range(4), scheme_of(scheme))
    for host in range(4):
        ports = [connection.src_port for connection in plan.connections if connection.src_host == host]
        assert ports == list(range(FIRST_SOURCE_PORT, FIRST_SOURCE_PORT + len(ports)))


def test_a_flow_of_fewer_bytes_than_subflows_has_a_piece_a_byte_or_one() -> None:
    fabric = LeafSpine(2, 2, 1)
    plan = plan_traffic(permutation(fabric, 1, 3), fabric, range(2), scheme_of("subflow-4"))
    assert [piece.size_bytes for piece in plan.pieces] == [3, 3], "no connection for pieces of nothing"
    assert len(plan.connections) == 2


def test_subflow_k_cuts_every_flow_in_k() -> None:
    fabric = LeafSpine(4, 4, 4)
    plan = plan_traffic(permutation(fabric, 2, 1001), fabric, range(16), scheme_of("subflow-8"))
    assert set(Counter(piece.flow for piece in plan.pieces).values()) == {8}
    assert plan.cut_flows == len(plan.schedule.flows)
    assert plan_traffic(plan.schedule, fabric, range(16), scheme_of("ecmp")).cut_flows == 0
    assert {connection.path_tag for connection in plan.connections} == {0}
    assert sorted(cut(1001, 8)) == [125] * 7 + [126]


def test_ethereal_neither_cuts_nor_tags_inside_a_leaf() -> None:
    fabric = LeafSpine(4, 4, 4)
    plan = plan_traffic(permutation(fabric, 1, 1000, shift=1), fabric, range(16), scheme_of("ethereal"))
    tags = Counter(
        connection.path_tag
        for connection in plan.connections
        if fabric.leaf_of(connection.src_host) == fabric.leaf_of(connection.dst_host)
    )
    assert tags == {0: 12}
    assert len(plan.connections) == 12 + 4 * 4


def test_a_fabric_without_a_common_spine_is_refused() -> None:
    fabric = LeafSpine(2, 2, 1).without({(0, 0), (1, 1)})
    with pytest.raises(ValueError, match="no spine is left between leaf1 and leaf2: fail fewer links"):
        plan_traffic(permutation(fabric, 1, 1000), fabric, range(2), scheme_of("ethereal"))


@pytest.mark.parametrize("name", ["ECMP", "subflow", "subflow-1", "subflow-65", "subflow-2x", ""])
def test_unknown_schemes_are_named_with_those_that_are_known(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown scheme .*known are ecmp, spray"):
        scheme_of(name)


# What the paper's evaluation says, in shape

PAPER = LeafSpine(16, 16, 16, 400_000_000_000, 400_000_000_000)


def test_all_to_all_of_as_many_hosts_a_leaf_as_spines_splits_nothing() -> None:
    fabric = LeafSpine(3, 16, 16)
    plan = plan_traffic(all_to_all(fabric, 8000), fabric, range(fabric.hosts), scheme_of("ethereal"))
    assert len(plan.pieces) == len(plan.schedule.flows)
    assert ratio(plan, fabric) == pytest.approx(1.0)


def test_the_ring_step_with_four_channels_splits_every_flow() -> None:
    plan = plan_traffic(permutation(PAPER, 4, 8000), PAPER, range(PAPER.hosts), scheme_of("ethereal"))
    assert set(Counter(piece.flow for piece in plan.pieces).values()) == {4}
    assert ratio(plan, PAPER) == pytest.approx(1.0)


def test_more_subflows_approach_the_optimum_without_reaching_it() -> None:
    schedule = permutation(PAPER, 4, 64_000)
    plans = [
        plan_traffic(schedule, PAPER, range(PAPER.hosts), scheme_of(name))
        for name in ("ecmp", "subflow-2", "subflow-4", "subflow-8", "subflow-16")
    ]
    over_seeds = np.array([[ratio(plan, PAPER, seed) for seed in range(10)] for plan in plans])
    means = over_seeds.mean(axis=1)
    assert (np.diff(means) < 0).all()
    assert means[0] > 2 and means[-1] < 1.5
    assert over_seeds.min() > 1.05


def test_hashing_repeats_with_its_seed_and_only_then() -> None:
    plan = plan_traffic(permutation(PAPER, 4, 64_000), PAPER, range(PAPER.hosts), scheme_of("ecmp"))
    first, again, other = (choose_spines(plan, PAPER, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first == other).mean() < 0.2  # a sixteenth meets again by chance
    counts = np.bincount(first, minlength=16)
    assert counts.sum() == 1024 and counts.min() > 30, "every spine gets about its sixteenth"


def test_spraying_is_ideal_and_nothing_to_cross_is_optimal() -> None:
    whole = LeafSpine(4, 4, 4)
    for fabric in (whole, whole.without({(0, 1), (2, 3)})):
        plan = plan_traffic(permutation(fabric, 3, 1000), fabric, range(16), scheme_of("spray"))
        assert ratio(plan, fabric) == pytest.approx(1.0)
    inside = schedule_of([Flow(0, 0, 1, 1000)], 2)
    assert ratio(plan_traffic(inside, fabric, range(2), scheme_of("ecmp")), fabric) == 1.0
