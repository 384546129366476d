"""How the hosts' TCP is set up: what a socket is given, and the sysctls of a host's network namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emulator.order import FabricOrder
from emulator.topology import IP_TCP_HEADER_BYTES, LeafSpine

SOCKET_BYTES = 131_072
"""What a sending socket holds at most, the kernel's own of every frame included: the queues are in the fabric."""

_LEAST_WINDOW_FRAMES = 2  # with fewer, a sender would wait for every delayed acknowledgement
_IN_FLIGHT_S = 0.4  # about ten round trips over empty queues at 10 Mb/s, and well below the least time-out

_ALWAYS = {
    "net.ipv4.tcp_slow_start_after_idle": "0",  # a rank that waited for its turn sends at once
    "net.ipv4.tcp_no_metrics_save": "1",  # no run learns from the one before
    "net.ipv4.tcp_wmem": f"4096 65536 {SOCKET_BYTES}",
    "net.ipv4.tcp_syn_retries": "4",
}

# Linux retransmits what was only late. These let it wait: RACK adapts its reordering window (1), does not give it up
# after three duplicate acknowledgements (4), and its window follows the queue because the least RTT is forgotten.
# Probes for a tail stay on: without them, a few runs in a hundred waited for a time-out though nothing was lost.
_REORDER_TOLERANT = {
    "net.ipv4.tcp_recovery": "5",
    "net.ipv4.tcp_reordering": "300",
    "net.ipv4.tcp_max_reordering": "1000",
    "net.ipv4.tcp_min_rtt_wlen": "0",
}


@dataclass(frozen=True)
class Transport:
    """What every connection of a run is given, and what its fabric does for acknowledgements.

    `windows` "fitted": the windows with which all connections to a host begin have, together, as much under way as its
    link carries in 0.4 s, or half of what its port's queue holds where that is less, so that cutting a flow multiplies
    what carries it, not what is in flight. The kernel may enlarge them as data arrives, up to the 128 KB that a sender
    keeps under way at most. "default": the kernel's windows from the beginning.
    `acknowledgements` "first": they wait behind no data, on any port; "in-turn": they do. `reordering` "tolerant": TCP
    waits for late packets instead of retransmitting them. A run in which nothing arrives for `stall_timeout_s` ends.
    """

    congestion_control: str = "cubic"
    windows: Literal["fitted", "default"] = "fitted"
    acknowledgements: Literal["first", "in-turn"] = "first"
    reordering: Literal["tolerant", "default"] = "tolerant"
    stall_timeout_s: float = 10.0

    def order(
        self, topology: LeafSpine, dataplane: str = "auto", userspace_limit_bps: int | None = None
    ) -> FabricOrder:
        """A fabric whose hosts and ports are as this transport asks."""
        return FabricOrder(topology, self.sysctls(), self.acknowledgements, dataplane, userspace_limit_bps)

    def sysctls(self) -> dict[str, str]:
        return {**_ALWAYS, **(_REORDER_TOLERANT if self.reordering == "tolerant" else {})}


def window_bytes(fabric: LeafSpine, connections: int) -> int:
    """Return the receive window of each of a host's connections, in bytes of payload.

    All together may have under way what its link carries in _IN_FLIGHT_S, or half of what its port's queue holds where
    that is less; each has two frames at least.
    """
    least_bytes = _LEAST_WINDOW_FRAMES * (fabric.mtu_bytes - IP_TCP_HEADER_BYTES)
    together_bytes = min(fabric.queue_bytes / 2, fabric.host_rate_bps / 8 * _IN_FLIGHT_S)
    return max(least_bytes, int(together_bytes / connections))
