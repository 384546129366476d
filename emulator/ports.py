"""What a port is: one end of a link, where it lives, and how it is shaped."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.topology import ETHERNET_HEADER_BYTES, LeafSpine

_LONGEST_FRAME_S = 1.0  # slower, a run is of hours; the bucket's time to fill is a 32-bit count of 64 ns as well


@dataclass(frozen=True, slots=True)
class Shaping:
    """How a port is shaped: its token bucket's rate and depth, and how much may wait."""

    rate_bps: int
    burst_bytes: int
    queue_bytes: int


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a link: the interface `name`, number `index`, of `node`, in the network namespace of process `pid`.

    `peer` is the other end. On a fabric link `spine` is set, on a host link `host`. `up` is true on the end nearer the
    hosts, which sends towards the spines.
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

    @property
    def at_host(self) -> bool:
        """Return whether this end is a host's own; all others are a switch's."""
        return self.host is not None and self.up


def shaping_for(rate_bps: int, fabric: LeafSpine) -> Shaping:
    """Return how to shape a port to `rate_bps`.

    The bucket must hold all frames that travel as one; one more makes up for timers that come late.
    """
    frame_bytes = fabric.mtu_bytes + ETHERNET_HEADER_BYTES
    return Shaping(rate_bps, (fabric.burst_frames + 1) * frame_bytes, fabric.queue_bytes)


def least_rate_bps(mtu_bytes: int) -> int:
    """Return the least rate of a port, at which the largest frame takes as long as one may."""
    return int(8 * (mtu_bytes + ETHERNET_HEADER_BYTES) / _LONGEST_FRAME_S)
