"""Headers of one packet by scapy: the reference for the vectorised decoding, and the way for any odd layout."""

from __future__ import annotations

import hashlib
import socket
import struct
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from experiments.captures.headers import MAX_PAYLOAD_BYTES, SCAPY_TYPES, TCP, UDP, is_dsack


@dataclass
class OddPacket:
    """What scapy made of a packet."""

    values: dict[str, int] = field(default_factory=dict)  # by column; those absent are 0
    ipv6_addresses: dict[int, str] = field(default_factory=dict)  # by label
    cut: bool = False  # captured too short to hold all its headers


@cache
def _scapy() -> Any:
    """scapy's modules, imported when first needed: that takes most of a second."""
    from scapy import packet
    from scapy.config import conf
    from scapy.layers import inet, inet6, l2  # noqa: F401 (l2 registers link types)

    return conf, packet, inet, inet6


def knows(link_type: int) -> bool:
    """Whether scapy can decode packets of this LINKTYPE_ value."""
    conf, *_ = _scapy()
    return link_type in conf.l2types


def ipv6_label(packed: bytes) -> int:
    """A number that stands for an IPv6 address among IPv4 ones: in 240.0.0.0/4, which no host may use.

    An address has the same label in every capture, so flows stay apart and packets match across captures.
    """
    return 0xF0000000 | int.from_bytes(hashlib.blake2s(packed, digest_size=4).digest()) >> 4


def decode(packet: bytes, wire_bytes: int, link_type: int) -> OddPacket:
    """Decode `packet`, the captured part of a frame of `wire_bytes`, by the same rules as headers.decode."""
    conf, packets, inet, inet6 = _scapy()
    short = len(packet) < wire_bytes
    try:
        layer = conf.l2types[link_type](packet)
    except Exception:  # scapy has no common exception for a header that makes no sense
        return OddPacket(cut=short)
    while not isinstance(layer, (inet.IP, inet6.IPv6)):
        outer, layer = layer, layer.payload
        if isinstance(layer, (packets.Raw, packets.NoPayload, packets.Padding)):
            promised = getattr(outer, "type", getattr(outer, "proto", None))
            return OddPacket(cut=short and promised in SCAPY_TYPES)
    ip_at = len(packet) - len(layer.original)
    if isinstance(layer, inet6.IPv6):
        odd, transport, transport_at, ip_bytes, fragment = _ipv6(layer, ip_at)
    elif layer.version == 4 and layer.ihl >= 5:
        odd, transport, transport_at, ip_bytes, fragment = _ipv4(layer, ip_at)
    else:
        return OddPacket()
    ip_end = ip_at + ip_bytes if ip_bytes else wire_bytes

    needed_bytes = 0 if fragment else {TCP: 20, UDP: 8}.get(odd.values["protocol"], 0)
    is_tcp = isinstance(transport, inet.TCP) and not fragment
    if is_tcp:
        needed_bytes = transport.dataofs * 4
        is_tcp = needed_bytes >= 20
    if is_tcp or (isinstance(transport, inet.UDP) and not fragment):
        odd.values |= {"src_port": transport.sport, "dst_port": transport.dport}
    if is_tcp:
        payload_bytes = ip_end - transport_at - needed_bytes
        odd.values |= _tcp(transport) | {"payload_bytes": min(max(payload_bytes, 0), MAX_PAYLOAD_BYTES)}
    odd.cut = short and len(packet) < min(transport_at + needed_bytes, ip_end)
    return odd


def _ipv4(ip: Any, ip_at: int) -> tuple[OddPacket, Any, int, int, bool]:
    """Values, the transport layer, where it starts, the IP length (0: not given), whether it is a later fragment."""
    addresses = (int.from_bytes(socket.inet_aton(text)) for text in (ip.src, ip.dst))
    values = dict(zip(("src_ip", "dst_ip"), addresses, strict=True))
    values |= {"ip_version": 4, "protocol": ip.proto, "dscp": ip.tos >> 2, "ip_id": ip.id}
    return OddPacket(values), ip.payload, ip_at + ip.ihl * 4, ip.len if ip.len >= 20 else 0, ip.frag > 0


def _ipv6(ip: Any, ip_at: int) -> tuple[OddPacket, Any, int, int, bool]:
    """As `_ipv4`, past the extension headers."""
    protocol, transport, fragment = ip.nh, ip.payload, False
    while hasattr(transport, "nh") and not isinstance(transport, type(ip)):  # not into a tunnel
        fragment |= getattr(transport, "offset", 0) > 0
        protocol, transport = transport.nh, transport.payload
    packed = [socket.inet_pton(socket.AF_INET6, text) for text in (ip.src, ip.dst)]
    labels = [ipv6_label(each) for each in packed]
    values = {"ip_version": 6, "protocol": protocol, "dscp": ip.tc >> 2, "src_ip": labels[0], "dst_ip": labels[1]}
    extension_bytes = len(ip.payload.original) - len(transport.original)
    odd = OddPacket(values, dict(zip(labels, (ip.src, ip.dst), strict=True)))
    return odd, transport, ip_at + 40 + extension_bytes, ip.plen + 40 if ip.plen else 0, fragment


def _tcp(tcp: Any) -> dict[str, int]:
    values = {"is_tcp": 1, "seq": tcp.seq, "ack": tcp.ack, "tcp_flags": int(tcp.flags) & 0xFF}
    for name, value in tcp.options:
        if name == "Timestamp" and isinstance(value, tuple):
            values |= {"ts_val": value[0], "ts_ecr": value[1]}
        elif name == "SAck" and not isinstance(value, int):  # a number: cut after the first edge
            if isinstance(value, bytes):  # cut within an edge
                value = struct.unpack(f"!{len(value) // 4}I", value[: len(value) // 4 * 4])
            if len(value) >= 2:
                ack, start, end, *second = (np.array([edge], np.uint32) for edge in (tcp.ack, *value, 0, 0))
                dsack = is_dsack(ack, start, end, second[0], second[1], np.array([len(value) >= 4]))
                values |= {"sack_start": value[0], "sack_end": value[1], "dsack": int(dsack[0])}
    return values
