"""Hedera's demand estimation and global first fit: the paper's example, and what any placement must keep to."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.elephants import ELEPHANT_SHARE, demands, placed
from emulator.topology import LeafSpine

quick = settings(max_examples=100, deadline=None, derandomize=True)
FABRIC = LeafSpine(4, 4, 4)
HOST = st.integers(0, FABRIC.hosts - 1)
FLOWS = st.lists(st.tuples(HOST, HOST).filter(lambda ends: ends[0] != ends[1]), max_size=40)


def test_the_example_of_the_paper() -> None:
    ends = [(0, 1), (0, 2), (0, 3), (1, 0), (1, 0), (1, 2), (2, 0), (2, 3), (3, 1), (3, 1)]
    shares = [1 / 3] * 7 + [2 / 3] + [1 / 3] * 2
    assert demands(ends) == pytest.approx(shares)


@quick
@given(FLOWS)
def test_no_host_sends_or_takes_more_than_its_rate(ends: list[tuple[int, int]]) -> None:
    sent: dict[int, float] = defaultdict(float)
    received: dict[int, float] = defaultdict(float)
    for (src, dst), share in zip(ends, demands(ends), strict=True):
        assert share > 0
        sent[src] += share
        received[dst] += share
    assert all(share <= 1 + 1e-6 for share in [*sent.values(), *received.values()])


@quick
@given(FLOWS)
def test_every_flow_is_limited_by_its_sender_or_its_receiver(ends: list[tuple[int, int]]) -> None:
    shares = demands(ends)
    for src, dst in ends:
        out = sum(share for (other, _), share in zip(ends, shares, strict=True) if other == src)
        into = sum(share for (_, other), share in zip(ends, shares, strict=True) if other == dst)
        assert max(out, into) == pytest.approx(1, abs=1e-6)


def loads(
    flows: dict[int, tuple[int, int]], spines: dict[int, int], fabric: LeafSpine
) -> dict[tuple[int, int, bool], float]:
    """What is placed on each link, by leaf, spine and whether upwards, as shares of a host's rate."""
    found: dict[tuple[int, int, bool], float] = defaultdict(float)
    for (flow, (src, dst)), share in zip(flows.items(), demands(list(flows.values())), strict=True):
        if flow in spines:
            found[fabric.leaf_of(src), spines[flow], True] += share
            found[fabric.leaf_of(dst), spines[flow], False] += share
    return found


@quick
@given(FLOWS, st.sampled_from([0.5, 1, 2]), st.sets(st.sampled_from(list(FABRIC.links())), max_size=3), st.data())
def test_no_link_is_overfull_and_no_elephant_with_room_is_left_out(
    ends: list[tuple[int, int]], capacity: float, failed: set[tuple[int, int]], data: st.DataObject
) -> None:
    fabric = LeafSpine(4, 4, 4, fabric_rate_bps=int(20_000_000 * capacity)).without(failed)
    flows = dict(enumerate(ends))
    kept = data.draw(st.dictionaries(st.sampled_from(sorted(flows)), st.integers(0, 3))) if flows else {}
    spines = placed(flows, fabric, kept)
    there = loads(flows, spines, fabric)
    assert all(load <= capacity + 1e-6 for load in there.values())
    for (flow, (src, dst)), share in zip(flows.items(), demands(ends), strict=True):
        near, far = fabric.leaf_of(src), fabric.leaf_of(dst)
        live = fabric.live_spines(near, far)
        if flow in spines:
            assert share > ELEPHANT_SHARE and near != far and spines[flow] in live
        elif share > ELEPHANT_SHARE and near != far:
            assert all(max(there[near, s, True], there[far, s, False]) + share > capacity for s in live)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_permutation_to_the_next_leaf_fills_every_link_exactly(channels: int) -> None:
    ends = [(host, (host + 4) % 16) for host in range(16) for _ in range(channels)]
    flows = dict(enumerate(ends))
    spines = placed(flows, FABRIC)
    assert len(spines) == len(flows)
    assert set(loads(flows, spines, FABRIC).values()) == {1.0}
    moved = {flow: (spine + 1) % 4 for flow, spine in spines.items()}
    assert placed(flows, FABRIC, moved) == moved, "what is well placed stays"


def test_what_many_share_is_no_elephant() -> None:
    assert not placed(dict(enumerate([(0, 4)] * 10)), FABRIC)
    assert placed(dict(enumerate([(0, 4)] * 9)), FABRIC)
