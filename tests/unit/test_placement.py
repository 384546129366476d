"""Where ranks live."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.topology import LeafSpine
from traffic.placement import PLACEMENTS, PlacementError, place

quick = settings(max_examples=200, deadline=None, derandomize=True)


@st.composite
def fabrics_and_ranks(draw: st.DrawFn) -> tuple[LeafSpine, int]:
    fabric = LeafSpine(draw(st.integers(1, 8)), 2, draw(st.integers(1, 8)))
    return fabric, draw(st.integers(1, fabric.hosts))


@quick
@given(case=fabrics_and_ranks(), kind=st.sampled_from(PLACEMENTS), seed=st.integers(0, 99))
def test_every_rank_has_a_host_of_its_own(case: tuple[LeafSpine, int], kind: str, seed: int) -> None:
    fabric, ranks = case
    hosts = place(kind, fabric, ranks, seed)
    assert len(hosts) == len(set(hosts)) == ranks
    assert set(hosts) <= set(range(fabric.hosts))
    assert hosts == place(kind, fabric, ranks, seed)


@quick
@given(case=fabrics_and_ranks())
def test_interleaved_puts_ring_neighbours_on_different_leaves(case: tuple[LeafSpine, int]) -> None:
    fabric, ranks = case
    leaves = [fabric.leaf_of(host) for host in place("interleaved", fabric, ranks)]
    inside = sum(leaves[rank] == leaves[rank - 1] for rank in range(ranks))
    if fabric.leaves > 2 and ranks > 1:
        assert inside == 0
    elif fabric.leaves == 2 and ranks > 1:
        assert inside == ranks % 2  # an odd ring cannot alternate between two leaves


def test_packed_fills_leaf_after_leaf() -> None:
    assert place("packed", LeafSpine(4, 4, 4), 10) == list(range(10))


def test_interleaved_sends_a_ring_to_the_same_place_of_the_next_leaf() -> None:
    assert place("interleaved", LeafSpine(4, 4, 4), 16) == [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]


def test_random_differs_by_seed() -> None:
    fabric = LeafSpine(4, 4, 4)
    assert len({tuple(place("random", fabric, 16, seed)) for seed in range(20)}) == 20


def test_bad_placements_are_refused() -> None:
    with pytest.raises(PlacementError, match="unknown placement 'spread': use one of packed, interleaved, random"):
        place("spread", LeafSpine(4, 4, 4), 16)
    with pytest.raises(PlacementError, match=r"17 ranks do not fit on 16 hosts .* use 1 to 16 ranks"):
        place("packed", LeafSpine(4, 4, 4), 17)
