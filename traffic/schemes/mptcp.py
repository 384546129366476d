"""The kernel's Multipath TCP: a flow over one connection that has subflows of its own, each on a path."""

from __future__ import annotations

from emulator.mptcp import without_mptcp
from emulator.nic import PerConnection
from traffic.multipath import MOST_SUBFLOWS, port_ranges
from traffic.schemes import subflows
from traffic.schemes.scheme import Family, Needs, Scheme, spare_look

_SAYS = "the kernel's MPTCP carries every flow by {} subflows, each on a spine of its own as far as there are enough"


def _lacking(_: str) -> str | None:
    return without_mptcp()


def _made(name: str, count: int) -> Scheme:
    return Scheme(
        name=name,
        says=_SAYS.format(count),
        look=spare_look(subflows.MOST_SUBFLOWS + count),
        nic=PerConnection(port_ranges(count)),
        kernel_subflows=count,
        acts="in the sender's kernel, which gives segments to subflows, and its NIC, which deals subflows to paths",
        source="RFC 8684, in Linux; for data centres Raiciu et al., SIGCOMM 2011",
        needs=Needs("MPTCP in the kernel, of Linux 6.5 or later", _lacking),
        unpredicted="its scheduler decides from segment to segment which subflow carries what",
    )


MPTCP = Family("mptcp-K", 2, MOST_SUBFLOWS, _SAYS.format("K"), _made)
