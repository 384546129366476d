"""Small programs in the kernel, at the door of an interface: bpf(2), without a library or a compiler.

A program that is attached over a link (BPF_LINK_CREATE) is gone when the link's file is closed, which the kernel does
when the process ends, however it ends. Numbers and layouts are those of linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from enum import IntEnum
from typing import NamedTuple

from emulator.errors import EmulatorError

_SYSCALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _PROG_LOAD, _LINK_CREATE = 0, 1, 2, 5, 28
_MAP_TYPE_ARRAY, _PROG_TYPE_XDP, _ATTACH_XDP = 2, 6, 37
_GENERIC_MODE = 1 << 1  # XDP_FLAGS_SKB_MODE: before whatever takes packets from an interface, on any driver
_VALUE = struct.Struct("=QQQQ")
_LOG_BYTES = 1 << 16
_LOOKUP_ELEMENT, _MONOTONIC_NS = 1, 5  # of the functions that programs may call
_PASS, _DROP = 2, 1
_LOOPBACK = 1

_libc = ctypes.CDLL(None, use_errno=True)
_MASK = 2**64 - 1
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Counts(NamedTuple):
    """What came to an interface since a program was attached, and how much of it was dropped.

    The last that was dropped came at `last_drop_ns` of CLOCK_MONOTONIC; 0 where none was.
    """

    seen_packets: int
    dropped_packets: int
    dropped_bytes: int
    last_drop_ns: int


class Dropper:
    """Drops a share of the packets that an interface receives, until it is closed.

    Which packets, counted from 0 as they come, follows from `seed` alone: see `dropped`.
    """

    def __init__(self, index: int, share: float, seed: int = 0) -> None:
        """Attach it to interface `index` of the calling thread's network namespace. Raises EmulatorError."""
        self._files: list[int] = []
        try:
            self._map = self._opened(_MAP_CREATE, struct.pack("=IIII", _MAP_TYPE_ARRAY, 4, _VALUE.size, 1), "a map")
            program = self._loaded(_program(self._map, share, seed))
            link = struct.pack("=IIII", program, index, _ATTACH_XDP, _GENERIC_MODE)
            self._link = self._opened(_LINK_CREATE, link, f"interface {index}")
        except EmulatorError:
            self.close()
            raise

    def counts(self) -> Counts:
        """Return what has come, and what of it was dropped, so far."""
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(_VALUE.size)
        _bpf(_MAP_LOOKUP, struct.pack("=IxxxxQQQ", self._map, ctypes.addressof(key), ctypes.addressof(value), 0))
        return Counts(*_VALUE.unpack(value.raw))

    def detach(self) -> Counts:
        """Let all packets pass again; return the last counts."""
        os.close(self._link)
        self._files.remove(self._link)
        counts = self.counts()
        self.close()
        return counts

    def close(self) -> None:
        """Be gone."""
        while self._files:
            os.close(self._files.pop())

    def _loaded(self, instructions: list[bytes]) -> int:
        code, license_, complaint = (
            ctypes.create_string_buffer(text) for text in (b"".join(instructions), b"GPL", bytes(_LOG_BYTES))
        )
        places = (ctypes.addressof(each) for each in (code, license_))
        attributes = struct.pack("=IIQQ", _PROG_TYPE_XDP, len(instructions), *places)
        attributes += struct.pack("=IIQ", 1, _LOG_BYTES, ctypes.addressof(complaint))
        return self._opened(_PROG_LOAD, attributes, "a program")

    def _opened(self, command: int, attributes: bytes, what: str) -> int:
        try:
            file = _bpf(command, attributes)
        except OSError as error:
            raise EmulatorError(
                f"the kernel takes no BPF program that drops packets ({what}: {error.strerror}); faults of kind "
                "blackhole and loss need one"
            ) from error
        self._files.append(file)
        return file


def dropped(number: int, share: float, seed: int) -> bool:
    """Whether the packet with this number is dropped: a hash of both (splitmix64's) is below the share."""
    return _mixed(number, seed) >> 32 < _threshold(share)


def _mixed(number: int, seed: int) -> int:
    value = ((number + 1) * _GOLDEN + seed) & _MASK
    value = ((value ^ value >> 30) * _FIRST) & _MASK
    value = ((value ^ value >> 27) * _SECOND) & _MASK
    return value ^ value >> 31


def _threshold(share: float) -> int:
    return min(2**32, round(share * 2**32))


