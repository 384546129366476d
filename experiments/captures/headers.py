"""Packet headers of the common layout, many at a time: Ethernet, IPv4 without options, TCP with any options, UDP."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from experiments.captures.containers import Bytes, Records, at_every_byte, gather

Columns = dict[str, npt.NDArray[Any]]
"""Header fields by name, one item a packet."""

COLUMNS: dict[str, npt.DTypeLike] = {
    "time_ns": np.int64,
    "wire_bytes": np.uint32,
    "ip_version": np.uint8,
    "protocol": np.uint8,
    "is_tcp": np.bool_,
    "dscp": np.uint8,
    "ip_id": np.uint16,
    "src_ip": np.uint32,
    "dst_ip": np.uint32,
    "src_port": np.uint16,
    "dst_port": np.uint16,
    "seq": np.uint32,
    "ack": np.uint32,
    "payload_bytes": np.int32,
    "tcp_flags": np.uint8,
    "ts_val": np.uint32,
    "ts_ecr": np.uint32,
    "sack_start": np.uint32,
    "sack_end": np.uint32,
    "dsack": np.bool_,
}
MAX_PAYLOAD_BYTES = np.iinfo(np.int32).max

ETHERNET = 1  # LINKTYPE_ETHERNET
TCP, UDP = 6, 17
IPV4_TYPE, IPV6_TYPE, PPPOE_TYPE = 0x0800, 0x86DD, 0x8864
VLAN_TYPES, MPLS_TYPES = (0x8100, 0x88A8, 0x9100), (0x8847, 0x8848)
ODD_TYPES = (IPV4_TYPE, IPV6_TYPE, PPPOE_TYPE, *VLAN_TYPES, *MPLS_TYPES)  # IPv4 here in an odd shape

IP_AT, TRANSPORT_AT, OPTIONS_AT = 14, 34, 54
NOP_NOP_TIMESTAMPS = 0x0101080A  # how Linux starts the options of every segment after the SYN

FIELDS = {  # name: where in the frame, type; network byte order
    "ether_type": (12, ">u2"),
    "version_ihl": (14, "u1"),
    "tos": (15, "u1"),
    "ip_length": (16, ">u2"),
    "ip_id": (18, ">u2"),
    "fragment": (20, ">u2"),
    "protocol": (23, "u1"),
    "src_ip": (26, ">u4"),
    "dst_ip": (30, ">u4"),
    "src_port": (34, ">u2"),
    "dst_port": (36, ">u2"),
    "seq": (38, ">u4"),
    "ack": (42, ">u4"),
    "data_offset": (46, "u1"),
    "tcp_flags": (47, "u1"),
    "first_option": (54, ">u4"),
    "ts_val": (58, ">u4"),
    "ts_ecr": (62, ">u4"),
}
LAYOUT = np.dtype(
    {
        "names": list(FIELDS),
        "offsets": [at for at, _ in FIELDS.values()],
        "formats": [kind for _, kind in FIELDS.values()],
        "itemsize": OPTIONS_AT + 40,
    }
)


class Oddities(NamedTuple):
    """Which packets of a chunk are not as they should be."""

    odd: npt.NDArray[np.bool_]  # of another layout: left to odd.decode
    cut: npt.NDArray[np.bool_]  # captured too short to hold all their headers
    contradictory: npt.NDArray[np.bool_]  # a size or length that cannot be


def decode(data: Bytes, records: Records, columns: Columns) -> Oddities:
    """Fill `columns` (zeroed, one item a record) from the packets of the common layout.

    Fields that a packet does not have, or that were not captured, stay 0. `is_tcp` is set where the 20 bytes of the TCP
    header were there. Bytes beyond the IP length are padding. Where the IP length is no length (0 for a segment larger
    than 65,535 bytes), or more than there was, the frame's length stands in.
    """
    rows = gather(data, records.start, LAYOUT)
    captured = records.captured_bytes
    ethernet = records.link_type == ETHERNET
    typed = ethernet & (captured >= IP_AT)
    ip = typed & (captured >= TRANSPORT_AT) & (rows["ether_type"] == IPV4_TYPE) & (rows["version_ihl"] == 0x45)
    odd = ~ethernet | typed & ~ip & np.isin(rows["ether_type"], ODD_TYPES)

    def fill(name: str, where: npt.NDArray[np.bool_]) -> None:
        np.copyto(columns[name], rows[name], where=where, casting="same_kind")

    given = rows["ip_length"].astype(np.int64)
    carried = records.wire_bytes.astype(np.int64) - IP_AT
    ip_length = np.where(given >= 20, np.minimum(given, carried), carried)
    end = np.minimum(captured, IP_AT + ip_length)
    transport = ip & (rows["fragment"] & 0x1FFF == 0)  # later fragments have no ports
    header_bytes = (rows["data_offset"] >> 4).astype(np.int64) * 4
    tcp = transport & (rows["protocol"] == TCP) & (end >= OPTIONS_AT)
    contradictory = ip & (given > carried) | tcp & (header_bytes < 20)
    tcp &= header_bytes >= 20
    ports = tcp | transport & (rows["protocol"] == UDP) & (end >= TRANSPORT_AT + 8)

    np.copyto(columns["ip_version"], np.uint8(4), where=ip)
    np.copyto(columns["dscp"], rows["tos"] >> 2, where=ip)
    for name in ("protocol", "ip_id", "src_ip", "dst_ip"):
        fill(name, ip)
    for name in ("src_port", "dst_port"):
        fill(name, ports)
    for name in ("seq", "ack", "tcp_flags"):
        fill(name, tcp)
    columns["is_tcp"][:] = tcp
    payload = np.clip(ip_length - 20 - header_bytes, 0, MAX_PAYLOAD_BYTES)
    np.copyto(columns["payload_bytes"], payload, where=tcp, casting="same_kind")

    _fill_options(rows, tcp, np.minimum(end, TRANSPORT_AT + header_bytes), columns)

    tcp_bytes = np.where(captured >= OPTIONS_AT, header_bytes, 20)
    transport_bytes = np.select([rows["protocol"] == TCP, rows["protocol"] == UDP], [tcp_bytes, 8]) * transport
    needed = np.minimum(TRANSPORT_AT + transport_bytes, IP_AT + ip_length)
    short = ethernet & (captured < IP_AT) | ip & (captured < needed)
    return Oddities(odd, short & (captured < records.wire_bytes), contradictory)


def _fill_options(
    rows: npt.NDArray[np.void], tcp: npt.NDArray[np.bool_], end: npt.NDArray[np.int64], columns: Columns
) -> None:
    """Fill what options say of the `tcp` rows, whose headers end at `end`: most have a timestamp first and no more."""
    timestamps = tcp & (rows["first_option"] == NOP_NOP_TIMESTAMPS) & (end >= OPTIONS_AT + 12)
    for name in ("ts_val", "ts_ecr"):
        np.copyto(columns[name], rows[name], where=timestamps, casting="same_kind")
    rest_at = np.where(timestamps, OPTIONS_AT + 12, OPTIONS_AT)
    more = np.flatnonzero(tcp & (end > rest_at))
    if len(more):
        _decode_options(rows, more, rest_at[more], end[more], columns)


def _decode_options(
    rows: npt.NDArray[np.void],
    chosen: npt.NDArray[np.intp],
    at: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
    columns: Columns,
) -> None:
    """Walk the TCP options (RFC 9293, 3.2) of the `chosen` rows in step, from `at` to `end` bytes into each frame.

    Takes timestamps (RFC 7323) and the first two SACK blocks (RFC 2018). Stops, as Linux does, at a malformed length.
    """
    flat = np.concatenate((rows.view(np.uint8), np.zeros(4, np.uint8)))
    words = at_every_byte(flat, ">u4")
    row_at = chosen * LAYOUT.itemsize
    none = np.full(len(chosen), -1)
    timestamps_at, sack_at, sack_end = none.copy(), none.copy(), none.copy()
    live = np.arange(len(chosen))
    while len(live):
        here = at[live]
        kind = flat[row_at[live] + here]
        length = np.where(kind == 1, 1, flat[row_at[live] + here + 1]).astype(np.int64)
        left = end[live] - here
        stamped = live[(kind == 8) & (length == 10) & (left >= 10)]
        timestamps_at[stamped] = row_at[stamped] + at[stamped] + 2
        blocks = (kind == 5) & (length >= 10) & (left >= 10)
        sack_at[live[blocks]] = row_at[live[blocks]] + here[blocks] + 2
        sack_end[live[blocks]] = row_at[live[blocks]] + here[blocks] + np.minimum(length, left)[blocks]
        at[live] = here + length
        live = live[(kind != 0) & ((kind == 1) | (length >= 2)) & (length < left)]

    found = timestamps_at >= 0
    columns["ts_val"][chosen[found]] = words[timestamps_at[found]]
    columns["ts_ecr"][chosen[found]] = words[timestamps_at[found] + 4]
    found = sack_at >= 0
    with_sack, first, last = chosen[found], sack_at[found], sack_end[found]
    start, stop = (words[first + skip].astype(np.uint32) for skip in (0, 4))
    columns["sack_start"][with_sack] = start
    columns["sack_end"][with_sack] = stop
    second = np.where(last - first >= 16, first + 8, first)  # the first again where there is no second
    has_second = second != first
    outer = (words[second].astype(np.uint32), words[second + 4].astype(np.uint32))
    columns["dsack"][with_sack] = is_dsack(columns["ack"][with_sack], start, stop, outer[0], outer[1], has_second)


def is_dsack(
    ack: npt.NDArray[np.uint32],
    start: npt.NDArray[np.uint32],
    end: npt.NDArray[np.uint32],
    second_start: npt.NDArray[np.uint32],
    second_end: npt.NDArray[np.uint32],
    has_second: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Whether the first SACK block reports a duplicate (RFC 2883, 4): below the ack, or inside the second block."""
    below = before(start, ack)
    inside = has_second & ~before(start, second_start) & ~before(second_end, end)
    return below | inside


def before(one: npt.NDArray[np.uint32], other: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Return whether sequence number `one` precedes `other`, modulo 2^32 (RFC 1982, 3.2)."""
    return (one - other).view(np.int32) < 0
