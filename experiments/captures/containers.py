"""Where the packets of a capture file are: positions, lengths and times of its records, whatever the file format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

MAX_CAPTURED_BYTES = 262_144  # libpcap's MAXIMUM_SNAPLEN: a longer packet is a damaged length


class Records(NamedTuple):
    """Packets of a file, in file order."""

    start: Positions  # where the packet's first byte is
    captured_bytes: npt.NDArray[np.int64]
    wire_bytes: npt.NDArray[np.uint32]
    time_ns: npt.NDArray[np.int64]
    link_type: npt.NDArray[np.int32]  # a LINKTYPE_ value; 1 is Ethernet


@dataclass(frozen=True)
class Run:
    """Consecutive records of one layout; `read` turns ascending positions, all or some, into records."""

    positions: Positions
    read: Callable[[Positions], Records]


@dataclass
class Container:
    """The records found in a file, and what could not be read."""

    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def gather(data: Bytes, positions: Positions, layout: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """Return copies of `layout` taken from `data` at each of the ascending `positions`; zeros beyond the end."""
    if not len(positions):
        return np.empty(0, layout)
    first, past = int(positions[0]), int(positions[-1]) + layout.itemsize
    window = data[first:past]
    if past > len(data):
        window = np.concatenate((window, np.zeros(past - len(data), np.uint8)))
    opaque = np.dtype((np.void, layout.itemsize))  # one memcpy a record, not one a field
    return at_every_byte(window, opaque)[positions - first].view(layout)


def at_every_byte(data: Bytes, layout: npt.DTypeLike, skip: int = 0) -> npt.NDArray[Any]:
    """A view of `data` with one (overlapping) item of `layout` for each byte position, `skip` bytes further on."""
    layout = np.dtype(layout)
    positions = len(data) - skip - layout.itemsize + 1
    return np.ndarray((positions,), layout, data.data, skip, (1,)) if positions > 0 else np.empty(0, layout)


def cut(what: str, at: int, left: int) -> str:
    """Return the problem of a file that ends too early."""
    return f"cut short at byte {at}: {what} is not complete; {left} bytes are left unread"


def damaged(what: str, at: int, left: int) -> str:
    """Return the problem of a file that makes no sense from byte `at` on."""
    return f"damaged at byte {at}: {what}; stopped there, {left} bytes are left unread"
