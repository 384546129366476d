"""Records of classic pcap files: both byte orders, micro- and nanoseconds (draft-ietf-opsawg-pcap)."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from experiments.captures.containers import (
    MAX_CAPTURED_BYTES,
    SLOW_WALK_RECORDS,
    Bytes,
    Container,
    Records,
    Run,
    at_every_byte,
    cut,
    damaged,
    gather,
)
from experiments.captures.leap import Positions, leap

MAGICS = {  # first four bytes: byte order, nanoseconds in a unit of the time's fraction
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
FILE_HEADER_BYTES = 24
RECORD_HEADER_BYTES = 16


def find_records(data: Bytes) -> Container:
    """The records of a file that starts with one of `MAGICS`."""
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
            wire_bytes=header["wire"].astype(np.uint32),
            time_ns=header["s"].astype(np.int64) * 1_000_000_000 + header["fraction"].astype(np.int64) * fraction_ns,
            link_type=np.full(len(positions), link_type, np.int32),
        )

    positions, problem = _walk(data, order)
    return Container([Run(positions, read)], [problem] if problem else [])


def _walk(data: Bytes, order: str) -> tuple[Positions, str | None]:
    """Positions of the records, and why the walk stopped if not at the end."""
    captured = at_every_byte(data, order + "u4", skip=8)
    wire = at_every_byte(data, order + "u4", skip=12)
    end, last = len(data), len(data) - RECORD_HEADER_BYTES

    def step(at: Positions) -> tuple[npt.NDArray[np.bool_], Positions]:
        within = np.clip(at, 0, last)
        length = captured[within].astype(np.int64)
        after = within + length + RECORD_HEADER_BYTES
        sound = (within == at) & (length > 0) & (length <= wire[within]) & (length <= MAX_CAPTURED_BYTES)
        return sound & (after <= end), after

    view = data.data
    lengths_at = struct.Struct(order + "II").unpack_from
    parts = []
    at = FILE_HEADER_BYTES
    problem = None
    while at < end and problem is None:
        leapt, at = leap(at, end, step)
        walked = []
        for _ in range(1 if len(leapt) else SLOW_WALK_RECORDS):
            if at > last:
                problem = cut("a record header", at, end - at) if at < end else None
                break
            length, original = lengths_at(view, at + 8)
            if not 0 < length <= original or length > MAX_CAPTURED_BYTES:
                problem = damaged(f"a record claims {length} captured bytes of {original}", at, end - at)
                break
            after = at + RECORD_HEADER_BYTES + length
            if after > end:
                problem = cut(f"a record of {length} captured bytes", at, end - at)
                break
            walked.append(at)
            at = after
        parts += [leapt, np.array(walked, np.int64)]
    return np.concatenate([np.empty(0, np.int64), *parts]), problem
