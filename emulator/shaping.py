"""One token bucket a port, set over netlink, read back, and its counters.

Linux's TBF (tc-tbf(8)) counts wire bytes as the interface does: Ethernet header included, preamble and checksum not.
Names are those of linux/pkt_sched.h and linux/gen_stats.h, without the prefix that the class stands for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from emulator.netlink import Flag, Kind, Netlink, Request, attribute, attributes, messages
from emulator.ports import Port, Shaping

_HANDLE = 0x10000
_ROOT = 0xFFFFFFFF  # TC_H_ROOT: the parent of a port's outermost queue
_TICKS_PER_S = 15_625_000  # the kernel's packet scheduler counts in 64 ns ticks
_ETHERNET_LAYER = 1  # spares the kernel a table of how long each packet size takes
_MOST_32_BITS = 2**32 - 1

_QUEUE = struct.Struct("=B3xiIII")  # tcmsg: family, index, handle, parent, references
# tc_tbf_qopt: a rate (overhead and the like, layer, bytes/s), a peak rate, limit, time to fill, longest packet
_PARAMETERS = struct.Struct("=xB6xI12xIII")
_RATE64 = struct.Struct("=Q")
_BYTES = struct.Struct("=Q")  # gnet_stats_basic
_LENGTH_BACKLOG_DROPS = struct.Struct("=III")  # gnet_stats_queue


class Tca(IntEnum):
    """The attributes of a queueing discipline."""

    KIND, OPTIONS, STATS2 = 1, 2, 7


class TcaTbf(IntEnum):
    """The attributes of a token bucket's OPTIONS. RATE64 is there beside a rate that 32 bits do not hold."""

    PARMS, RATE64, BURST = 1, 4, 6


class TcaStats(IntEnum):
    """The attributes of STATS2."""

    BASIC, QUEUE = 1, 3


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """The token bucket of the interface `index`: its outermost queue."""

    index: int
    rate_bytes_per_s: int
    burst_bytes: int
    limit_bytes: int

    def message(self) -> bytes:
        """Pack it as a queueing discipline's message: header and attributes."""
        rate = min(self.rate_bytes_per_s, _MOST_32_BITS)
        ticks = min(round(self.burst_bytes * _TICKS_PER_S / self.rate_bytes_per_s), _MOST_32_BITS)
        # BURST says it in bytes, and is what the kernel takes; ticks are what it tells.
        options = attribute(TcaTbf.PARMS, _PARAMETERS.pack(_ETHERNET_LAYER, rate, self.limit_bytes, ticks, 0))
        options += attribute(TcaTbf.BURST, self.burst_bytes)
        if self.rate_bytes_per_s > _MOST_32_BITS:
            options += attribute(TcaTbf.RATE64, _RATE64.pack(self.rate_bytes_per_s))
        return _queue(self.index, _HANDLE, _ROOT, "tbf") + attribute(Tca.OPTIONS, options)

    @classmethod
    def parse(cls, index: int, found: dict[int, bytes]) -> TokenBucket:
        """Take apart the attributes of its message; the burst comes back in whole ticks."""
        options = attributes(found[Tca.OPTIONS])
        _, rate, limit_bytes, ticks, _ = _PARAMETERS.unpack_from(options[TcaTbf.PARMS])
        if TcaTbf.RATE64 in options:
            (rate,) = _RATE64.unpack(options[TcaTbf.RATE64])
        return cls(index, rate, round(ticks / _TICKS_PER_S * rate), limit_bytes)


class BucketCounts(NamedTuple):
    """What has become of the packets that a port was to send: sent, waiting, dropped. Totals since it was shaped."""

    interface_index: int
    sent_bytes: int
    backlog_bytes: int
    drops_packets: int


def shape(port: Port) -> Request:
    """Put the port's shaping in place of whatever shapes it."""
    shaping = port.shaping
    bucket = TokenBucket(port.index, shaping.rate_bps // 8, shaping.burst_bytes, shaping.queue_bytes)
    return Request(f"shaping of {port.name}", Kind.NEWQDISC, Flag.CREATE | Flag.REPLACE, bucket.message())


def control_first(port: Port) -> Request:
    """Have packets leave a shaped port's bucket in the order of what `emulator.control` tells apart.

    pfifo_fast (tc-prio(8)) does so, by SO_PRIORITY. Each of the two kinds then has the queue of packets that the
    interface was made with.
    """
    body = _queue(port.index, 0, _HANDLE | 1, "pfifo_fast")
    return Request(f"priorities of {port.name}", Kind.NEWQDISC, Flag.CREATE | Flag.EXCL, body)


def ask_queues(netlink: Netlink) -> None:
    """Ask for every queueing discipline of a network namespace; `netlink.answer` returns them."""
    netlink.ask(Kind.GETQDISC, bytes(_QUEUE.size))


def queues(netlink: Netlink) -> bytes:
    """Return every queueing discipline of a network namespace, as the kernel tells it."""
    ask_queues(netlink)
    return netlink.answer()


def bucket_counts(answer: bytes) -> Iterator[BucketCounts]:
    """Take the counters of every token bucket from what `queues` returned."""
    for index, found in _token_buckets(answer):
        statistics = attributes(found[Tca.STATS2])
        (sent_bytes,) = _BYTES.unpack_from(statistics[TcaStats.BASIC])
        _, backlog_bytes, drops_packets = _LENGTH_BACKLOG_DROPS.unpack_from(statistics[TcaStats.QUEUE])
        yield BucketCounts(index, sent_bytes, backlog_bytes, drops_packets)


def buckets(answer: bytes) -> Iterator[TokenBucket]:
    """Take every token bucket from what `queues` returned."""
    return (TokenBucket.parse(index, found) for index, found in _token_buckets(answer))


def read_back(netlink: Netlink) -> dict[int, Shaping]:
    """Return the token buckets that the kernel says are in force, by interface index."""
    return {
        bucket.index: Shaping(bucket.rate_bytes_per_s * 8, bucket.burst_bytes, bucket.limit_bytes)
        for bucket in buckets(queues(netlink))
    }


def _token_buckets(answer: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Interface index and attributes of every token bucket that is a port's outermost queue."""
    for kind, _, body in messages(answer):
        if kind == Kind.NEWQDISC:
            _, index, _, parent, _ = _QUEUE.unpack_from(body)
            if parent == _ROOT:
                found = attributes(body, _QUEUE.size)
                if found.get(Tca.KIND) == b"tbf\0":
                    yield index, found


def _queue(index: int, handle: int, parent: int, kind: str) -> bytes:
    return _QUEUE.pack(0, index, handle, parent, 0) + attribute(Tca.KIND, kind)
