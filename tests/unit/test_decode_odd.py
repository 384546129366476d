"""Layouts that are not the common one: of headers in headers the outermost count, an odd packet costs one packet."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pandas as pd
import pytest
from capture_files import (
    ETHER,
    SAMPLE,
    T0_NS,
    block,
    enhanced,
    interface,
    pcap_bytes,
    read_bytes,
    records_of,
    section,
    tcp_packet,
)
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
)
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

OUTER4, OUTER6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
INNER4 = IP(src="192.168.0.1", dst="192.168.0.2") / TCP(sport=1, dport=2, seq=3) / Raw(b"inner")
INNER6 = IPv6(src="fd01::1", dst="fd01::2") / TCP(sport=1, dport=2, seq=3) / Raw(b"inner")
SEGMENT = TCP(sport=5001, dport=40000, seq=7, ack=9, flags="A") / Raw(b"x" * 100)
GRE_PROTOCOL, ICMP_PROTOCOL, ICMPV6, IPIP, IPV6_IN_IP = 47, 1, 58, 4, 41


def one(folder: Path, packet: Packet | bytes, wire_bytes: int | None = None, link_type: int = 1) -> pd.Series:
    data = bytes(packet)
    capture = read_bytes(folder, pcap_bytes([(data, wire_bytes or len(data), T0_NS)], link_type=link_type))
    assert len(capture.frame) == 1
    return capture.frame.iloc[0]


def sent_by(packet: pd.Series, version: int) -> bool:
    """Whether its addresses are those of the outermost header."""
    if version == 4:
        return [packet["src_ip"], packet["dst_ip"]] == [10 << 24 | 1, 10 << 24 | 2]
    return packet["src_ip"] >= 240 << 24 and packet["src_ip"] != packet["dst_ip"]


@pytest.mark.parametrize(
    ("packet", "version", "protocol"),
    [
        (OUTER4 / GRE() / INNER4, 4, GRE_PROTOCOL),
        (OUTER4 / INNER4, 4, IPIP),
        (OUTER4 / INNER6, 4, IPV6_IN_IP),
        (OUTER4 / ICMP(type=3, code=4) / INNER4, 4, ICMP_PROTOCOL),
        (OUTER6 / GRE() / INNER6, 6, GRE_PROTOCOL),
        (OUTER6 / INNER4, 6, IPIP),
        (OUTER6 / INNER6, 6, IPV6_IN_IP),
        (OUTER6 / ICMPv6PacketTooBig(mtu=1280) / INNER6, 6, ICMPV6),
        (OUTER6 / IPv6ExtHdrHopByHop() / ICMPv6PacketTooBig() / INNER6, 6, ICMPV6),
        (OUTER6 / IPv6ExtHdrDestOpt() / GRE() / INNER4, 6, GRE_PROTOCOL),
    ],
)
def test_what_a_packet_carries_is_not_the_packet(tmp_path: Path, packet: Packet, version: int, protocol: int) -> None:
    got = one(tmp_path, ETHER / packet)
    assert (got["ip_version"], got["protocol"], got["is_tcp"]) == (version, protocol, False)
    assert sent_by(got, version)
    assert (got["src_port"], got["seq"], got["payload_bytes"]) == (0, 0, 0)


def test_the_ports_of_a_vxlan_are_its_own(tmp_path: Path) -> None:
    got = one(tmp_path, ETHER / OUTER4 / UDP(sport=49152) / VXLAN(vni=7) / Ether() / INNER4)
    assert (got["protocol"], got["src_port"], got["dst_port"], got["is_tcp"]) == (17, 49152, 4789, False)


@pytest.mark.parametrize(
    "between",
    [
        IPv6ExtHdrHopByHop(),
        IPv6ExtHdrDestOpt(),
        IPv6ExtHdrRouting(addresses=["fd00::9"]),
        IPv6ExtHdrFragment(offset=0, m=1),
        IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(addresses=["fd00::8", "fd00::9"]) / IPv6ExtHdrDestOpt(),
    ],
)
def test_what_follows_extension_headers_is_found(tmp_path: Path, between: Packet) -> None:
    got = one(tmp_path, ETHER / OUTER6 / between / SEGMENT)
    assert (got["protocol"], got["is_tcp"], got["seq"], got["payload_bytes"]) == (6, True, 7, 100)
    assert (got["src_port"], got["dst_port"]) == (5001, 40000)


def test_a_later_fragment_has_no_ports(tmp_path: Path) -> None:
    got = one(tmp_path, ETHER / OUTER6 / IPv6ExtHdrFragment(offset=8, nh=6) / Raw(b"x" * 64))
    assert (got["protocol"], got["is_tcp"], got["src_port"], got["wire_bytes"]) == (6, False, 0, 14 + 40 + 8 + 64)


@pytest.mark.parametrize("between", [None, IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70028)])])
@pytest.mark.parametrize("snap", [100, 70200])
def test_a_segment_of_big_tcp_over_ipv6(tmp_path: Path, between: Packet | None, snap: int) -> None:
    """Linux sends more than 65,535 bytes with a hop-by-hop header or, captured before it is added, without."""
    segment = TCP(sport=5001, dport=40000, seq=7, flags="A") / Raw(bytes(70_000))
    headers = IPv6(src="fd00::1", dst="fd00::2", plen=0)
    data = bytes(ETHER / headers / between / segment if between else ETHER / IPv6(bytes(headers / segment)))
    data = data[:18] + b"\0\0" + data[20:]
    got = one(tmp_path, data[:snap], len(data))
    assert (got["is_tcp"], got["payload_bytes"], got["wire_bytes"]) == (True, 70_000, len(data))


@pytest.mark.parametrize(
    ("link_type", "head", "packet"),
    [
        (1, Ether() / Dot1Q(vlan=3) / Dot1Q(vlan=4), OUTER6 / SEGMENT),
        (1, Ether(type=0x8847) / MPLS(label=16, s=0) / MPLS(label=17, s=1), OUTER4 / SEGMENT),
        (1, Ether() / PPPoE() / PPP(), OUTER4 / SEGMENT),
        (12, b"", OUTER4 / SEGMENT),
        (101, b"", OUTER6 / SEGMENT),
        (228, b"", OUTER4 / SEGMENT),
        (229, b"", OUTER6 / SEGMENT),
        (0, struct.pack("<I", socket.AF_INET), OUTER4 / SEGMENT),
        (108, struct.pack(">I", 24), OUTER6 / SEGMENT),
        (113, struct.pack(">HHH8sH", 0, 1, 6, b"", 0x0800), OUTER4 / SEGMENT),
        (276, struct.pack(">HHIHBB8s", 0x86DD, 0, 1, 1, 0, 6, b""), OUTER6 / SEGMENT),
    ],
)
def test_link_types_and_tags(tmp_path: Path, link_type: int, head: Packet | bytes, packet: Packet) -> None:
    joined = head + bytes(packet) if isinstance(head, bytes) else bytes(head / packet)
    got = one(tmp_path, joined, link_type=link_type)
    assert (got["is_tcp"], got["seq"], got["ack"], got["payload_bytes"]) == (True, 7, 9, 100)
    assert (got["src_port"], got["dst_port"]) == (5001, 40000)
    assert sent_by(got, packet.version)


@pytest.mark.parametrize("link_type", [0, 1, 12, 14, 101, 108, 113, 147, 228, 229, 276])
def test_packets_without_a_byte(tmp_path: Path, link_type: int) -> None:
    """In both formats, with a wire length and without; the packets beside them are as ever."""
    for wire in (0, 40):
        capture = read_bytes(tmp_path, pcap_bytes([(b"", wire, T0_NS)] * 3, link_type=link_type))
        assert capture.frame[["wire_bytes", "ip_version"]].to_numpy().tolist() == [[wire, 0]] * 3
        data = section(">") + interface(">", link_type=link_type)
        data += enhanced(">", (b"", wire, 0), T0_NS // 1000) + block(">", 3, struct.pack(">I", 0) + bytes(20))
        assert read_bytes(tmp_path, data).frame.wire_bytes.tolist() == [wire, 0]


HOSTILE = [
    ETHER / IPv6(src="::1", dst="::2", nh=0) / Raw(b"\x06\xff"),  # an extension header longer than the packet
    ETHER / IPv6(src="::1", dst="::2", nh=43),  # that ends where an extension header should begin
    ETHER / IPv6(src="::1", dst="::2", plen=65535) / SEGMENT,  # longer than the frame
    ETHER / OUTER6 / GRE(chksum_present=1, routing_present=1) / Raw(b"\xff" * 3),
    Ether(type=0x8847) / MPLS(label=1, s=0),  # no bottom of the stack
    Ether(type=0x8864) / Raw(b"\x11"),
    Ether(type=0x8100),
    Ether(type=0x86DD) / Raw(b"\x45" + bytes(60)),  # IPv4 by its own account
    Ether(type=0x0800) / Raw(b"\x41" + bytes(60)),  # a header of 4 bytes
    ETHER / IP(src="10.0.0.1", dst="10.0.0.2", len=60000) / SEGMENT,
    ETHER / OUTER6 / TCP(dataofs=1) / Raw(b"abc"),
]


def test_an_odd_packet_costs_one_packet(tmp_path: Path) -> None:
    for hostile in HOSTILE:
        capture = read_bytes(tmp_path, pcap_bytes(records_of([SAMPLE[0], hostile, SAMPLE[0]])))
        assert capture.frame.seq.iloc[[0, 2]].tolist() == [1000, 1000]
        assert capture.frame.payload_bytes.iloc[[0, 2]].tolist() == [1000, 1000]
        assert capture.frame.wire_bytes.iloc[1] == len(hostile)


@pytest.mark.parametrize("number", [2, 7, 8, 9, 10])
def test_a_header_that_cannot_be_is_counted(tmp_path: Path, number: int) -> None:
    capture = read_bytes(tmp_path, pcap_bytes(records_of([SAMPLE[0], HOSTILE[number], SAMPLE[0]])))
    assert capture.counts["contradictory"] == 1
    assert "1 of 3 packets have headers that cannot be" in " ".join(capture.problems)


def test_a_packet_longer_than_its_frame_has_the_payload_that_came(tmp_path: Path) -> None:
    for outer in (IP(src="10.0.0.1", dst="10.0.0.2", len=60000), IPv6(src="::1", dst="::2", plen=60000)):
        assert one(tmp_path, ETHER / outer / SEGMENT)["payload_bytes"] == 100


@pytest.mark.parametrize("packet", [tcp_packet(), ETHER / Dot1Q() / tcp_packet()[IP], ETHER / OUTER6 / SEGMENT])
def test_fields_as_scapy_dissects_them(tmp_path: Path, packet: Packet) -> None:
    got, tcp = one(tmp_path, packet), Ether(bytes(packet))[TCP]
    for column, value in {
        "src_port": tcp.sport, "dst_port": tcp.dport, "seq": tcp.seq, "ack": tcp.ack, "tcp_flags": int(tcp.flags),
        "payload_bytes": len(tcp.payload),
    }.items():  # fmt: skip
        assert got[column] == value
