"""What a port is: one end of a link, where it lives, and how it is shaped."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.topology import ETHERNET_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Shaping:
    """Token bucket of one port: rate, bucket depth, and how much may wait."""

    rate_bps: int
    burst_bytes: int
    queue_bytes: int


@dataclass(frozen=True, slots=True)
class Port:
    """Interface `name` (number `index`) of `node`, in the network namespace of process `pid`; `peer` is the other end.

    On a fabric link `spine` is set, on a host link `host`. `up` is true on the end nearer the hosts, which sends
    towards the spines.
    """

    name: str
    node: str
    peer: str
    pid: int
    index: int
    shaping: Shaping
    leaf: int
    spine: int | None
    host: int | None
    up: bool


def shaping_for(rate_bps: int, mtu_bytes: int, queue_bytes: int) -> Shaping:
    """The bucket must hold one whole frame; a second makes up for timers that come late."""
    return Shaping(rate_bps, 2 * (mtu_bytes + ETHERNET_HEADER_BYTES), queue_bytes)
