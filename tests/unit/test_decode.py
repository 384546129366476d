"""Captures become frames: every format, every header, damage and all, the same as scapy reads them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from capture_files import (
    ETHER,
    SAMPLE,
    T0_NS,
    TIMESTAMPS,
    Record,
    block,
    enhanced,
    interface,
    pcap_bytes,
    pcapng_bytes,
    read_bytes,
    records_of,
    section,
    tcp_packet,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q
from scapy.packet import Raw
from scapy.utils import PcapNgWriter, PcapWriter

from experiments.captures import decode, headers, odd, pcapng
from experiments.captures.decode import join, read_capture


def same_frames(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other)


@pytest.fixture
def reference(tmp_path: Path) -> pd.DataFrame:
    return read_bytes(tmp_path, pcap_bytes(records_of(SAMPLE))).frame


def test_the_fields_of_a_packet(reference: pd.DataFrame) -> None:
    data, sack, syn, arp, udp6, vlan, udp = (reference.iloc[row] for row in range(7))
    assert dict(data.drop(["link", "direction"])) == {
        "time_ns": T0_NS, "wire_bytes": 1066, "ip_version": 4, "protocol": 6, "is_tcp": True, "dscp": 3, "ip_id": 77,
        "src_ip": 10 << 24 | 1, "dst_ip": 10 << 24 | 1 << 16 | 1, "src_port": 40001, "dst_port": 5001,
        "seq": 1000, "ack": 1, "payload_bytes": 1000, "tcp_flags": 0x10, "ts_val": 123456, "ts_ecr": 654321,
        "sack_start": 0, "sack_end": 0, "dsack": False,
    }  # fmt: skip
    assert (data["link"], data["direction"]) == ("leaf1-spine1", "up")
    assert (sack["ts_val"], sack["sack_start"], sack["sack_end"], sack["dsack"]) == (123456, 3000, 4000, False)
    assert (syn["ts_val"], syn["tcp_flags"], syn["payload_bytes"]) == (123456, 2, 0)
    assert (arp["ip_version"], arp["protocol"], arp["is_tcp"], arp["wire_bytes"]) == (0, 0, False, 42)
    assert (udp6["ip_version"], udp6["protocol"], udp6["src_port"], udp6["dscp"]) == (6, 17, 1, 4)
    assert (vlan["src_ip"], vlan["seq"], vlan["is_tcp"]) == (10 << 24 | 9, 7, True)
    assert (udp["protocol"], udp["src_port"], udp["dst_port"], udp["is_tcp"]) == (17, 53, 54, False)


def test_wire_bytes_add_up_to_what_the_interface_carried(reference: pd.DataFrame) -> None:
    assert reference["wire_bytes"].sum() == sum(len(packet) for packet in SAMPLE)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_classic_pcap_in_every_form(tmp_path: Path, reference: pd.DataFrame, order: str, nanoseconds: bool) -> None:
    capture = read_bytes(tmp_path, pcap_bytes(records_of(SAMPLE), order, nanoseconds))
    same_frames(capture.frame, reference)
    assert capture.problems == []


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("resolution", "ticks_per_s"), [(None, 10**6), (6, 10**6), (9, 10**9), (10, 10**10), (3, 10**3), (0x80 | 20, 2**20)]
)
def test_pcapng_in_every_form(
    tmp_path: Path, reference: pd.DataFrame, order: str, resolution: int | None, ticks_per_s: int
) -> None:
    records = records_of(SAMPLE)
    capture = read_bytes(tmp_path, pcapng_bytes(records, order, resolution, ticks_per_s))
    assert capture.problems == []
    same_frames(capture.frame.drop(columns="time_ns"), reference.drop(columns="time_ns"))
    ticks = np.array([record[2] * ticks_per_s // 10**9 for record in records], object)
    assert capture.frame["time_ns"].tolist() == (ticks * 10**9 // ticks_per_s).tolist()


def test_pcapng_with_interfaces_sections_and_simple_packets(tmp_path: Path) -> None:
    records = records_of(SAMPLE[:3])
    data = section("<") + interface("<", 9, offset_s=-5) + interface("<", link_type=101)
    data += block("<", 4, bytes(8))  # names, of no interest
    data += enhanced("<", records[0], T0_NS)
    data += enhanced("<", (records[0][0][14:], 1052, 0), T0_NS // 1000, number=1)
    data += section(">") + interface(">", snap=100) + block(">", 3, struct.pack(">I", 1066) + records[0][0][:100])
    capture = read_bytes(tmp_path, data)
    assert capture.frame["time_ns"].tolist() == [T0_NS - 5 * 10**9, T0_NS, 0]
    assert capture.frame["seq"].tolist() == [1000, 1000, 1000]
    assert capture.frame["wire_bytes"].tolist() == [1066, 1052, 1066]
    assert [problem.split(": ")[1] for problem in capture.problems] == [
        "1 packets carry no time (simple packet blocks)"
    ]


@pytest.mark.parametrize("ticks_per_s", [10**n for n in range(25)] + [2**n for n in (*range(0, 70, 3), 34, 127)])
def test_times_of_any_resolution(ticks_per_s: int) -> None:
    for ticks in (0, 1, ticks_per_s - 1, ticks_per_s + 1, 1_700_000_000 * ticks_per_s - 1, 2**64 - 1):
        exact = ticks * 10**9 // ticks_per_s
        if ticks < 2**64 and exact < 2**63:
            (got,) = pcapng._nanoseconds(np.array([ticks], np.uint64), ticks_per_s)
            assert 0 <= exact - int(got) <= (ticks_per_s > 2**33 and ticks_per_s % 10 != 0)


@pytest.mark.parametrize("writer", [PcapWriter, PcapNgWriter])
def test_files_written_one_by_one(tmp_path: Path, reference: pd.DataFrame, writer: type) -> None:
    path = tmp_path / "scapy"
    with writer(str(path)) as file:
        for packet in SAMPLE:
            file.write(packet)
    frame = read_capture(path, "leaf1-spine1", "up").frame
    same_frames(frame.drop(columns="time_ns"), reference.drop(columns="time_ns"))


# The vectorised decoding against that of one packet at a time, and both against scapy's

u16, u32 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
pairs = st.lists(st.tuples(u32, u32), min_size=1, max_size=4)
tcp_options = st.lists(
    st.one_of(
        st.just(("NOP", None)),
        st.just(("SAckOK", b"")),
        st.tuples(st.just("MSS"), u16),
        st.tuples(st.just("WScale"), st.integers(0, 14)),
        st.tuples(st.just("Timestamp"), st.tuples(u32, u32)),
        st.tuples(st.just("SAck"), pairs.map(lambda blocks: tuple(edge for block in blocks for edge in block))),
    )
).filter(lambda options: len(bytes(TCP(options=options))) <= 60)
after_timestamps = tcp_options.map(lambda more: TIMESTAMPS + more).filter(lambda o: len(bytes(TCP(options=o))) <= 60)
tcp = st.builds(
    lambda sport, dport, seq, ack, flags, options: TCP(
        sport=sport, dport=dport, seq=seq, ack=ack, flags=flags, options=options
    ),
    u16, u16, u32, u32, st.integers(0, 255), st.one_of(st.just(TIMESTAMPS), after_timestamps, tcp_options),
)  # fmt: skip
transport = st.one_of(tcp, tcp, st.builds(lambda a, b: UDP(sport=a, dport=b), u16, u16), st.just(ICMP()))
payload = st.integers(0, 120).map(lambda size: Raw(bytes(range(size))))
ipv4 = st.builds(
    lambda src, dst, tos, id, frag, nops, up, data: (
        IP(src=src, dst=dst, tos=tos, id=id, frag=frag, flags=int(frag > 0), options=[IPOption_NOP()] * nops)
        / up
        / data
    ),
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=4).map(str), st.integers(0, 255), u16,
    st.sampled_from([0, 0, 0, 5]), st.sampled_from([0, 0, 0, 4]), transport, payload,
)  # fmt: skip
extension = st.sampled_from([None, None, IPv6ExtHdrHopByHop(), IPv6ExtHdrFragment(), IPv6ExtHdrFragment(offset=3)])
ipv6 = st.builds(
    lambda src, dst, tc, between, up, data: (
        IPv6(src=src, dst=dst, tc=tc) / between / up / data if between else IPv6(src=src, dst=dst, tc=tc) / up / data
    ),
    st.ip_addresses(v=6).map(str), st.ip_addresses(v=6).map(str), st.integers(0, 255), extension, transport, payload,
)  # fmt: skip
frame = st.builds(
    lambda vlan, packet, padding: bytes(ETHER / Dot1Q(vlan=3) / packet if vlan else ETHER / packet) + bytes(padding),
    st.sampled_from([False, False, True]), st.one_of(ipv4, ipv4, ipv6, st.just(ARP())), st.sampled_from([0, 0, 6]),
)  # fmt: skip


def assert_as_one_by_one(folder: Path, records: list[Record], link_type: int = 1) -> None:
    got = read_bytes(folder, pcap_bytes(records, link_type=link_type))
    one_by_one = [odd.decode(data, wire, link_type) for data, wire, _ in records]
    assert len(got.frame) == len(records)
    for name in headers.COLUMNS.keys() - {"time_ns", "wire_bytes"}:
        expected = np.array([packet.values.get(name, 0) for packet in one_by_one])
        wrong = np.flatnonzero(got.frame[name].to_numpy() != expected)
        assert not len(wrong), f"{name} of {records[wrong[0]][0].hex()}, captured of {records[wrong[0]][1]} bytes"
    assert got.counts["cut"] == sum(packet.cut for packet in one_by_one)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(frames=st.lists(frame, min_size=1, max_size=6), snap=st.one_of(st.just(128), st.integers(1, 130)))
def test_decodes_many_as_one(tmp_path_factory: pytest.TempPathFactory, frames: list[bytes], snap: int) -> None:
    folder = tmp_path_factory.mktemp("scapy")
    assert_as_one_by_one(folder, [(data[:snap], len(data), T0_NS) for data in frames])


def test_every_snap_length_as_one(tmp_path: Path) -> None:
    two_blocks = ("SAck", (8000, 9000, 7000, 10000))
    packets = [*SAMPLE, tcp_packet(options=[two_blocks]), tcp_packet(options=[*TIMESTAMPS, two_blocks])]
    assert_as_one_by_one(tmp_path, [record for snap in range(1, 100) for record in records_of(packets, snap)])


def test_broken_headers_as_one(tmp_path: Path) -> None:
    records = []
    for data, wire, time_ns in records_of([SAMPLE[1], SAMPLE[6]]):
        for at in (12, 13, 14, 16, 17, 20, 21, 23, 46, 47):  # type, version, lengths, fragment, protocol, offset, flags
            for value in range(0, 256, 1 if at in (14, 17, 46) else 7):
                records.append((data[:at] + bytes([value]) + data[at + 1 :], max(wire, at + 1), time_ns))
    assert_as_one_by_one(tmp_path, records)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.binary(min_size=1, max_size=120), options=st.binary(max_size=40))
def test_no_bytes_are_too_strange(tmp_path_factory: pytest.TempPathFactory, data: bytes, options: bytes) -> None:
    header = bytes(ETHER / IP(len=1000) / TCP(dataofs=15))[:54]
    records = [(data, 2000, T0_NS), (header + options, 2000, T0_NS)]
    for link_type in (1, 101, 113, 147):
        capture = read_bytes(tmp_path_factory.mktemp("strange"), pcap_bytes(records, link_type=link_type))
        assert len(capture.frame) == 2


# Sequence numbers, SACK and DSACK


@pytest.mark.parametrize(
    ("ack", "blocks", "dsack"),
    [
        (5000, (6000, 7000), False),
        (5000, (3000, 4000), True),  # below the ack (RFC 2883, 4.1)
        (5000, (8000, 9000, 7000, 10000), True),  # inside the second block
        (5000, (7000, 10000, 8000, 9000), False),
        (100, (2**32 - 1000, 2**32 - 500), True),  # below, across the wrap
        (2**32 - 100, (500, 600), False),  # above, across the wrap
        (100, (2**32 - 10, 20), True),
    ],
)
def test_dsack(tmp_path: Path, ack: int, blocks: tuple[int, ...], dsack: bool) -> None:
    for options in ([("SAck", blocks)], [*TIMESTAMPS, ("NOP", None), ("NOP", None), ("SAck", blocks)]):
        for wrapped in (tcp_packet(0, ack=ack, options=options), tcp_packet(0, ack=ack, options=options) / b"data"):
            tagged = ETHER / Dot1Q() / wrapped[IP]
            frame = read_bytes(tmp_path, pcap_bytes(records_of([wrapped, tagged]))).frame
            assert frame["dsack"].tolist() == [dsack, dsack]
            assert frame["sack_start"].tolist() == [blocks[0]] * 2


def test_a_segment_larger_than_an_ip_length_can_say(tmp_path: Path) -> None:
    data = bytearray(bytes(tcp_packet(0)))
    data[16:18] = b"\0\0"  # as the sending host captures a 100,000 byte segment before it is cut up
    frame = read_bytes(tmp_path, pcap_bytes([(bytes(data), 66 + 100_000, T0_NS)])).frame
    assert frame["payload_bytes"].tolist() == [100_000]


def test_padding_of_short_frames_is_not_payload(tmp_path: Path) -> None:
    short = bytes(ETHER / IP(src="10.0.0.1", dst="10.1.0.1") / TCP()).ljust(60, b"\0")
    frame = read_bytes(tmp_path, pcap_bytes([(short, 60, T0_NS)])).frame
    assert (frame["payload_bytes"].tolist(), frame["wire_bytes"].tolist()) == ([0], [60])


def test_ipv6_addresses_have_labels_that_keep_them_apart(tmp_path: Path) -> None:
    packets = [ETHER / IPv6(src=f"fd00::{n}", dst="fd00::ffff") / TCP(sport=1, dport=2) for n in range(1, 51)]
    capture = read_bytes(tmp_path, pcap_bytes(records_of(packets)))
    assert capture.frame["src_ip"].nunique() == 50
    assert capture.frame["src_ip"].min() >= 240 << 24  # 240.0.0.0/4
    assert [capture.ipv6_addresses[label] for label in capture.frame["src_ip"]] == [f"fd00::{n}" for n in range(1, 51)]
    assert len({odd.ipv6_label(number.to_bytes(16)) for number in range(5000)}) == 5000
    again = read_bytes(tmp_path, pcap_bytes(records_of(packets[7:8])))
    assert again.frame["src_ip"].iloc[0] == capture.frame["src_ip"].iloc[7]


# Many packets


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunks_leave_no_seams(
    tmp_path: Path, reference: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(decode, "CHUNK_RECORDS", chunk)
    same_frames(read_bytes(tmp_path, pcap_bytes(records_of(SAMPLE))).frame, reference)
    same_frames(read_bytes(tmp_path, pcapng_bytes(records_of(SAMPLE))).frame, reference)


def test_join_keeps_links_apart(tmp_path: Path) -> None:
    path = tmp_path / "one.pcap"
    path.write_bytes(pcap_bytes(records_of(SAMPLE))[:-1])
    joined = join(read_capture(path, link, "up") for link in ("leaf1-spine1", "leaf1-spine2"))
    assert joined.frame["link"].value_counts().to_dict() == {"leaf1-spine1": 6, "leaf1-spine2": 6}
    assert str(joined.frame["link"].dtype) == "category"
    assert (len(joined.problems), joined.counts["packets"]) == (2, 12)
