"""The wire format of protocol buffers, as far as reading a few fields of a message takes (protobuf.dev, "Encoding")."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MOST_VARINT_BYTES = 10
_FIXED = {1: ("<q", 8), 5: ("<i", 4)}

Value = int | bytes


class WireError(ValueError):
    """Bytes that are no message."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at`, and where it ends. Raises WireError."""
    number = 0
    for place, byte in enumerate(data[at : at + _MOST_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number & (1 << 64) - 1, at + place + 1
    raise WireError(f"a number does not end at byte {at}")


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield the number and the value of every field of a message, in their order. Raises WireError."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if not number:
            raise WireError(f"field 0 at byte {at}")
        if kind == 0:
            value, at = varint(data, at)
            yield number, value
            continue
        length = _FIXED[kind][1] if kind in _FIXED else 0
        if kind == 2:
            length, at = varint(data, at)
        elif not length:
            raise WireError(f"a field of kind {kind} at byte {at}")
        if at + length > len(data):
            raise WireError(f"a field of {length} bytes at byte {at}, where {len(data) - at} are left")
        held = data[at : at + length]
        at += length
        yield number, held if kind == 2 else struct.unpack(_FIXED[kind][0], held)[0]


def messages(data: bytes) -> Iterator[bytes]:
    """Yield messages that follow each other, each behind its length. Raises WireError."""
    at = 0
    while at < len(data):
        length, at = varint(data, at)
        if at + length > len(data):
            raise WireError(f"a message of {length} bytes at byte {at}, where {len(data) - at} are left")
        yield data[at : at + length]
        at += length


def numbers(value: Value) -> Iterator[int]:
    """Yield the numbers of a repeated field, of which a message has one each or all in one. Raises WireError."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = varint(value, at)
        yield number


def signed(number: int) -> int:
    """Return an int32 or int64, which are sent as what they are modulo 2^64."""
    return number - (1 << 64) if number >> 63 else number
