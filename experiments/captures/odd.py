"""Headers of one packet of any layout: other link types, tags, IPv4 options, IPv6. One at a time, where it is odd."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import numpy as np

from experiments.captures.headers import (
    ETHERNET,
    IPV4_TYPE,
    IPV6_TYPE,
    MAX_PAYLOAD_BYTES,
    MPLS_TYPES,
    PPPOE_TYPE,
    TCP,
    UDP,
    VLAN_TYPES,
    is_dsack,
)

TYPED = {ETHERNET: (12, 14), 113: (14, 16), 276: (0, 20)}  # Ethernet, Linux's cooked ones: where the type is, the end
RAW_IP = {12: (4, 6), 14: (4, 6), 101: (4, 6), 228: (4,), 229: (6,)}  # IP versions
LOOPBACK = (0, 108)  # a number of the address family, in either byte order
FAMILIES = {2: (4,), 10: (6,), 24: (6,), 28: (6,), 30: (6,)}  # IPv6 has another one on every system
PPP_PROTOCOLS = {0x0021: (4,), 0x0057: (6,)}
TYPES = {IPV4_TYPE: (4,), IPV6_TYPE: (6,)}

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60  # what Linux too looks behind
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION)


@dataclass
class OddPacket:
    """What there is in a packet."""

    values: dict[str, int] = field(default_factory=dict)  # by column; those absent are 0
    ipv6_addresses: dict[int, str] = field(default_factory=dict)  # by label
    cut: bool = False  # captured too short to hold all its headers
    contradictory: bool = False  # a version, size or length that cannot be


def knows(link_type: int) -> bool:
    """Return whether packets of this LINKTYPE_ value can be decoded."""
    return link_type in TYPED or link_type in RAW_IP or link_type in LOOPBACK or link_type in _scapy()[0].l2types


def ipv6_label(packed: bytes) -> int:
    """Return a number that stands for an IPv6 address among IPv4 ones: in 240.0.0.0/4, which no host may use.

    An address has the same label in every capture, so flows stay apart and packets match across captures.
    """
    return 0xF0000000 | int.from_bytes(hashlib.blake2s(packed, digest_size=4).digest()) >> 4


def decode(packet: bytes, wire_bytes: int, link_type: int) -> OddPacket:
    """Decode `packet`, the captured part of a frame of `wire_bytes`, by the same rules as headers.decode.

    The outermost IP header counts: what is in a tunnel, or quoted in a message, is payload.
    """
    odd = OddPacket()
    try:
        at, versions = _network(packet, link_type)
        if versions:
            _ip(packet, at, wire_bytes, versions, odd)
    except IndexError:  # beyond what was captured
        odd.cut = len(packet) < wire_bytes
    return odd


def _number(packet: bytes, at: int, size: int) -> int:
    """Of `size` bytes in network order. Raises IndexError where they were not captured."""
    if at + size > len(packet):
        raise IndexError
    return int.from_bytes(packet[at : at + size])


def _network(packet: bytes, link_type: int) -> tuple[int, tuple[int, ...]]:
    """Where the network layer starts, and the IP versions it may have, none if it is something else."""
    if not packet:
        raise IndexError
    if link_type in RAW_IP:
        return 0, RAW_IP[link_type]
    if link_type in LOOPBACK:
        family = _number(packet, 0, 4)
        return 4, FAMILIES.get(family, ()) or FAMILIES.get(int.from_bytes(packet[:4], "little"), ())
    if link_type not in TYPED:
        return _network_by_scapy(packet, link_type)
    type_at, at = TYPED[link_type]
    kind = _number(packet, type_at, 2)
    while kind in VLAN_TYPES:
        kind = _number(packet, at + 2, 2)
        at += 4
    if kind == PPPOE_TYPE:
        return at + 8, PPP_PROTOCOLS.get(_number(packet, at + 6, 2), ())
    if kind in MPLS_TYPES:
        while not _number(packet, at, 4) & 0x100:  # the bottom of the stack
            at += 4
        at += 4
        return at, (4, 6) if _number(packet, at, 1) >> 4 in (4, 6) else ()  # no label says what it carries
    return at, TYPES.get(kind, ())


@cache
def _scapy() -> tuple[Any, Any, Any]:
    """Scapy's modules, imported when first needed: that takes most of a second."""
    from scapy.config import conf
    from scapy.layers import inet, inet6, l2  # noqa: F401 (l2 registers link types)

    return conf, inet, inet6


def _network_by_scapy(packet: bytes, link_type: int) -> tuple[int, tuple[int, ...]]:
    """As `_network`, for link types that are not expected here."""
    conf, inet, inet6 = _scapy()
    try:
        layer = conf.l2types[link_type](packet)
        while layer and not isinstance(layer, (inet.IP, inet6.IPv6)):
            layer = layer.payload
        return (len(packet) - len(layer.original), (4, 6)) if layer else (0, ())
    except Exception:  # scapy has no common exception for a header that makes no sense
        return 0, ()


