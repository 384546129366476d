"""Records of pcapng files: enhanced and simple packet blocks, both byte orders (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from experiments.captures.containers import (
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

MAGIC = b"\x0a\x0d\x0d\x0a"
BYTE_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}

SECTION, INTERFACE, OBSOLETE_PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
SMALLEST_BLOCK_BYTES = {SECTION: 28, INTERFACE: 20, SIMPLE_PACKET: 16, ENHANCED_PACKET: 32}
MAX_BLOCK_BYTES = 1 << 24  # no block comes near; beyond it is a damaged length
TIME_RESOLUTION, TIME_OFFSET = 9, 14  # options of an interface


class Interface(NamedTuple):
    """What a file says of one of the interfaces that it was captured on."""

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
    packets: array[int] = field(default_factory=lambda: array("q"))  # positions of its packet blocks
    obsolete: list[int] = field(default_factory=list)  # positions of packets in blocks that are not read
    simple: int = 0  # packets that carry no time
    nobodys: int = 0  # packets of interfaces that are not described
    overfull: int = 0  # packets of more captured bytes than their blocks

    @property
    def positions(self) -> Positions:
        return np.frombuffer(self.packets, np.int64)

    def read(self, positions: Positions) -> Records:
        fields = ("type", "total", "interface", "high", "low", "captured", "wire")
        block = gather(self.data, positions, np.dtype([(name, self.order + "u4") for name in fields]))
        total = block["total"].astype(np.int64)
        simple = block["type"] == SIMPLE_PACKET  # type, total, wire length, packet
        index = np.where(simple, 0, block["interface"]).astype(np.intp)
        wire = np.where(simple, block["interface"], block["wire"]).astype(np.uint32)
        snap = self.interfaces[0].snap_bytes or MAX_BLOCK_BYTES
        ticks = block["high"].astype(np.uint64) << np.uint64(32) | block["low"]
        time_ns = np.zeros(len(block), np.int64)
        for number in np.unique(index):
            interface = self.interfaces[number]
            mine = np.flatnonzero((index == number) & ~simple)
            time_ns[mine] = _nanoseconds(ticks[mine], interface.ticks_per_s) + interface.offset_s * 1_000_000_000
        captured = np.where(simple, np.minimum(np.minimum(wire, snap), total - 16), block["captured"])
        return Records(
            start=positions + np.where(simple, 12, 28),
            captured_bytes=captured,
            wire_bytes=np.maximum(wire, captured).astype(np.uint32),
            time_ns=time_ns,
            link_type=np.array([each.link_type for each in self.interfaces], np.int32)[index],
        )


def find_records(data: Bytes) -> Container:
    """Return the records of a file that starts with `MAGIC`."""
    sections: list[Section] = []
    problem = None
    at = 0
    while at < len(data) and problem is None:
        section = Section(data, BYTE_ORDERS.get(bytes(data[at + 8 : at + 12]), "<"))
        at, problem = _walk(section, at)
        sections.append(section)
    problems = [problem] if problem else []
    if simple := sum(section.simple for section in sections):
        problems.append(f"{simple} packets carry no time (simple packet blocks): their time_ns is 0")
    if obsolete := sum(len(section.obsolete) for section in sections):
        problems.append(f"{obsolete} packets in blocks of the obsolete type {OBSOLETE_PACKET} were left out")
    if nobodys := sum(section.nobodys for section in sections):
        problems.append(f"{nobodys} packets of interfaces that the file does not describe were left out")
    if overfull := sum(section.overfull for section in sections):
        problems.append(f"{overfull} packets that claim more captured bytes than their blocks hold were left out")
    return Container([Run(section.positions, section.read) for section in sections], problems)


def _walk(section: Section, start: int) -> tuple[int, str | None]:
    """Read the section at byte `start`: the position after it, and why the walk stopped if not where it ends."""
    view = section.data.data
    add = section.packets.append
    header_at = struct.Struct(section.order + "II").unpack_from
    at, last = start, len(view) - 12
    while at <= last:  # each block tells where the next one is: the one part that cannot go in parallel
        kind, total = header_at(view, at)
        if kind == ENHANCED_PACKET and total >= 32:  # checked together below
            add(at)
        elif (kind == SECTION and at > start) or _block_problem(section, at):
            break
        elif kind == INTERFACE:
            section.interfaces.append(_interface(view[at : at + total], section.order))
        elif kind == SIMPLE_PACKET:
            add(at)
        elif kind == OBSOLETE_PACKET:
            section.obsolete.append(at)
        at += total

    unsound = np.flatnonzero(~_sound(section, section.positions))
    if len(unsound):
        at = section.packets[unsound[0]]
        section.packets = section.packets[: unsound[0]]
        section.obsolete = [each for each in section.obsolete if each < at]
    _leave_out(section)
    ended = at == len(view) or (at > start and view[at : at + 4] == MAGIC)
    return at, None if ended else _block_problem(section, at)


def _sound(section: Section, at: Positions) -> npt.NDArray[np.bool_]:
    """Of packet blocks `at` these positions, which `_block_problem` would find nothing wrong with."""
    data, u4 = section.data, section.order + "u4"
    total = at_every_byte(data, u4, skip=4)[at]
    after = at + total
    sound = (total % 4 == 0) & (total <= MAX_BLOCK_BYTES) & (after <= len(data))
    sound &= at_every_byte(data, u4)[np.where(sound, after - 4, 0)] == total
    return sound


def _leave_out(section: Section) -> None:
    """Of sound packet blocks, those whose packets cannot be told: each costs itself, not the rest of the file."""
    data, u4, at = section.data, section.order + "u4", section.positions
    kind, total, interface = (at_every_byte(data, u4, skip)[at] for skip in (0, 4, 8))
    enhanced = kind == ENHANCED_PACKET
    nobodys = np.where(enhanced, interface, 0) >= len(section.interfaces)
    captured = at_every_byte(data, u4, skip=20)[np.where(enhanced, at, 0)]
    overfull = enhanced & ~nobodys & (captured > total - np.uint32(32))
    section.simple = int((~enhanced & ~nobodys).sum())
    section.nobodys, section.overfull = int(nobodys.sum()), int(overfull.sum())
    if section.nobodys or section.overfull:
        section.packets = array("q", at[~(nobodys | overfull)].tobytes())


def _block_problem(section: Section, at: int) -> str | None:
    """Why no whole and sound block starts at byte `at`; None if one does."""
    view, order = section.data.data, section.order
    left = len(view) - at
    if left < 12:
        return cut("a block header", at, left)
    kind, total = struct.unpack_from(order + "II", view, at)
    if kind == SECTION and bytes(view[at + 8 : at + 12]) not in BYTE_ORDERS:
        return damaged("a section header gives no byte order", at, left)
    if total % 4 or not SMALLEST_BLOCK_BYTES.get(kind, 12) <= total <= MAX_BLOCK_BYTES:
        return damaged(f"a block of type {kind} claims {total} bytes", at, left)
    if total > left:
        return cut(f"a block of {total} bytes", at, left)
    (repeated,) = struct.unpack_from(order + "I", view, at + total - 4)
    if repeated != total:
        return damaged(f"a block gives its length as {total} bytes and again as {repeated}", at, left)
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
        elif code == TIME_OFFSET and len(value) == 8 and abs(given := struct.unpack(order + "q", value)[0]) < 1 << 33:
            offset_s = given  # what would lead beyond any time in 64 bits of nanoseconds is no offset
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
