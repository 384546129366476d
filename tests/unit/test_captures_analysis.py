"""Planted truth: captures written by scapy whose losses, copies, delays and shares are known to the packet."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from scapy.utils import PcapWriter

from experiments.captures.concurrency import flow_starts, incast_degree
from experiments.captures.decode import join, read_capture
from experiments.captures.goodput import goodput
from experiments.captures.paths import path_share
from experiments.captures.queueing import queueing_delay
from experiments.captures.reordering import reorder_density, reordering
from experiments.captures.retransmission import retransmissions
from experiments.machine.benchmarks.decode import write_capture

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
HEADER_BYTES = 14 + 20 + 20 + 12
NUMBER = {1: 10 << 24 | 1, 2: 10 << 24 | 2, 3: 10 << 24 | 3, 9: 10 << 24 | 9}


@dataclass(frozen=True)
class Segment:
    """A segment of host `src` to host `dst`; `ip_id` tells the copies of a segment apart, as on Linux."""

    ms: float
    start: int = 0
    size: int = 1000
    ip_id: int = 0
    src: int = 1
    dst: int = 9
    port: int = 40000
    path: int = 1
    base: int = 5000  # sequence number of byte 0
    ack: int = 1
    sack: tuple[int, ...] = ()

    def packet(self) -> Packet:
        options: list[tuple[str, Any]] = [("NOP", None), ("NOP", None), ("Timestamp", (int(self.ms), 0))]
        if self.sack:
            options += [("NOP", None), ("NOP", None), ("SAck", tuple(edge % 2**32 for edge in self.sack))]
        ip = IP(src=f"10.0.0.{self.src}", dst=f"10.0.0.{self.dst}", tos=self.path << 2, id=self.ip_id)
        ports = (5001, self.port) if self.src == 9 else (self.port, 5001)
        seq = (self.base + self.start) % 2**32
        tcp = TCP(sport=ports[0], dport=ports[1], seq=seq, ack=self.ack % 2**32, flags="A", options=options)
        packet = ETHER / ip / tcp / Raw(b"x" * self.size)
        packet.time = self.ms / 1000
        return packet


def capture(folder: Path, packets: Sequence[Segment | Packet]) -> pd.DataFrame:
    path = folder / f"{len(list(folder.iterdir()))}.pcap"
    with PcapWriter(str(path), nano=True) as file:
        for packet in packets:
            file.write(packet.packet() if isinstance(packet, Segment) else packet)
    return read_capture(path).frame


def seen(segment: Segment, at_ms: float, path: int | None = None) -> Packet:
    """The same packet in another capture, at another time, perhaps on another path."""
    packet = replace(segment, path=path or segment.path).packet()
    packet.time = at_ms / 1000
    return packet


# Retransmissions


def acks(base: int, *reports: tuple[float, int, tuple[int, ...]]) -> list[Segment]:
    """Acks of host 9 to host 1: (ms, acknowledged bytes, SACK edges in bytes of the stream)."""
    return [
        Segment(ms, size=0, src=9, dst=1, base=1, ip_id=900 + n, ack=base + ack, sack=tuple(base + e for e in sack))
        for n, (ms, ack, sack) in enumerate(reports)
    ]


@pytest.mark.parametrize("base", [5000, 2**32 - 2500])
def test_which_retransmissions_were_spurious(tmp_path: Path, base: int) -> None:
    first = [Segment(ms=n, start=1000 * n, ip_id=n, base=base) for n in range(8)]
    again = {
        "2 was lost": Segment(20, 2000, ip_id=20, base=base),
        "4 was only late": Segment(21, 4000, ip_id=21, base=base),
        "6 was lost": Segment(22, 6000, ip_id=22, base=base),
        "6 had arrived in its second copy": Segment(23, 6000, ip_id=23, base=base),
    }
    reports = acks(base, (12, 2000, (3000, 4000)), (40, 7000, (4000, 5000)), (41, 8000, (6000, 7000)))
    sender = capture(tmp_path, [*first, reports[0], *again.values(), *reports[1:]])
    arrivals = [seen(each, each.ms + 5) for each in first if each.start not in (2000, 4000, 6000)]
    arrivals += [seen(first[4], 24), *(seen(each, each.ms + 5) for each in again.values())]
    receiver = capture(tmp_path, arrivals)

    for table in (retransmissions(sender), retransmissions(sender, receiver)):
        assert table["seq"].tolist() == [(base + start) % 2**32 for start in (2000, 4000, 6000, 6000)]
        assert table["time_ns"].tolist() == [20_000_000, 21_000_000, 22_000_000, 23_000_000]
        assert table["retransmitted_bytes"].tolist() == [1000] * 4
        assert table["spurious_by_dsack"].tolist() == [False, True, False, True]
        assert table["spurious"].tolist() == [False, True, False, True]
    assert table["spurious_by_arrival"].tolist() == [False, True, False, True]


def test_without_dsack_only_the_receiver_can_tell(tmp_path: Path) -> None:
    original, copy = Segment(0, ip_id=1), Segment(9, ip_id=2)
    sender = capture(tmp_path, [original, copy])
    late = capture(tmp_path, [seen(copy, 10), seen(original, 11)])
    lost = capture(tmp_path, [seen(copy, 10)])
    assert retransmissions(sender)["spurious"].tolist() == [False]
    assert retransmissions(sender, late)["spurious"].tolist() == [True]
    assert retransmissions(sender, lost)["spurious"].tolist() == [False]


def test_a_duplicate_made_by_the_network_is_no_retransmission(tmp_path: Path) -> None:
    sender = capture(tmp_path, [Segment(0), Segment(1, start=1000, ip_id=1), *acks(5000, (5, 2000, (0, 1000)))])
    assert len(retransmissions(sender)) == 0


def test_a_retransmission_may_hold_new_bytes_too(tmp_path: Path) -> None:
    packets = [Segment(0, 0, 500, 1), Segment(1, 500, 500, 2), Segment(2, 1000, 200, 3), Segment(9, 500, 900, 4)]
    sender = capture(tmp_path, packets)
    arrived = capture(tmp_path, [seen(each, each.ms + 1) for each in packets if each.start != 1000])
    table = retransmissions(sender, arrived)
    assert table[["payload_bytes", "retransmitted_bytes"]].to_numpy().tolist() == [[900, 700]]
    assert table["spurious"].tolist() == [False]  # 200 of the bytes had never arrived
    everything = capture(tmp_path, [seen(each, each.ms + 1) for each in packets])
    assert retransmissions(sender, everything)["spurious"].tolist() == [True]


def test_dsacks_of_one_flow_say_nothing_of_another(tmp_path: Path) -> None:
    flows = [replace(Segment(n, ip_id=n, base=base), port=40000 + n) for n, base in enumerate((5000, 5000, 2**31))]
    copies = [replace(each, ms=each.ms + 10, ip_id=each.ip_id + 10) for each in flows]
    report = replace(acks(5000, (30, 1000, (0, 1000)))[0], port=40001)
    table = retransmissions(capture(tmp_path, [*flows, *copies, report]))
    assert dict(zip(table["src_port"], table["spurious"], strict=True)) == {40000: False, 40001: True, 40002: False}


def test_a_dsack_for_bytes_before_the_capture_is_nobodys(tmp_path: Path) -> None:
    flow, other = (replace(Segment(0, ip_id=1), port=port) for port in (40000, 40001))
    packets = [flow, replace(flow, start=1000, ip_id=2), replace(flow, start=1000, ip_id=3), other]
    report = replace(acks(5000, (30, 1000, (-1000, 0)))[0], port=40001)
    assert retransmissions(capture(tmp_path, [*packets, report]))["spurious"].tolist() == [False]


# Goodput, shares, starts, incast


def test_goodput_counts_every_byte_once_when_it_first_arrives(tmp_path: Path) -> None:
    packets = [
        Segment(0, 0),
        Segment(5, 2000),  # 1000 to 2000 is missing
        Segment(12, 1500, 1000),  # 500 of these are new
        Segment(13, 0),  # nothing new
        Segment(25, 1000, 2000),  # 500 new
        Segment(26, 0, src=2, size=300),
    ]
    table = goodput(capture(tmp_path, packets), bin_s=0.010)
    got = table[["src_ip", "time_s", "new_bytes", "goodput_bps"]].to_numpy().tolist()
    assert got == [
        [NUMBER[1], 0.0, 2000, 1_600_000],
        [NUMBER[1], 0.01, 500, 400_000],
        [NUMBER[1], 0.02, 500, 400_000],
        [NUMBER[2], 0.02, 300, 240_000],
    ]


def test_goodput_past_four_gigabytes(tmp_path: Path) -> None:
    step = 2**31 - 10_000
    packets = [Segment(n, start=n * step, ip_id=n) for n in range(5)]
    table = goodput(capture(tmp_path, packets), bin_s=1)
    assert table["new_bytes"].tolist() == [5000]


def test_shares_of_paths_over_time(tmp_path: Path) -> None:
    sizes = {0: (1, 100), 1: (2, 300), 2: (1, 500), 13: (3, 700)}
    packets = [Segment(ms, size=size, path=path) for ms, (path, size) in sizes.items()]
    table = path_share(capture(tmp_path, packets), bin_s=0.010)
    wire = {ms: size + HEADER_BYTES for ms, (_, size) in sizes.items()}
    assert table[["time_s", "dscp", "wire_bytes"]].to_numpy().tolist() == [
        [0.0, 1, wire[0] + wire[2]], [0.0, 2, wire[1]], [0.01, 3, wire[13]],
    ]  # fmt: skip
    all_bytes = wire[0] + wire[1] + wire[2]
    assert table["share"].tolist() == [(wire[0] + wire[2]) / all_bytes, wire[1] / all_bytes, 1.0]


def test_shares_of_links_and_a_common_start(tmp_path: Path) -> None:
    paths = []
    for name, starts in {"leaf1-spine1": (0, 11), "leaf1-spine2": (2,)}.items():
        capture(tmp_path, [Segment(ms) for ms in starts])
        paths.append(read_capture(sorted(tmp_path.iterdir())[-1], link=name))
    table = path_share(join(paths).frame, 0.005, by="link", start_ns=-5_000_000)
    assert table[["time_s", "link", "share"]].to_numpy().tolist() == [
        [0.005, "leaf1-spine1", 0.5], [0.005, "leaf1-spine2", 0.5], [0.015, "leaf1-spine1", 1.0],
    ]  # fmt: skip


def test_flow_starts(tmp_path: Path) -> None:
    packets = [Segment(0, size=0), Segment(3, port=40001), Segment(5), Segment(6, port=40001), Segment(5.5, src=2)]
    table = flow_starts(capture(tmp_path, packets))
    assert table["src_port"].tolist() == [40001, 40000, 40000]
    assert table["skew_s"].tolist() == [0.0, 0.002, 0.0025]


def test_incast_degree(tmp_path: Path) -> None:
    packets = [
        Segment(0, src=1), Segment(1, src=2), Segment(2, src=2, port=40001), Segment(3, src=3, size=0),
        Segment(4, src=3, dst=2), Segment(10, src=3), Segment(25, src=1),
    ]  # fmt: skip
    table = incast_degree(capture(tmp_path, packets), window_s=0.010)
    assert table.to_numpy().tolist() == [
        [0.0, NUMBER[2], 1], [0.0, NUMBER[9], 2], [0.01, NUMBER[9], 1], [0.02, NUMBER[9], 1],
    ]  # fmt: skip


# Delay over a hop


def test_queueing_delay_and_what_did_not_come_through(tmp_path: Path) -> None:
    sent = [Segment(ms=n, start=1000 * n, ip_id=n) for n in range(6)]
    waits_ms = {0: 0, 1: 1.5, 2: 3, 4: 0.25, 5: 7}  # 3 is lost
    came = [seen(sent[n], n + 2 + wait, path=3) for n, wait in waits_ms.items()]  # takes 2 ms, and rewrites DSCP
    came.append(seen(sent[2], 20))  # 2 comes twice
    came.append(seen(Segment(9, start=77, ip_id=99), 21))  # and this one out of nowhere
    came.sort(key=lambda packet: packet.time)
    hop = queueing_delay(capture(tmp_path, [*sent, ETHER / ARP()]), capture(tmp_path, came))
    assert hop.packets["delay_ns"].tolist() == [(2 + wait) * 1e6 for wait in waits_ms.values()]
    assert hop.packets["queueing_ns"].tolist() == [wait * 1e6 for wait in waits_ms.values()]
    assert (hop.lost_packets, hop.duplicated_packets, hop.stray_packets, hop.baseline_ns) == (1, 1, 1, 2e6)


def test_queueing_delay_knows_that_large_packets_take_longer(tmp_path: Path) -> None:
    rate_bps = 8_000_000
    sizes, waits_ms = [0, 1000, 5000, 0], [0, 4, 0, 1]
    sent = [Segment(ms=50 * n, size=size, ip_id=n) for n, size in enumerate(sizes)]
    serial_ms = [(size + HEADER_BYTES) * 8e3 / rate_bps for size in sizes]
    came = [seen(each, each.ms + 1 + s + w) for each, s, w in zip(sent, serial_ms, waits_ms, strict=True)]
    hop = queueing_delay(capture(tmp_path, sent), capture(tmp_path, came), rate_bps)
    assert hop.packets["queueing_ns"].tolist() == pytest.approx([wait * 1e6 for wait in waits_ms], abs=1)
    assert hop.baseline_ns == pytest.approx(1e6, abs=1)


def test_copies_of_a_retransmitted_segment_are_told_apart(tmp_path: Path) -> None:
    lost, copy = Segment(0, ip_id=1), Segment(10, ip_id=2)
    hop = queueing_delay(capture(tmp_path, [lost, copy]), capture(tmp_path, [seen(copy, 13)]))
    assert (hop.packets["delay_ns"].tolist(), hop.lost_packets) == ([3_000_000], 1)


# Edges


def test_a_capture_without_data_has_empty_tables(tmp_path: Path) -> None:
    for packets in ([], [ETHER / ARP()], [Segment(0, size=0)], acks(5000, (1, 2000, (0, 1000)))):
        frame = capture(tmp_path, packets)
        tables = [
            goodput(frame, 1), flow_starts(frame), incast_degree(frame, 1), retransmissions(frame, frame),
            reordering(frame), reordering(frame, "ip_id"), reorder_density(frame), reorder_density(frame, "ip_id"),
        ]  # fmt: skip
        assert [len(table) for table in tables] == [0] * 8
        assert len(path_share(frame, 1)) == (len(frame) > 0)
        hop = queueing_delay(frame, frame)
        assert (len(hop.packets), hop.lost_packets) == (frame["is_tcp"].sum(), 0)


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    frame = capture(tmp_path, [Segment(0)])
    for call in (lambda: path_share(frame, 0), lambda: goodput(frame, -1), lambda: incast_degree(frame, 1e-12)):
        with pytest.raises(ValueError, match="too short: give a length of at least"):
            call()  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="give a positive rate"):
        queueing_delay(frame, frame, 0)


def test_memory_stays_within_4_gb_for_5_million_packets(tmp_path: Path) -> None:
    packets = 150_000
    write_capture(tmp_path / "a.pcap", packets)
    tracemalloc.start()
    try:
        frame = read_capture(tmp_path / "a.pcap", "a", "up").frame
        for analysis in (path_share, goodput, incast_degree):
            analysis(frame, 0.01)
        for analyse in (flow_starts, reordering, reorder_density, retransmissions):
            analyse(frame)
        queueing_delay(frame, frame, 1e9)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(frame) == packets
    assert peak_bytes / packets < 4e9 / 5_000_000
