"""One token bucket a port, set over netlink and read back.

Linux's TBF counts wire bytes as the interface does: Ethernet header included, preamble and checksum not.
"""

from __future__ import annotations

from emulator.netlink import Netlink, Request, priorities, token_bucket, token_buckets
from emulator.ports import Port, Shaping

_HANDLE = 0x10000
_PSCHED_TICKS_PER_S = 15_625_000  # the kernel's packet scheduler counts in 64 ns ticks


def shape(port: Port) -> Request:
    """Puts the port's shaping in place of whatever is there."""
    shaping = port.shaping
    return token_bucket(port.index, _HANDLE, shaping.rate_bps // 8, shaping.burst_bytes, shaping.queue_bytes)


def control_first(port: Port) -> Request:
    """Of a port, once it is shaped: what `emulator.control` tells apart leaves its bucket in that order.

    Each of the two then has the queue of packets that the interface was made with.
    """
    return priorities(port.index, _HANDLE)


def read_back(netlink: Netlink) -> dict[int, Shaping]:
    """The token buckets the kernel says are in force, by interface index. The burst comes back in whole ticks."""
    return {
        index: Shaping(rate * 8, round(ticks / _PSCHED_TICKS_PER_S * rate), limit)
        for index, rate, ticks, limit in token_buckets(netlink)
    }
