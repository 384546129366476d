"""Reordering by RFC 4737 and RFC 5236: the RFCs' examples, brute force, and captures with a known order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import PcapWriter

from experiments.captures import reordering as metrics
from experiments.captures.decode import read_capture

SEGMENT_BYTES = 100


def capture(path: Path, arrivals: list[tuple[int, int]], first_seq: int = 1000, first_id: int = 0) -> pd.DataFrame:
    """A frame of packets (flow, number), all flows' bytes starting at `first_seq`, numbers at 1."""
    with PcapWriter(str(path)) as file:
        for flow, number in arrivals:
            seq = (first_seq + (number - 1) * SEGMENT_BYTES) % 2**32
            ip = IP(src="10.0.0.1", dst="10.1.0.1", id=(first_id + number) % 2**16)
            ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
            file.write(ether / ip / TCP(sport=40000 + flow, dport=5001, seq=seq, flags="A") / Raw(b"x" * SEGMENT_BYTES))
    return read_capture(path).frame


def density_of(displacements: list[int]) -> dict[int, float]:
    return {each: displacements.count(each) / len(displacements) for each in sorted(set(displacements))}


def as_dict(density: pd.DataFrame) -> dict[int, float]:
    return dict(zip(density["displacement_packets"], density["density"], strict=True))


@pytest.mark.parametrize("numbering", ["seq", "ip_id"])
@pytest.mark.parametrize(("first_seq", "first_id"), [(1000, 0), (2**32 - 250, 2**16 - 3)])
def test_a_known_order(tmp_path: Path, numbering: str, first_seq: int, first_id: int) -> None:
    order = [1, 4, 2, 5, 3, 6, 7, 8]
    frame = capture(tmp_path / "a", [(0, number) for number in order], first_seq, first_id)
    table = metrics.reordering(frame, numbering)
    # 2 comes one packet after 4, and 3 comes three after 4
    assert table[["packets", "reordered_packets", "reordered_ratio"]].to_numpy().tolist() == [[8, 2, 0.25]]
    assert table[["extent_mean_packets", "extent_max_packets"]].to_numpy().tolist() == [[2, 3]]
    assert as_dict(metrics.reorder_density(frame, numbering)) == {-2: 1 / 8, -1: 1 / 8, 0: 4 / 8, 1: 1 / 8, 2: 1 / 8}


@pytest.mark.parametrize("numbering", ["seq", "ip_id"])
def test_lost_and_duplicated_packets_are_not_reordered(tmp_path: Path, numbering: str) -> None:
    order = [1, 4, 3, 5, 3, 8, 7, 6]  # 2 is lost, 3 comes twice: receive indices 1, 3, 4, 5, -, 6, 7, 8
    frame = capture(tmp_path / "a", [(0, number) for number in order])
    assert as_dict(metrics.reorder_density(frame, numbering)) == density_of([0, -1, 1, 0, -2, 0, 2])
    table = metrics.reordering(frame, numbering)
    assert table[["packets", "reordered_packets", "extent_max_packets"]].to_numpy().tolist() == [[7, 3, 2]]


@pytest.mark.parametrize("numbering", ["seq", "ip_id"])
def test_a_lost_packet_counts_in_the_displacement_across_it(tmp_path: Path, numbering: str) -> None:
    frame = capture(tmp_path / "a", [(0, number) for number in (1, 5, 2, 6)])  # 3 and 4 are lost
    assert as_dict(metrics.reorder_density(frame, numbering)) == density_of([0, 2 - 5, 5 - 2, 0])


def test_flows_are_judged_one_by_one(tmp_path: Path) -> None:
    orders = {0: [1, 2, 3, 4], 1: [2, 1, 4, 3], 2: [4, 3, 2, 1]}
    arrivals = [(flow, order[turn]) for turn in range(4) for flow, order in orders.items()]
    table = metrics.reordering(capture(tmp_path / "a", arrivals)).set_index("src_port")
    assert table["reordered_packets"].to_dict() == {40000: 0, 40001: 2, 40002: 3}
    assert table["extent_max_packets"].to_dict() == {40000: 0, 40001: 1, 40002: 3}
    density = metrics.reorder_density(capture(tmp_path / "b", arrivals))
    assert as_dict(density) == density_of([0, 0, 0, 0, -1, 1, -1, 1, -3, -1, 1, 3])


