"""Control before data: on every port, acknowledgements and the like go ahead of the data that waits.

Fabrics with a class for control packets do the same; and a NIC that serves its connections in turn lets no
acknowledgement wait behind another's data. Without it, at rates this low an acknowledgement waits for seconds in queues
that are full of data: senders take them for lost, and what the number tells is that wait.

Written in nftables at the egress of every port, the one place that sees what a host's TCP, a router and a userspace
switch send alike. Packets are told apart by their length, and the priority of data is set too: Linux would take it from
the packet's type of service, where the path tag is, and let data of some paths overtake that of others.
"""

from __future__ import annotations

from collections.abc import Sequence

from emulator.ports import Port

CONTROL_BYTES = 94
"""The longest frame without data: 14 bytes of Ethernet, 20 of IP, and at most 60 of TCP."""

_DEVICES_A_CHAIN = 128  # the kernel takes fewer than 256 (NFT_NETDEVICE_MAX)
_DATA_PRIORITY, _CONTROL_PRIORITY = 0, 6  # in the second and in the first band of pfifo_fast (tc-prio(8))


def control_ruleset(ports: Sequence[Port]) -> str:
    """Write the nftables ruleset of one network namespace with these ports."""
    lines = ["table netdev control", "delete table netdev control", "table netdev control {"]
    for first in range(0, len(ports), _DEVICES_A_CHAIN):
        names = ", ".join(port.name for port in ports[first : first + _DEVICES_A_CHAIN])
        lines += [
            f"  chain out{first} {{",
            f"    type filter hook egress devices = {{ {names} }} priority 0; policy accept;",
            f"    meta length <= {CONTROL_BYTES} meta priority set 0:{_CONTROL_PRIORITY} accept",
            f"    meta priority set 0:{_DATA_PRIORITY}",
            "  }",
        ]
    return "\n".join([*lines, "}", ""])
