"""Records of pcapng files: enhanced and simple packet blocks, both byte orders (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from experiments.captures.containers import (
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

MAGIC = b"\x0a\x0d\x0d\x0a"
BYTE_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}

INTERFACE, OBSOLETE_PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 1, 2, 3, 6
SMALLEST_BLOCK_BYTES = {INTERFACE: 20, SIMPLE_PACKET: 16, ENHANCED_PACKET: 32}
MAX_BLOCK_BYTES = 1 << 24  # no block comes near; beyond it is a damaged length
TIME_RESOLUTION, TIME_OFFSET = 9, 14  # options of an interface


class Interface(NamedTuple):
    link_type: int
    snap_bytes: int  # 0: no limit
    ticks_per_s: int
    offset_s: int


@dataclass
class Section:
    """Blocks that share a byte order and a list of interfaces."""

    data: Bytes
    order: str
    interfaces: list[Interface] = field(default_factory=list)
    parts: list[Positions] = field(default_factory=list)

    def __post_init__(self) -> None:
        u4 = self.order + "u4"
        fields = ("type", "total", "interface", "high", "low", "captured", "wire")
        self.layout = np.dtype([(name, u4) for name in fields])
        self.kind, self.total, self.interface = (at_every_byte(self.data, u4, skip) for skip in (0, 4, 8))
        self.captured = at_every_byte(self.data, u4, 20)

    def step(self, at: Positions) -> tuple[npt.NDArray[np.bool_], Positions]:
        """One step of a leap: over enhanced packet blocks only."""
        within = np.clip(at, 0, len(self.captured) - 1)
        total = self.total[within].astype(np.int64)
        after = within + total
        sound = (within == at) & (self.kind[within] == ENHANCED_PACKET)
        sound &= self.interface[within] < len(self.interfaces)
        sound &= (total % 4 == 0) & (total >= 32) & (total <= MAX_BLOCK_BYTES) & (after <= len(self.data))
        sound &= self.captured[within] <= total - 32
        sound &= self.total[np.where(sound, after - 8, 0)] == total  # the length is repeated at the block's end
        return sound, after

    def read(self, positions: Positions) -> Records:
        block = gather(self.data, positions, self.layout)
        total = block["total"].astype(np.int64)
        simple = block["type"] == SIMPLE_PACKET  # type, total, wire length, packet
        index = np.where(simple, 0, block["interface"]).astype(np.intp)
        wire = np.where(simple, block["interface"], block["wire"]).astype(np.uint32)
        snap = self.interfaces[0].snap_bytes or MAX_BLOCK_BYTES
        ticks = block["high"].astype(np.uint64) << np.uint64(32) | block["low"]
        time_ns = np.zeros(len(block), np.int64)
        for number, interface in enumerate(self.interfaces):
            mine = np.flatnonzero((index == number) & ~simple)
            time_ns[mine] = _nanoseconds(ticks[mine], interface.ticks_per_s) + interface.offset_s * 1_000_000_000
        return Records(
            start=positions + np.where(simple, 12, 28),
            captured_bytes=np.where(simple, np.minimum(np.minimum(wire, snap), total - 16), block["captured"]),
            wire_bytes=wire,
            time_ns=time_ns,
            link_type=np.array([each.link_type for each in self.interfaces], np.int32)[index],
        )


def find_records(data: Bytes) -> Container:
    """The records of a file that starts with `MAGIC`."""
    sections: list[Section] = []
    simple_packets = obsolete_packets = 0
    view = data.data
    end = len(data)
    at = 0
    problem = None
    while at < end and problem is None:
        leapt = np.empty(0, np.int64)
        if sections and sections[-1].interfaces:
            leapt, at = leap(at, end, sections[-1].step)
            sections[-1].parts.append(leapt)
        walked: list[int] = []
        for _ in range(1 if len(leapt) else SLOW_WALK_RECORDS):
            if view[at : at + 4] == MAGIC and (order := BYTE_ORDERS.get(bytes(view[at + 8 : at + 12]))):
                if sections:
                    sections[-1].parts.append(np.array(walked, np.int64))
                walked = []
                sections.append(Section(data, order))
            problem = _block_problem(view, at, sections)
            if at >= end or problem:
                break
            kind, total = struct.unpack_from(sections[-1].order + "II", view, at)
            if kind == INTERFACE:
                sections[-1].interfaces.append(_interface(view[at : at + total], sections[-1].order))
            elif kind in (SIMPLE_PACKET, ENHANCED_PACKET):
                walked.append(at)
                simple_packets += kind == SIMPLE_PACKET
            obsolete_packets += kind == OBSOLETE_PACKET
            at += total
        if sections:
            sections[-1].parts.append(np.array(walked, np.int64))
    problems = [problem] if problem else []
    if simple_packets:
        problems.append(f"{simple_packets} packets carry no time (simple packet blocks): their time_ns is 0")
    if obsolete_packets:
        problems.append(f"{obsolete_packets} packets in blocks of the obsolete type {OBSOLETE_PACKET} were left out")
    return Container([Run(np.concatenate(section.parts), section.read) for section in sections], problems)


def _block_problem(view: memoryview, at: int, sections: list[Section]) -> str | None:
    """Why no whole, sound block starts at byte `at`; None if one does, or if the file ends there."""
    left = len(view) - at
    if left == 0:
        return None
    if left < 12:
        return cut("a block header", at, left)
    if view[at : at + 4] == MAGIC and bytes(view[at + 8 : at + 12]) not in BYTE_ORDERS:
        return damaged("a section header has no byte order", at, left)
    section = sections[-1]
    kind, total, third = struct.unpack_from(section.order + "III", view, at)
    if total % 4 or not SMALLEST_BLOCK_BYTES.get(kind, 12) <= total <= MAX_BLOCK_BYTES:
        return damaged(f"a block of type {kind} claims {total} bytes", at, left)
    if total > left:
        return cut(f"a block of {total} bytes", at, left)
    (repeated,) = struct.unpack_from(section.order + "I", view, at + total - 4)
    if repeated != total:
        return damaged(f"a block gives its length as {total} bytes and again as {repeated}", at, left)
    if kind in (SIMPLE_PACKET, ENHANCED_PACKET):
        interface = third if kind == ENHANCED_PACKET else 0
        if interface >= len(section.interfaces):
            return damaged(f"a packet of interface {interface}, which the file does not describe", at, left)
    if kind == ENHANCED_PACKET:
        (captured,) = struct.unpack_from(section.order + "I", view, at + 20)
        if captured > total - 32:
            return damaged(f"a block of {total} bytes claims {captured} captured bytes", at, left)
    return None


def _interface(block: memoryview, order: str) -> Interface:
    link_type, _, snap_bytes = struct.unpack_from(order + "HHI", block, 8)
    ticks_per_s, offset_s = 1_000_000, 0
    at, end = 16, len(block) - 4
    while at + 4 <= end:
        code, length = struct.unpack_from(order + "HH", block, at)
        value = bytes(block[at + 4 : min(at + 4 + length, end)])
        if code == TIME_RESOLUTION and len(value) == 1:
            ticks_per_s = 2 ** (value[0] & 127) if value[0] & 128 else 10 ** value[0]
        elif code == TIME_OFFSET and len(value) == 8:
            (offset_s,) = struct.unpack(order + "q", value)
        at += 4 + (length + 3) // 4 * 4
    return Interface(link_type, snap_bytes, ticks_per_s, offset_s)


def _nanoseconds(ticks: npt.NDArray[np.uint64], ticks_per_s: int) -> npt.NDArray[np.int64]:
    """Exact where the resolution is a power of ten; otherwise rounded down, to at worst 2^-33 s."""
    billion = 1_000_000_000
    if billion % ticks_per_s == 0:
        return (ticks * np.uint64(billion // ticks_per_s)).astype(np.int64)
    if ticks_per_s % billion == 0:
        ticks_per_ns = ticks_per_s // billion
        return (ticks // np.uint64(ticks_per_ns) if ticks_per_ns < 1 << 64 else np.zeros_like(ticks)).astype(np.int64)
    exponent = ticks_per_s.bit_length() - 1
    fits = np.uint64(min(exponent, 33))  # so that a fraction times a billion stays within 64 bits
    ticks = ticks >> np.uint64(exponent - int(fits)) if exponent - int(fits) < 64 else np.zeros_like(ticks)
    fraction = ticks & ((np.uint64(1) << fits) - np.uint64(1))
    return ((ticks >> fits) * np.uint64(billion) + (fraction * np.uint64(billion) >> fits)).astype(np.int64)