def test_a_retransmission_is_reordered_by_seq_but_not_by_ip_id(tmp_path: Path) -> None:
    ether, ip = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02"), IP(src="10.0.0.1", dst="10.1.0.1")
    with PcapWriter(str(tmp_path / "a")) as file:
        for ip_id, segment in enumerate([0, 2, 3, 1]):  # 1 was lost at first
            ip.id = ip_id + (ip_id > 0)
            file.write(ether / ip / TCP(seq=segment * 10) / Raw(b"x" * 10))
    frame = read_capture(tmp_path / "a").frame
    assert metrics.reordering(frame, "seq")["reordered_packets"].tolist() == [1]
    assert metrics.reordering(frame, "ip_id")["reordered_packets"].tolist() == [0]


# Against brute force

orders = st.permutations(range(1, 25)).flatmap(
    lambda order: st.sets(st.sampled_from(order), min_size=1).map(lambda kept: [each for each in order if each in kept])
)
nearly_sorted = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(
    lambda lateness: [number + 1 for number in sorted(range(len(lateness)), key=lambda n: (n + lateness[n], n))]
)


def brute_force_reordered(numbers: list[int]) -> list[bool]:
    """RFC 4737, 3.3, word by word."""
    next_expected, out = numbers[0], []
    for number in numbers:
        out.append(number < next_expected)
        if not out[-1]:
            next_expected = number + 1
    return out


def brute_force_displacements(numbers: list[int], threshold: int) -> list[int]:
    """RFC 5236's algorithm for RD, word by word, but for a way out when all that is left is older than RI."""
    stream, index = list(numbers), 1
    window: list[int] = []
    buffer: list[int] = []
    out: list[int] = []
    while stream and len(window) < threshold + 1:
        window.append(stream.pop(0))
    while window:
        if index in window or index in buffer or max(window + buffer) < index:
            number = window.pop(0)
            displacement = index - number
            if abs(displacement) <= threshold:
                out.append(displacement)
                if index in buffer:
                    buffer.remove(index)
                if displacement < 0:
                    buffer.append(number)
                index += 1
            if stream:
                window.append(stream.pop(0))
        else:
            smallest = min(window + buffer)
            index = smallest if index < smallest else index + 1
    return out


@settings(max_examples=200, deadline=None, derandomize=True)
@given(order=st.one_of(orders, nearly_sorted))
def test_ratio_and_extent_by_brute_force(order: list[int]) -> None:
    late = brute_force_reordered(order)
    expected = [
        here - min(place for place in range(here) if order[place] > order[here]) if late[here] else 0
        for here in range(len(order))
    ]
    assert metrics.reordered(np.array(order)).tolist() == late
    assert metrics.extents(np.array(order)).tolist() == expected


@settings(max_examples=300, deadline=None, derandomize=True)
@given(order=st.one_of(orders, nearly_sorted), threshold=st.integers(0, 30))
def test_displacements_by_brute_force(order: list[int], threshold: int) -> None:
    found = metrics.displacements(np.array(order), threshold)
    assert sorted(found.tolist()) == sorted(brute_force_displacements(order, threshold))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(flows=st.lists(nearly_sorted, min_size=1, max_size=4), threshold=st.integers(0, 6), seed=st.integers(0, 9))
def test_density_over_flows_by_brute_force(
    tmp_path_factory: pytest.TempPathFactory, flows: list[list[int]], threshold: int, seed: int
) -> None:
    turns = np.random.default_rng(seed).permutation([flow for flow, order in enumerate(flows) for _ in order])
    left = [iter(order) for order in flows]
    frame = capture(tmp_path_factory.mktemp("flows") / "a", [(int(flow), next(left[flow])) for flow in turns])
    expected = [each for order in flows for each in brute_force_displacements(order, threshold)]
    assert as_dict(metrics.reorder_density(frame, "ip_id", threshold)) == density_of(expected)


def test_unknown_numbering_and_threshold_are_refused(tmp_path: Path) -> None:
    frame = capture(tmp_path / "a", [(0, 1)])
    with pytest.raises(ValueError, match="'seq' or 'ip_id'"):
        metrics.reordering(frame, "time")
    with pytest.raises(ValueError, match="-1 packets makes no sense"):
        metrics.reorder_density(frame, threshold=-1)