class _Op(IntEnum):
    """The instructions used here: class, operation and source together."""

    LOAD_64 = 0x18  # of which an immediate has two
    LOAD_32_FROM, STORE_32_IMMEDIATE, STORE_64 = 0x61, 0x62, 0x7B
    ATOMIC_64 = 0xDB
    MOVE, MOVE_IMMEDIATE = 0xBF, 0xB7
    ADD, ADD_IMMEDIATE, SUBTRACT, MULTIPLY, XOR = 0x0F, 0x07, 0x1F, 0x2F, 0xAF
    SHIFT_RIGHT = 0x77
    JUMP_IF_ZERO, JUMP_IF_AT_LEAST = 0x15, 0x3D
    CALL, EXIT = 0x85, 0x95


_ADD, _FETCH_ADD = 0x00, 0x01  # the operations of ATOMIC_64
_PSEUDO_MAP = 1


def _one(op: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    immediate = immediate - 2**32 if immediate >= 2**31 else immediate
    return struct.pack("=BBhi", op, source << 4 | target, offset, immediate)


def _constant(target: int, value: int) -> list[bytes]:
    return [_one(_Op.LOAD_64, target, immediate=value & 0xFFFFFFFF), _one(0, immediate=value >> 32)]


def _program(map_file: int, share: float, seed: int) -> list[bytes]:
    """Count the packet; hash its number; drop it, count that and note when, where the hash is below the share.

    Registers: 6 what the kernel hands over, 7 the map's value, 8 the packet's number, then its hash.
    """
    step = struct.calcsize("=Q")
    count_and_drop = [
        _one(_Op.MOVE_IMMEDIATE, 1, immediate=1),
        _one(_Op.ATOMIC_64, 7, 1, step, _ADD),
        _one(_Op.LOAD_32_FROM, 2, 6, 4),  # where the packet ends
        _one(_Op.LOAD_32_FROM, 3, 6, 0),  # and where it begins
        _one(_Op.SUBTRACT, 2, 3),
        _one(_Op.ATOMIC_64, 7, 2, 2 * step, _ADD),
        _one(_Op.CALL, immediate=_MONOTONIC_NS),
        _one(_Op.STORE_64, 7, 0, 3 * step),
        _one(_Op.MOVE_IMMEDIATE, 0, immediate=_DROP),
        _one(_Op.EXIT),
    ]
    decide = [
        _one(_Op.MOVE_IMMEDIATE, 8, immediate=1),
        _one(_Op.ATOMIC_64, 7, 8, 0, _ADD | _FETCH_ADD),
        _one(_Op.ADD_IMMEDIATE, 8, immediate=1),
        *_constant(1, _GOLDEN),
        _one(_Op.MULTIPLY, 8, 1),
        *_constant(1, seed),
        _one(_Op.ADD, 8, 1),
        *_xor_shifted(30), *_constant(1, _FIRST), _one(_Op.MULTIPLY, 8, 1),
        *_xor_shifted(27), *_constant(1, _SECOND), _one(_Op.MULTIPLY, 8, 1),
        *_xor_shifted(31),
        _one(_Op.SHIFT_RIGHT, 8, immediate=32),
        *_constant(1, _threshold(share)),
        _one(_Op.JUMP_IF_AT_LEAST, 8, 1, len(count_and_drop)),
    ]  # fmt: skip
    look_up = [
        _one(_Op.MOVE, 6, 1),
        _one(_Op.STORE_32_IMMEDIATE, 10, 0, -4, 0),
        _one(_Op.MOVE, 2, 10),
        _one(_Op.ADD_IMMEDIATE, 2, immediate=-4 & 0xFFFFFFFF),
        _one(_Op.LOAD_64, 1, _PSEUDO_MAP, immediate=map_file), _one(0),
        _one(_Op.CALL, immediate=_LOOKUP_ELEMENT),
        _one(_Op.JUMP_IF_ZERO, 0, 0, 1 + len(decide) + len(count_and_drop)),
        _one(_Op.MOVE, 7, 0),
    ]  # fmt: skip
    let_pass = [_one(_Op.MOVE_IMMEDIATE, 0, immediate=_PASS), _one(_Op.EXIT)]
    return look_up + decide + count_and_drop + let_pass


def _xor_shifted(bits: int) -> list[bytes]:
    """Register 8, exclusive or itself shifted right."""
    return [_one(_Op.MOVE, 1, 8), _one(_Op.SHIFT_RIGHT, 1, immediate=bits), _one(_Op.XOR, 8, 1)]


def _bpf(command: int, attributes: bytes) -> int:
    """Call bpf(2); return the file it opens. Raises OSError."""
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(38, os.strerror(38))
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = _libc.syscall(ctypes.c_long(number), ctypes.c_int(command), buffer, ctypes.c_uint(128))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def main() -> None:
    """Try it on the loopback interface; the complaint, if there is one, is the last word."""
    try:
        Dropper(_LOOPBACK, share=0.0).close()
    except EmulatorError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
