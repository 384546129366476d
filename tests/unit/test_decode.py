"""Captures become frames: every format, every header, damage and all, the same as scapy reads them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import PcapNgWriter, PcapWriter

from experiments.captures import decode, headers, odd
from experiments.captures.decode import CaptureError, join, read_capture

T0_NS = 1_700_000_000_123_456_000


def tcp_packet(payload: int = 1000, **fields: object) -> Packet:
    values = {"sport": 40001, "dport": 5001, "seq": 1000, "ack": 1, "flags": "A", "options": TIMESTAMPS} | fields
    return Ether() / IP(src="10.0.0.1", dst="10.1.0.1", tos=3 << 2, id=77) / TCP(**values) / Raw(b"x" * payload)


TIMESTAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (123456, 654321))]
SAMPLE = [
    tcp_packet(),
    tcp_packet(0, seq=2000, options=[*TIMESTAMPS, ("NOP", None), ("NOP", None), ("SAck", (3000, 4000))], ack=2000),
    tcp_packet(0, flags="S", options=[("MSS", 8960), ("SAckOK", b""), ("Timestamp", (5, 0)), ("NOP", None), ("WScale", 7)]),
    Ether() / ARP(),
    Ether() / IPv6(src="fe80::1", dst="ff02::2", tc=4 << 2) / UDP(sport=1, dport=2) / b"hello",
    Ether() / Dot1Q(vlan=5) / IP(src="10.0.0.9", dst="10.0.0.8") / TCP(sport=5, dport=6, seq=7),
    Ether() / IP(src="10.0.0.1", dst="10.1.0.1") / UDP(sport=53, dport=54) / b"abc",
]
Record = tuple[bytes, int, int]  # captured part, wire length, time in ns


def records_of(packets: list[Packet], snap: int = 65535) -> list[Record]:
    raw = [bytes(packet) for packet in packets]
    return [(each[:snap], len(each), T0_NS + 1000 * number) for number, each in enumerate(raw)]


def pcap_bytes(records: list[Record], order: str = "<", nanoseconds: bool = False, link_type: int = 1) -> bytes:
    unit = 1 if nanoseconds else 1000
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)
    for data, wire, time_ns in records:
        seconds, rest = divmod(time_ns, 10**9)
        out += struct.pack(order + "IIII", seconds, rest // unit, len(data), wire) + data
    return out


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    total = len(body) + 12
    return struct.pack(order + "II", kind, total) + body + struct.pack(order + "I", total)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, resolution: int | None = None, offset_s: int = 0, link_type: int = 1, snap: int = 0) -> bytes:
    options = b""
    if resolution is not None:
        options += struct.pack(order + "HHB3x", 9, 1, resolution)
    if offset_s:
        options += struct.pack(order + "HHq", 14, 8, offset_s)
    return block(order, 1, struct.pack(order + "HHI", link_type, 0, snap) + options + bytes(4))


def enhanced(order: str, record: Record, ticks: int, number: int = 0) -> bytes:
    data, wire, _ = record
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wire)
    return block(order, 6, head + data)


def pcapng_bytes(records: list[Record], order: str = "<", resolution: int | None = None, ticks_per_s: int = 10**6) -> bytes:
    ticks = (record[2] * ticks_per_s // 10**9 for record in records)
    blocks = [enhanced(order, record, tick) for record, tick in zip(records, ticks, strict=True)]
    return section(order) + interface(order, resolution) + b"".join(blocks)


def read_bytes(folder: Path, data: bytes) -> decode.Capture:
    path = folder / "test.pcap"
    path.write_bytes(data)
    return read_capture(path, link="leaf1-spine1", direction="up")


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
    assert (syn["ts_val"], syn["tcp_flags"], syn["payload_bytes"]) == (5, 2, 0)
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
    tagged = Ether(type=0x0800).build() + records[0][0][14:]  # the same packet, under its Ethernet header
    data = section("<") + interface("<", 9, offset_s=-5) + interface("<", link_type=101)
    data += block("<", 4, bytes(8))  # names, of no interest
    data += enhanced("<", records[0], T0_NS)
    data += enhanced("<", (records[0][0][14:], 1052, 0), T0_NS // 1000, number=1)
    data += section(">") + interface(">", snap=100) + block(">", 3, struct.pack(">I", len(tagged)) + tagged[:100])
    capture = read_bytes(tmp_path, data)
    assert capture.frame["time_ns"].tolist() == [T0_NS - 5 * 10**9, T0_NS, 0]
    assert capture.frame["seq"].tolist() == [1000, 1000, 1000]
    assert capture.frame["wire_bytes"].tolist() == [1066, 1052, 1066]
    assert [problem.split(": ")[1] for problem in capture.problems] == [
        "1 packets carry no time (simple packet blocks)"
    ]


@pytest.mark.parametrize("writer", [PcapWriter, PcapNgWriter])
def test_files_written_by_scapy(tmp_path: Path, reference: pd.DataFrame, writer: type) -> None:
    path = tmp_path / "scapy"
    with writer(str(path)) as file:
        for packet in SAMPLE:
            file.write(packet)
    frame = read_capture(path, "leaf1-spine1", "up").frame
    same_frames(frame.drop(columns="time_ns"), reference.drop(columns="time_ns"))


# The vectorised decoding against scapy's

u16, u32 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
tcp_option = st.one_of(
    st.just(("NOP", None)),
    st.just(("SAckOK", b"")),
    st.tuples(st.just("MSS"), u16),
    st.tuples(st.just("WScale"), st.integers(0, 14)),
    st.tuples(st.just("Timestamp"), st.tuples(u32, u32)),
    st.tuples(st.just("SAck"), st.lists(u32, min_size=2, max_size=8).map(lambda edges: tuple(edges[: len(edges) // 2 * 2]))),
)
tcp_options = st.one_of(st.just(TIMESTAMPS), st.builds(list.__add__, st.just(TIMESTAMPS), st.lists(tcp_option)), st.lists(tcp_option))
tcp = st.builds(
    lambda ports, seq, ack, flags, options: TCP(sport=ports[0], dport=ports[1], seq=seq, ack=ack, flags=flags, options=options),
    st.tuples(u16, u16), u32, u32, st.integers(0, 255), tcp_options.filter(lambda all: len(bytes(TCP(options=all))) <= 60),
)  # fmt: skip
transport = st.one_of(tcp, tcp, st.builds(lambda a, b: UDP(sport=a, dport=b), u16, u16), st.just(ICMP()))
payload = st.integers(0, 120).map(lambda size: Raw(bytes(range(size))))
ipv4 = st.builds(
    lambda src, dst, tos, id, frag, nops, up, data: IP(
        src=src, dst=dst, tos=tos, id=id, frag=frag, flags=int(frag > 0), options=[IPOption_NOP()] * nops
    ) / up / data,
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=4).map(str), st.integers(0, 255), u16,
    st.sampled_from([0, 0, 0, 5]), st.sampled_from([0, 0, 0, 4]), transport, payload,
)  # fmt: skip
extensions = st.sampled_from([(), (), (IPv6ExtHdrHopByHop(),), (IPv6ExtHdrFragment(),), (IPv6ExtHdrFragment(offset=3),)])


def ipv6_packet(src: str, dst: str, tc: int, between: tuple[Packet, ...], up: Packet, data: Packet) -> Packet:
    packet = IPv6(src=src, dst=dst, tc=tc)
    for header in between:
        packet = packet / header
    return packet / up / data


ipv6 = st.builds(
    ipv6_packet, st.ip_addresses(v=6).map(str), st.ip_addresses(v=6).map(str), st.integers(0, 255), extensions, transport, payload
)
frame = st.builds(
    lambda vlan, packet, padding: bytes(Ether() / Dot1Q(vlan=3) / packet if vlan else Ether() / packet) + bytes(padding),
    st.sampled_from([False, False, True]), st.one_of(ipv4, ipv4, ipv6, st.just(ARP())), st.sampled_from([0, 0, 6]),
)  # fmt: skip


def assert_like_scapy(folder: Path, records: list[Record], link_type: int = 1) -> None:
    got = read_bytes(folder, pcap_bytes(records, link_type=link_type)).frame
    for row, (data, wire, _) in enumerate(records):
        expected = dict.fromkeys(headers.COLUMNS, 0) | odd.decode(data, wire, link_type).values
        for name in expected.keys() - {"time_ns", "wire_bytes"}:
            assert int(got[name].iloc[row]) == expected[name], f"{name} of {data.hex()}, {wire} bytes on the wire"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(frames=st.lists(frame, min_size=1, max_size=6), snap=st.one_of(st.just(128), st.integers(1, 130)))
def test_decodes_as_scapy_does(tmp_path_factory: pytest.TempPathFactory, frames: list[bytes], snap: int) -> None:
    folder = tmp_path_factory.mktemp("scapy")
    assert_like_scapy(folder, [(data[:snap], len(data), T0_NS) for data in frames])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=frame, at=st.integers(12, 53), value=st.integers(0, 255))
def test_decodes_broken_headers_as_scapy_does(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, value: int
) -> None:
    broken = bytearray(data.ljust(54, b"\0"))
    broken[at] = value
    assert_like_scapy(tmp_path_factory.mktemp("broken"), [(bytes(broken), len(broken), T0_NS)])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.binary(min_size=1, max_size=120), options=st.binary(max_size=40))
def test_no_bytes_are_too_strange(tmp_path_factory: pytest.TempPathFactory, data: bytes, options: bytes) -> None:
    header = bytes(Ether() / IP(len=1000) / TCP(dataofs=15))[:54]
    records = [(data, 2000, T0_NS), (header + options, 2000, T0_NS)]
    for link_type in (1, 101, 113, 147):
        capture = read_bytes(tmp_path_factory.mktemp("strange"), pcap_bytes(records, link_type=link_type))
        assert len(capture.frame) == 2