def _ip(packet: bytes, at: int, wire_bytes: int, versions: tuple[int, ...], odd: OddPacket) -> None:
    """Fill `odd` from the IP header at byte `at`. Raises IndexError where something was not captured."""
    version, header_words = divmod(_number(packet, at, 1), 16)
    if version not in versions or (version == 4 and header_words < 5):
        odd.contradictory = True
        return
    if version == 4:
        tos, length, protocol, later = _ipv4(packet, at, odd)
        transport_at, length = at + header_words * 4, length if length >= 20 else 0
    else:
        tos, length, protocol = _ipv6(packet, at, odd)
        transport_at, later = at + 40, False
    end = min(at + length, wire_bytes) if length else wire_bytes
    odd.contradictory = at + length > wire_bytes
    odd.values |= {"ip_version": version, "dscp": tos >> 2, "protocol": protocol}
    while version == 6 and protocol in EXTENSIONS and not later and transport_at + 8 <= end:
        if protocol == FRAGMENT:
            later = _number(packet, transport_at + 2, 2) >> 3 > 0
            words = 2
        else:
            words = _number(packet, transport_at + 1, 1)
            words = words + 2 if protocol == AUTHENTICATION else (words + 1) * 2
        odd.values["protocol"] = protocol = _number(packet, transport_at, 1)
        transport_at += words * 4
    if not later:
        _transport(packet, transport_at, end, protocol, odd)
    elif transport_at > len(packet):
        raise IndexError


def _ipv4(packet: bytes, at: int, odd: OddPacket) -> tuple[int, int, int, bool]:
    """Type of service, length, protocol, and whether it is a later fragment, which has no ports."""
    _number(packet, at, 20)
    odd.values |= {"ip_id": _number(packet, at + 4, 2)}
    odd.values |= {"src_ip": _number(packet, at + 12, 4), "dst_ip": _number(packet, at + 16, 4)}
    fragment = _number(packet, at + 6, 2) & 0x1FFF
    return packet[at + 1], _number(packet, at + 2, 2), packet[at + 9], fragment > 0


def _ipv6(packet: bytes, at: int, odd: OddPacket) -> tuple[int, int, int]:
    """Traffic class, length (0: not given, as in a jumbogram, RFC 2675), next header."""
    first, payload_bytes = _number(packet, at, 40) >> 288, _number(packet, at + 4, 2)
    for name, skip in (("src_ip", 8), ("dst_ip", 24)):
        label, text = _labelled(packet[at + skip : at + skip + 16])
        odd.values[name] = label
        odd.ipv6_addresses[label] = text
    return first >> 20 & 0xFF, payload_bytes + 40 if payload_bytes else 0, packet[at + 6]


@lru_cache(maxsize=65_536)
def _labelled(packed: bytes) -> tuple[int, str]:
    return ipv6_label(packed), socket.inet_ntop(socket.AF_INET6, packed)


def _transport(packet: bytes, at: int, end: int, protocol: int, odd: OddPacket) -> None:
    """Fill `odd` from the transport header at byte `at` of a packet that ends before byte `end` of its frame."""
    least_bytes = {TCP: 20, UDP: 8}.get(protocol, 0)
    if at + least_bytes > min(end, len(packet)):
        if min(at + least_bytes, end) > len(packet):
            raise IndexError
        return
    if protocol == TCP:
        header_bytes = (packet[at + 12] >> 4) * 4
        if header_bytes < 20:
            odd.contradictory = True
            return
        payload_bytes = min(max(end - at - header_bytes, 0), MAX_PAYLOAD_BYTES)
        odd.values |= _tcp(packet, at, min(at + header_bytes, end)) | {"payload_bytes": payload_bytes}
        least_bytes = header_bytes
    if least_bytes:
        odd.values |= {"src_port": _number(packet, at, 2), "dst_port": _number(packet, at + 2, 2)}
    if min(at + least_bytes, end) > len(packet):
        raise IndexError


def _tcp(packet: bytes, at: int, options_end: int) -> dict[str, int]:
    seq, ack = _number(packet, at + 4, 4), _number(packet, at + 8, 4)
    values = {"is_tcp": 1, "seq": seq, "ack": ack, "tcp_flags": packet[at + 13]}
    for kind, length, value in _options(packet[at + 20 : options_end]):
        if kind == 8 and length == 10 and len(value) == 8:
            values |= {"ts_val": _number(value, 0, 4), "ts_ecr": _number(value, 4, 4)}
        elif kind == 5 and len(value) >= 8:
            edges = [_number(value, 4 * number, 4) for number in range(min(len(value) // 8, 2) * 2)]
            start, stop, *second = (np.array([edge], np.uint32) for edge in (*edges, 0, 0))
            has_second = np.array([len(edges) == 4])
            dsack = is_dsack(np.array([ack], np.uint32), start, stop, second[0], second[1], has_second)
            values |= {"sack_start": edges[0], "sack_end": edges[1], "dsack": int(dsack[0])}
    return values


def _options(options: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, length and value of each option (RFC 9293, 3.2), as far as captured; none from a malformed one on."""
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2:
            return
        yield options[at], length, options[at + 2 : at + length]
        at += length
