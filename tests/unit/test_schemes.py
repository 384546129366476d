"""The theorem of arXiv 2407.00550, by arithmetic: minimal splitting loads every link as ideal packet spraying does.

What "minimal" means, for n equal flows over s spines that must each carry n/s flows' worth, with r = n mod s:

- no split cuts fewer flows than r (a spine has room for n // s whole ones), and this one cuts r;
- among splits that cut the flows they cut alike, into equal pieces, none has fewer pieces: n + r (s/gcd(r, s) - 1);
- unequal pieces could do with n + s - gcd(n, s), which is as many only where r divides s. Three flows over four spines
  take 12 equal pieces, or 6 of unequal sizes.

Flows of other sizes are laid end to end and cut at most s - 1 times, which is as good to the byte.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from flows_by_hand import permutation, quick, ratio, schedule_of
from hypothesis import given
from hypothesis import strategies as st

from emulator.topology import LeafSpine
from experiments.theory.loads import choose_spines, ideal_link_bytes, leaf_bytes, link_bytes
from traffic.collectives.layout import ELEMENT_BYTES
from traffic.plan import plan_traffic
from traffic.schedule import Flow, Schedule
from traffic.schemes import scheme_of
from traffic.schemes.ethereal import deal, split

# The theorem


@pytest.mark.parametrize("spines", range(1, 17))
def test_every_spine_carries_exactly_its_share(spines: int) -> None:
    for flows in range(65):
        load = [Fraction(0)] * spines
        assignment = deal(flows, range(spines))
        for path in assignment:
            for spine in path:
                load[spine] += Fraction(1, len(path))
        assert load == [Fraction(flows, spines)] * spines
        assert [len(path) for path in assignment] == [1] * (flows - flows % spines) + [
            spines // math.gcd(flows % spines, spines)
        ] * (flows % spines)
        assert all(len(set(path)) == len(path) for path in assignment), "two pieces on one spine could be one"


@cache
def least(spare: tuple[int, ...], flows: int, units: int, count: str) -> float:
    """Least `count` ("pieces" or "cut flows") to put `flows` flows of `units` units each into `spare` units of spines.

    Units of 1/s of a flow are fine enough: the pieces of a split with the fewest form a forest of flows and spines (of
    a cycle one piece could be shifted away), and a forest's piece sizes follow from whole numbers of units.
    """
    if not flows:
        return 0.0
    best = math.inf
    for taken in _shares(spare, units):
        pieces = sum(map(bool, taken))
        cost = pieces if count == "pieces" else int(pieces > 1)
        rest = tuple(sorted(have - take for have, take in zip(spare, taken, strict=True)))
        best = min(best, cost + least(rest, flows - 1, units, count))
    return best


def _shares(spare: tuple[int, ...], units: int) -> list[tuple[int, ...]]:
    """Every way to take `units` in all out of `spare`."""
    if not spare:
        return [] if units else [()]
    return [(first, *rest) for first in range(min(spare[0], units) + 1) for rest in _shares(spare[1:], units - first)]


@pytest.mark.parametrize("spines", range(1, 7))
@pytest.mark.parametrize("flows", range(1, 9))
def test_no_fewer_pieces_would_do_exhaustively(flows: int, spines: int) -> None:
    assignment = deal(flows, range(spines))
    pieces, left_over = sum(map(len, assignment)), flows % spines
    share = (flows,) * spines  # in units of 1/spines of a flow
    assert sum(len(path) > 1 for path in assignment) == least(share, flows, spines, "cut flows") == left_over
    fewest = least(share, flows, spines, "pieces")
    assert fewest == flows + spines - math.gcd(flows, spines)
    assert (pieces == fewest) == (left_over == 0 or spines % left_over == 0)


@pytest.mark.parametrize("spines", range(1, 9))
@pytest.mark.parametrize("flows", range(1, 17))
def test_no_fewer_equal_pieces_would_do_exhaustively(flows: int, spines: int) -> None:
    pieces = sum(map(len, deal(flows, range(spines))))
    fewest = math.inf
    share = Fraction(flows, spines)
    for parts in range(1, spines + 1):  # more parts a flow are more pieces in any case
        # A spine may take these numbers of whole flows, if the rest of its share is a whole number of pieces.
        whole = [count for count in range(int(share) + 1) if (parts * (share - count)).denominator == 1]
        in_all = {0}
        for _ in range(spines):
            in_all = {before + count for before in in_all for count in whole}
        fewest = min([fewest, *(uncut + (flows - uncut) * parts for uncut in in_all)])
    assert pieces == fewest


@quick
@given(
    leaves=st.integers(2, 5),
    spines=st.integers(1, 16),
    hosts_per_leaf=st.integers(1, 4),
    channels=st.integers(1, 20),
    dead=st.integers(0, 15),
    shift=st.integers(1, 19),
)
def test_uplinks_and_downlinks_are_loaded_as_by_ideal_spraying(
    leaves: int, spines: int, hosts_per_leaf: int, channels: int, dead: int, shift: int
) -> None:
    fabric = LeafSpine(leaves, spines, hosts_per_leaf)
    fabric = fabric.without((leaf, spine) for leaf in range(leaves) for spine in range(min(dead, spines - 1)))
    size_bytes = math.lcm(*range(1, 17))  # every cut is exact
    schedule = permutation(fabric, channels, size_bytes, shift)
    plan = plan_traffic(schedule, fabric, range(fabric.hosts), scheme_of("ethereal"))
    loads = link_bytes(plan, fabric, choose_spines(plan, fabric, 0))
    ideal = ideal_link_bytes(leaf_bytes(schedule, fabric, range(fabric.hosts)), fabric)
    np.testing.assert_allclose(loads.up, ideal.up, rtol=1e-12, atol=1e-6)
    np.testing.assert_allclose(loads.down, ideal.down, rtol=1e-12, atol=1e-6)
    assert ratio(plan, fabric) == pytest.approx(1.0)


@quick
@given(data=st.data(), channels=st.integers(1, 9))
def test_links_that_failed_at_different_leaves_change_nothing(data: st.DataObject, channels: int) -> None:
    fabric = LeafSpine(4, 6, 2)
    # At most two links a leaf: any two leaves keep two spines in common.
    failed = frozenset(
        (leaf, spine)
        for leaf in range(fabric.leaves)
        for spine in data.draw(st.lists(st.integers(0, 5), max_size=2), label=f"failed at leaf {leaf}")
    )
    fabric = fabric.without(failed)
    plan = plan_traffic(permutation(fabric, channels, 60_000), fabric, range(fabric.hosts), scheme_of("ethereal"))
    spines = choose_spines(plan, fabric, 0)
    assert (
        not {
            (fabric.leaf_of(connection.src_host), int(spine))
            for connection, spine in zip(plan.connections, spines, strict=True)
        }
        & failed
    )
    assert ratio(plan, fabric) == pytest.approx(1.0)


@quick
@given(size_bytes=st.integers(1, 100_000), channels=st.integers(1, 20), spines=st.integers(1, 16))
def test_odd_bytes_cost_less_than_the_rounding_of_each_cut(size_bytes: int, channels: int, spines: int) -> None:
    fabric = LeafSpine(2, spines, 1)
    plan = plan_traffic(permutation(fabric, channels, size_bytes), fabric, range(2), scheme_of("ethereal"))
    carried: dict[int, int] = defaultdict(int)
    for piece in plan.pieces:
        connection = plan.connections[piece.connection]
        if connection.src_host == 0:
            carried[connection.path_tag] += piece.size_bytes
    ideal = Fraction(channels * size_bytes, spines)
    cut_flows, parts = channels % spines, spines // math.gcd(channels % spines, spines)
    assert max(carried.values()) - ideal <= cut_flows * (parts - 1)


def test_flows_of_equal_size_are_dealt_and_the_last_cut_alike() -> None:
    fabric = LeafSpine(2, 4, 2)
    flows = [Flow(id, 1, 2 + id % 2, 1003, channel=id) for id in range(6)]
    plan = plan_traffic(schedule_of(flows, 4), fabric, range(4), scheme_of("ethereal"))
    assert [(piece.flow, plan.connections[piece.connection].path_tag, piece.offset_bytes, piece.size_bytes)
            for piece in plan.pieces] == [
        (0, 2, 0, 1003), (1, 3, 0, 1003), (2, 4, 0, 1003), (3, 1, 0, 1003),
        (4, 2, 0, 501), (4, 3, 501, 502), (5, 4, 0, 501), (5, 1, 501, 502),
    ]  # fmt: skip
    assert plan.cut_flows == 2


def test_steps_are_dealt_apart_as_they_are_sent_apart() -> None:
    """Three flows over four spines leave a quarter over; the next step's flows do not fill it, they begin anew."""
    fabric = LeafSpine(2, 4, 4)
    flows = [Flow(id, 0, 4 + id % 3, 1200, step=id // 3, channel=id % 3) for id in range(6)]
    plan = plan_traffic(schedule_of(flows, 8), fabric, range(8), scheme_of("ethereal"))
    for step in range(2):
        carried: Counter[int] = Counter()
        for piece in plan.pieces:
            if plan.schedule.flows[piece.flow].step == step:
                carried[plan.connections[piece.connection].path_tag] += piece.size_bytes
        assert carried == {1: 900, 2: 900, 3: 900, 4: 900}


def test_leaves_are_dealt_to_apart() -> None:
    """One flow to each of two leaves is left over on both: together they would fill two spines of two."""
    fabric = LeafSpine(3, 2, 1)
    plan = plan_traffic(
        schedule_of([Flow(0, 0, 1, 1000), Flow(1, 0, 2, 1000)], 3), fabric, range(3), scheme_of("ethereal")
    )
    assert plan.cut_flows == 2 and {piece.size_bytes for piece in plan.pieces} == {500}


@pytest.mark.parametrize(("flows", "spines"), [(n, s) for n in range(1, 10) for s in range(1, 8)])
def test_the_most_pieces_are_those_of_equal_flows_or_of_sizes_that_end_nowhere(flows: int, spines: int) -> None:
    """No limit of a budget would be right that is below what equal flows take, or far above what any do."""
    fabric, scheme = LeafSpine(2, spines, 1), scheme_of("ethereal")
    most = scheme.most_pieces(permutation(fabric, flows, 840), fabric, range(2))
    one_way = (
        len(plan_traffic(schedule_of(list_, 2), fabric, range(2), scheme).pieces)
        for list_ in (
            [Flow(id, 0, 1, 840_000, channel=id) for id in range(flows)],
            [Flow(id, 0, 1, 840_000 + 1009 * id**2, channel=id) for id in range(flows)],
        )
    )
    assert most == 2 * max(one_way)


# The same for flows of other sizes

MEGA = 1_000_000


def test_flows_of_other_sizes_are_laid_end_to_end() -> None:
    assert split([50, 10, 0, 30, 30], [2, 3, 0, 1]) == [
        [(2, 30), (3, 20)], [(3, 10)], [], [(0, 30)], [(1, 30)],
    ]  # fmt: skip
    assert split([7, 1], [0, 1, 2]) == [[(0, 2), (1, 3), (2, 2)], [(2, 1)]]


def test_an_element_more_or_less_is_no_reason_to_cut() -> None:
    sizes = [MEGA + 4, MEGA + 4, MEGA, MEGA]
    assert split(sizes, range(4)) == [[(spine, size)] for spine, size in enumerate(sizes)]


def test_a_cut_beside_the_end_of_a_flow_falls_there() -> None:
    """Thirds of 3,000,001 bytes end at 1,000,000.3 and 2,000,000.7, each less than a byte from a flow's end."""
    assert split([MEGA, MEGA + 1, MEGA - 1000, 1000], range(3)) == [
        [(0, MEGA)], [(1, MEGA + 1)], [(2, MEGA - 1000)], [(2, 1000)],
    ]  # fmt: skip


@quick
@given(
    sizes=st.lists(st.integers(0, 9) | st.integers(0, 10 * MEGA), min_size=1, max_size=20), spines=st.integers(1, 16)
)
def test_flows_of_any_sizes_load_every_spine_alike(sizes: list[int], spines: int) -> None:
    splits, load = split(sizes, range(spines)), [0] * spines
    for size, pieces in zip(sizes, splits, strict=True):
        assert sum(piece for _, piece in pieces) == size
        assert all(piece > 0 for _, piece in pieces)
        assert len({spine for spine, _ in pieces}) == len(pieces), "two pieces on one spine could be one"
        for spine, piece in pieces:
            load[spine] += piece
    share = Fraction(sum(sizes), spines)
    if max(sizes) - min(sizes) > ELEMENT_BYTES:
        assert all(abs(carried - share) < 2 for carried in load)
        assert sum(len(pieces) - 1 for pieces in splits if pieces) <= spines - 1
    else:  # dealt: spines differ by an element in each of their flows, and by what cuts round
        assert all(abs(carried - share) < ELEMENT_BYTES * len(sizes) + spines**2 for carried in load)


@st.composite
def matrices(draw: st.DrawFn, fabric: LeafSpine) -> Schedule:
    """Any flows of 10 kB to 10 MB, in up to three steps."""
    flows = []
    for id in range(draw(st.integers(1, 60))):
        src, further = draw(st.integers(0, fabric.hosts - 1)), draw(st.integers(1, fabric.hosts - 1))
        size_bytes, step = draw(st.integers(10_000, 10 * MEGA)), draw(st.integers(0, 2))
        flows.append(Flow(id, src, (src + further) % fabric.hosts, size_bytes, step, channel=draw(st.integers(0, 2))))
    return schedule_of(flows, fabric.hosts)


@quick
@given(data=st.data())
def test_matrices_of_any_sizes_congest_no_more_than_ideal_spraying(data: st.DataObject) -> None:
    fabric = LeafSpine(3, data.draw(st.integers(1, 9), label="spines"), 3)
    schedule = data.draw(matrices(fabric))
    dead = data.draw(st.integers(0, fabric.spines - 1), label="dead spines of the first leaf")
    fabric = fabric.without((0, spine) for spine in range(dead))
    plan = plan_traffic(schedule, fabric, range(fabric.hosts), scheme_of("ethereal"))
    assert ratio(plan, fabric) == pytest.approx(1.0, abs=0.005)
    lanes: dict[tuple[int, int], int] = Counter((piece.flow, piece.connection) for piece in plan.pieces)
    assert set(lanes.values()) == {1}
    assert plan.cut_flows == sum(count > 1 for count in Counter(flow for flow, _ in lanes).values())
    last: dict[int, int] = {}
    for piece in plan.pieces:
        assert last.get(piece.connection, -1) < piece.flow, "a connection carries flows in the order of the schedule"
        last[piece.connection] = piece.flow


def test_a_large_flow_among_small_ones_does_not_fill_one_spine() -> None:
    fabric = LeafSpine(4, 4, 4)
    sizes = (8 * MEGA, 100_000, 100_000, 100_000)
    flows = [
        Flow(host * 4 + channel, host, (host + 4) % 16, size, channel=channel)
        for host in range(16)
        for channel, size in enumerate(sizes)
    ]
    plan = plan_traffic(schedule_of(flows, 16), fabric, range(16), scheme_of("ethereal"))
    assert ratio(plan, fabric) == pytest.approx(1.0, abs=1e-6)
    assert plan.cut_flows == 16
    assert len(plan.pieces) == 16 * 7
