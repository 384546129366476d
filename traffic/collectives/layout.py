"""How a message is cut into pieces, and where the pieces lie in the ranks' buffers.

Every rank has one buffer. A message of `size_bytes` fills it from offset 0, as nccl-tests counts sizes: AllReduce and
Broadcast the whole buffer; AllGather, ReduceScatter and AllToAll one piece a rank, piece r at `pieces(...)[r]`.
AllToAll and permutation send from there and receive behind it, from offset `size_bytes` on, so that nothing is
overwritten before it was sent; the others work in place.

A message whose size is a multiple of 4 is cut between 4-byte elements only, so that it can be summed as int32; any
other between bytes. Pieces of one cut differ by at most one element, the larger ones first.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import Generic, TypeVar

ELEMENT_BYTES = 4

Span = range
"""Consecutive byte offsets of a buffer."""

T = TypeVar("T")


class ScheduleError(ValueError):
    """A collective, algorithm, option or size that makes no schedule; the message says what would."""


def element_bytes(size_bytes: int) -> int:
    """Return the unit a message of this size is cut in: 4 bytes where it divides the size, else 1."""
    return 1 if size_bytes % ELEMENT_BYTES else ELEMENT_BYTES


def divide(span: Span, parts: int, unit_bytes: int) -> list[Span]:
    """Cut `span` in `parts` consecutive spans that differ by at most `unit_bytes`, the larger ones first."""
    quotient, remainder = divmod(len(span) // unit_bytes, parts)
    cuts = [span.start + (part * quotient + min(part, remainder)) * unit_bytes for part in range(parts + 1)]
    return [range(cuts[part], cuts[part + 1]) for part in range(parts)]


@lru_cache(maxsize=16)  # asked for once a pair of ranks
def pieces(size_bytes: int, ranks: int) -> tuple[Span, ...]:
    """Return rank r's piece of a message that is one piece a rank."""
    return tuple(divide(range(size_bytes), ranks, element_bytes(size_bytes)))


def received_piece(size_bytes: int, ranks: int, src: int, dst: int) -> Span:
    """Where AllToAll puts the piece of `src` in the buffer of `dst`: behind the message, in order of rank."""
    length = len(pieces(size_bytes, ranks)[dst])
    return range(size_bytes + src * length, size_bytes + (src + 1) * length)


class SpanMap(Generic[T]):
    """A value for every byte offset, kept as the offsets where the value changes."""

    def __init__(self, value: T) -> None:
        self._starts = [0]
        self._values = [value]

    def get(self, span: Span) -> list[tuple[Span, T]]:
        """Return the parts of `span` and their values, in order of offset."""
        found = []
        index = bisect_right(self._starts, span.start) - 1
        start = span.start
        while start < span.stop:
            last = index + 1 == len(self._starts)
            stop = span.stop if last else min(self._starts[index + 1], span.stop)
            found.append((range(start, stop), self._values[index]))
            start, index = stop, index + 1
        return found

    def put(self, span: Span, value: T) -> None:
        """Set `value` on all of `span`."""
        if not span:
            return
        first, last = self._cut(span.start), self._cut(span.stop)
        self._starts[first:last] = [span.start]
        self._values[first:last] = [value]

    def _cut(self, offset: int) -> int:
        """The index of the part that starts at `offset`, made by splitting if there is none."""
        index = bisect_right(self._starts, offset) - 1
        if self._starts[index] == offset:
            return index
        self._starts.insert(index + 1, offset)
        self._values.insert(index + 1, self._values[index])
        return index + 1
