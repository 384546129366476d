"""One token bucket a port, set over netlink and read back.

Linux's TBF counts wire bytes as the interface does: Ethernet header included, preamble and checksum not.
"""

from __future__ import annotations

from pyroute2 import IPRoute

from emulator.ports import Shaping

_HANDLE = 0x10000
_PSCHED_TICKS_PER_S = 15_625_000  # the kernel's packet scheduler counts in 64 ns ticks


def shape(netlink: IPRoute, index: int, shaping: Shaping) -> None:
    """Put `shaping` on the interface `index`, in place of whatever is there."""
    netlink.tc(
        "replace", "tbf", index, handle=_HANDLE,
        rate=shaping.rate_bps // 8, burst=shaping.burst_bytes, limit=shaping.queue_bytes,
    )  # fmt: skip


def read_back(netlink: IPRoute) -> dict[int, Shaping]:
    """The token buckets the kernel says are in force, by interface index. The burst comes back in whole ticks."""
    found = {}
    for message in netlink.get_qdiscs():
        if message.get_attr("TCA_KIND") == "tbf":
            parameters = message.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
            rate_bytes = parameters["rate"]
            burst = round(parameters["buffer"] / _PSCHED_TICKS_PER_S * rate_bytes)
            found[message["index"]] = Shaping(rate_bytes * 8, burst, parameters["limit"])
    return found
