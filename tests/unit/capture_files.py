"""Captures that never took place, byte by byte: packets, and the files of either format that hold them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from experiments.captures.decode import Capture, read_capture

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # given, or scapy asks the network who has the address
T0_NS = 1_700_000_000_123_456_000


def tcp_packet(payload: int = 1000, **fields: Any) -> Packet:
    values: dict[str, Any] = {
        "sport": 40001,
        "dport": 5001,
        "seq": 1000,
        "ack": 1,
        "flags": "A",
        "options": TIMESTAMPS,
    } | fields
    return ETHER / IP(src="10.0.0.1", dst="10.1.0.1", tos=3 << 2, id=77) / TCP(**values) / Raw(b"x" * payload)


TIMESTAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (123456, 654321))]
SAMPLE = [
    tcp_packet(),
    tcp_packet(0, seq=2000, options=[*TIMESTAMPS, ("NOP", None), ("NOP", None), ("SAck", (3000, 4000))], ack=2000),
    tcp_packet(0, flags="S", options=[("MSS", 8960), ("SAckOK", b""), TIMESTAMPS[2], ("NOP", None), ("WScale", 7)]),
    ETHER / ARP(),
    ETHER / IPv6(src="fe80::1", dst="ff02::2", tc=4 << 2) / UDP(sport=1, dport=2) / b"hello",
    ETHER / Dot1Q(vlan=5) / IP(src="10.0.0.9", dst="10.0.0.8") / TCP(sport=5, dport=6, seq=7),
    ETHER / IP(src="10.0.0.1", dst="10.1.0.1") / UDP(sport=53, dport=54) / b"abc",
]
Record = tuple[bytes, int, int]  # captured part, wire length, time in ns


def records_of(packets: Sequence[Packet], snap: int = 65535) -> list[Record]:
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


def pcapng_bytes(
    records: list[Record], order: str = "<", resolution: int | None = None, ticks_per_s: int = 10**6
) -> bytes:
    ticks = (record[2] * ticks_per_s // 10**9 for record in records)
    blocks = [enhanced(order, record, tick) for record, tick in zip(records, ticks, strict=True)]
    return section(order) + interface(order, resolution) + b"".join(blocks)


def read_bytes(folder: Path, data: bytes) -> Capture:
    path = folder / "test.pcap"
    path.write_bytes(data)
    return read_capture(path, link="leaf1-spine1", direction="up")
