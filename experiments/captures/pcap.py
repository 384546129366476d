"""Records of classic pcap files: both byte orders, micro- and nanoseconds (draft-ietf-opsawg-pcap)."""

from __future__ import annotations

import struct
from array import array

import numpy as np

from experiments.captures.abreast import NOTHING, RECORD_HEADER_BYTES, walk_abreast
from experiments.captures.containers import (
    MAX_CAPTURED_BYTES,
    Bytes,
    Container,
    Positions,
    Records,
    Run,
    at_every_byte,
    cut,
    damaged,
    gather,
)

MAGICS = {  # first four bytes: byte order, nanoseconds in a unit of the time's fraction
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
FILE_HEADER_BYTES = 24


def find_records(data: Bytes) -> Container:
    """Return the records of a file that starts with one of `MAGICS`."""
    order, fraction_ns = MAGICS[bytes(data[:4])]
    if len(data) < FILE_HEADER_BYTES:
        return Container(problems=[cut("the file header", 0, len(data))])
    link_type = struct.unpack_from(order + "I", data.data, 20)[0] & 0xFFFF  # the upper half describes checksums
    fields = ("s", "fraction", "captured", "wire")
    layout = np.dtype([(name, order + "u4") for name in fields])

    def read(positions: Positions) -> Records:
        header = gather(data, positions, layout)
        return Records(
            start=positions + RECORD_HEADER_BYTES,
            captured_bytes=header["captured"].astype(np.int64),
            wire_bytes=np.maximum(header["wire"], header["captured"]).astype(np.uint32),
            time_ns=header["s"].astype(np.int64) * 1_000_000_000 + header["fraction"].astype(np.int64) * fraction_ns,
            link_type=np.full(len(positions), link_type, np.int32),
        )

    positions, problem = _walk(data, order)
    container = Container([Run(positions, read)], [problem] if problem else [])
    captured, wire = (at_every_byte(data, order + "u4", skip)[positions] for skip in (8, 12))
    if lying := int((captured > wire).sum()):
        problem = f"{lying} packets claim to be shorter than what was captured of them"
        container.problems.append(f"{problem}: they are taken to be as long as that")
    return container


def _walk(data: Bytes, order: str) -> tuple[Positions, str | None]:
    """Positions of the records, and why the walk stopped if not at the end."""
    positions, at = walk_abreast(data, order, FILE_HEADER_BYTES)
    found = array("q", positions.tobytes())
    add = found.append
    view = data.data
    length_at = struct.Struct(order + "8xI").unpack_from  # of the record
    last = len(data) - RECORD_HEADER_BYTES
    while at <= last:
        add(at)
        (length,) = length_at(view, at)
        if not length and view[at : at + RECORD_HEADER_BYTES] == NOTHING:
            break
        at += RECORD_HEADER_BYTES + length

    positions = np.frombuffer(found, np.int64)
    captured = at_every_byte(data, order + "u4", skip=8)[positions]
    absurd = np.flatnonzero(captured > MAX_CAPTURED_BYTES)
    if len(absurd):
        stop = int(absurd[0])
        claim = f"a record claims {captured[stop]} captured bytes"
        return positions[:stop], damaged(claim, int(positions[stop]), len(data) - int(positions[stop]))
    if at <= last:
        return positions[:-1], damaged("a record of zeros", at, len(data) - at)
    if at > len(data):
        stop = int(positions[-1])
        return positions[:-1], cut(f"a record of {captured[-1]} captured bytes", stop, len(data) - stop)
    if at < len(data):
        return positions, cut("a record header", at, len(data) - at)
    return positions, None
