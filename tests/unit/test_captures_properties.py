"""What the analyses find is what slow and plain ones find, on streams of every kind."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from experiments.captures import matching, streams
from experiments.captures.concurrency import flow_starts, incast_degree
from experiments.captures.goodput import goodput
from experiments.captures.ordering import beginnings, stable_order
from experiments.captures.reordering import number_packets, reorder_density, reordering
from experiments.captures.retransmission import retransmissions

intervals = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=30)


def bare_frame(segments: list[tuple[int, int, int]], base: int) -> pd.DataFrame:
    """A frame with the columns that matter: (flow, start, size) of each segment."""
    flow, start, size = np.array(segments).T
    rows = len(segments)
    columns: dict[str, Any] = {name: np.zeros(rows, np.uint32) for name in matching.IDENTITY}
    columns |= {"src_port": flow.astype(np.uint16), "seq": (start + base).astype(np.uint32), "payload_bytes": size}
    columns |= {name: np.zeros(rows, np.uint32) for name in ("sack_start", "sack_end")}
    columns |= {"is_tcp": np.ones(rows, bool), "dsack": np.zeros(rows, bool), "time_ns": np.arange(rows)}
    return pd.DataFrame(columns)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(segments=intervals, base=st.sampled_from([0, 2**32 - 30]))
def test_new_bytes_by_brute_force(segments: list[tuple[int, int, int]], base: int) -> None:
    known: set[tuple[int, int]] = set()
    expected = []
    for flow, start, size in segments:
        held = {(flow, byte) for byte in range(start, start + size)}
        expected.append(len(held - known))
        known |= held
    found = streams.Streams.of(bare_frame(segments, base))
    assert found.new_bytes[np.argsort(found.row)].tolist() == expected


@settings(max_examples=150, deadline=None, derandomize=True)
@given(before=intervals, after=intervals)
def test_matching_by_brute_force(before: list[tuple[int, int, int]], after: list[tuple[int, int, int]]) -> None:
    before, after = ([(flow, start % 3, size % 2 + 1) for flow, start, size in each] for each in (before, after))
    free = list(range(len(after)))
    expected = []
    for packet in before:
        partner = next((place for place in free if after[place] == packet), -1)
        expected.append(partner)
        if partner >= 0:
            free.remove(partner)
    match = matching.match_packets(bare_frame(before, 0), bare_frame(after, 0))
    assert match.partner.tolist() == expected
    assert match.duplicates.tolist() == [place for place in free if after[place] in before]
    assert match.strays.tolist() == [place for place in free if after[place] not in before]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(segments=intervals, base=st.sampled_from([0, 2**32 - 30]), clock=st.randoms(use_true_random=False))
def test_goodput_starts_and_incast_by_brute_force(
    segments: list[tuple[int, int, int]], base: int, clock: Random
) -> None:
    frame = bare_frame(segments, base)
    frame["src_ip"], frame["dst_ip"] = frame["src_port"].astype(np.uint32) + 1, np.uint32(9)
    frame["time_ns"] = [clock.randrange(0, 40) for _ in segments]  # a clock may be set back
    known: set[tuple[int, int]] = set()
    new_bytes: dict[tuple[int, int], int] = defaultdict(int)
    starts_ns: dict[int, int] = {}
    senders: dict[int, set[int]] = defaultdict(set)
    first_ns = int(frame["time_ns"].min())
    for (flow, start, size), time_ns in zip(segments, frame["time_ns"].tolist(), strict=True):
        held = {(flow, byte) for byte in range(start, start + size)}
        new_bytes[flow, (time_ns - first_ns) // 10] += len(held - known)
        known |= held
        starts_ns[flow] = min(time_ns, starts_ns.get(flow, time_ns))
        senders[(time_ns - first_ns) // 10].add(flow)

    table = goodput(frame, 10e-9)
    keys = zip(table["src_port"], (table["time_s"] * 1e8).round().astype(int), strict=True)
    assert dict(zip(keys, table["new_bytes"], strict=True)) == {key: new for key, new in new_bytes.items() if new}
    starts = flow_starts(frame)
    assert dict(zip(starts["src_port"], starts["start_ns"], strict=True)) == starts_ns
    assert incast_degree(frame, 10e-9)["sources"].tolist() == [len(senders[window]) for window in sorted(senders)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(segments=intervals, base=st.sampled_from([0, 2**32 - 30]))
def test_numbers_by_brute_force(segments: list[tuple[int, int, int]], base: int) -> None:
    arrived: dict[int, dict[int, int]] = defaultdict(dict)  # of each flow: start and size of what brought new bytes
    seen: dict[int, set[int]] = defaultdict(set)
    order: list[tuple[int, int, int]] = []
    for flow, start, size in segments:
        held = set(range(start, start + size))
        if held - seen[flow]:
            arrived[flow][len(order)] = size
            order.append((flow, start, start + size))
        seen[flow] |= held
    expected, last = [], 0
    for flow in dict.fromkeys(flow for flow, _, _ in segments):
        mine, full = sorted(arrived[flow], key=lambda one: order[one][1]), max(arrived[flow].values())
        numbers, reach = {}, order[mine[0]][1]
        for one in mine:
            _, start, end = order[one]
            last += 1 - (-max(start - reach, 0) // full)
            numbers[one], reach = last, max(reach, end)
        expected += [numbers[one] for one in arrived[flow]]
    numbered = number_packets(bare_frame(segments, base))
    assert numbered.number.tolist() == expected
    assert numbered.in_order.tolist() == sorted(expected)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(segments=intervals, arrived=intervals)
def test_streams_that_analyses_share_change_nothing(
    segments: list[tuple[int, int, int]], arrived: list[tuple[int, int, int]]
) -> None:
    frame, receiver = bare_frame(segments, 0), bare_frame(arrived, 0)
    shared, received = streams.Streams.of(frame), streams.Streams.of(receiver)
    assert_frame_equal(goodput(shared, 1e-8), goodput(frame, 1e-8))
    assert_frame_equal(incast_degree(shared, 1e-8), incast_degree(frame, 1e-8))
    assert_frame_equal(flow_starts(shared), flow_starts(frame))
    for numbering in ("ip_id", "seq"):
        assert_frame_equal(reordering(shared, numbering), reordering(frame, numbering))
        assert_frame_equal(reorder_density(shared, numbering, 2), reorder_density(frame, numbering, 2))
    assert_frame_equal(retransmissions(shared, received), retransmissions(frame, receiver))


keys = st.lists(st.one_of(st.integers(0, 3), st.integers(2**64 - 9, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=50)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(keys=keys)
def test_an_order_is_stable_whatever_the_keys(keys: list[int]) -> None:
    array = np.array(keys, np.uint64)
    assert stable_order(array).tolist() == sorted(range(len(keys)), key=lambda place: keys[place])
    assert beginnings(array).tolist() == [n for n, key in enumerate(keys) if n == 0 or keys[n - 1] != key]
