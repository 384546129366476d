"""How the hosts' TCP is set up: what a socket is given, and the sysctls of a host's network namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emulator.order import FabricOrder
from emulator.topology import LeafSpine

_ALWAYS = {
    "net.ipv4.tcp_slow_start_after_idle": "0",  # a rank that waited for its turn sends at once
    "net.ipv4.tcp_no_metrics_save": "1",  # no run learns from the one before
    "net.ipv4.tcp_wmem": "4096 65536 131072",  # the queues are in the fabric, not in the sockets
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
