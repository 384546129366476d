"""How long a fabric takes to set up, beside plain Mininet's own way for the same fabric. Needs root.

Every measurement has a sandbox, and so an Open vSwitch, of its own, with what it imports loaded beforehand.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from emulator.errors import EmulatorError
from emulator.order import FabricOrder
from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine

HOSTS = (16, 32, 64, 128)
_LEAVES = _SPINES = 8
_RATE_BPS = 10_000_000
_TIMEOUT_S = 900.0


def run(hosts: Sequence[int] = HOSTS) -> list[dict[str, Any]]:
    """Return a row for every number of hosts, on 8 leaves and 8 spines.

    `linux_s` and `ovs_s` are of `emulator.fabric`: up, shaped, programmed, a packet seen over every link, shaping read
    back. `mininet_s` is of `mn --custom` with `--link tc,bw=10 --switch ovs`: up and shaped, with no controller to wait
    for and so nothing programmed. (Its bandwidth is HTB's; its queue length would need netem.) The other two columns
    say how many times as long Mininet takes.
    """
    return [_row(count) for count in hosts]


def _row(hosts: int) -> dict[str, Any]:
    if hosts % _LEAVES:
        raise ValueError(f"{hosts} hosts cannot be shared out to {_LEAVES} leaves: use a multiple of it")
    topology = LeafSpine(_LEAVES, _SPINES, hosts // _LEAVES, _RATE_BPS, _RATE_BPS)
    linux_s = _in_sandbox(set_up, topology, "linux")
    ovs_s = _in_sandbox(set_up, topology, "ovs")
    mininet_s = _in_sandbox(set_up_plainly, topology)
    return {
        "hosts": hosts,
        "links": hosts + _LEAVES * _SPINES,
        "linux_s": round(linux_s, 3),
        "ovs_s": round(ovs_s, 3),
        "mininet_s": round(mininet_s, 3),
        "mininet_over_linux": round(mininet_s / linux_s, 1),
        "mininet_over_ovs": round(mininet_s / ovs_s, 1),
    }


def _in_sandbox(function: Any, *arguments: Any) -> float:
    with tempfile.TemporaryFile() as log, Sandbox(log) as sandbox:
        seconds: float = sandbox.call(function, *arguments, timeout_s=_TIMEOUT_S)
        return seconds


def set_up(topology: LeafSpine, dataplane: str) -> float:
    """Return the seconds that it takes. Runs in a sandbox."""
    from controllers.dataplane import build

    started = time.monotonic()
    fabric = build(FabricOrder(topology, dataplane=dataplane), sys.stderr)
    found = fabric.read_shaping()
    took_s = time.monotonic() - started
    for port in fabric.ports:
        if found[port.name] is None:
            raise EmulatorError(f"{port.name} is not shaped")
    return took_s


def set_up_plainly(topology: LeafSpine) -> float:
    """Return seconds that Mininet takes with its own classes. Runs in a sandbox."""
    from functools import partial

    from mininet.link import TCLink
    from mininet.log import setLogLevel
    from mininet.net import Mininet
    from mininet.node import OVSSwitch
    from mininet.topo import Topo

    from controllers.dataplane import choose
    from controllers.ovs.daemon import OpenVSwitch

    OpenVSwitch(sys.stderr)  # a service that runs already, for whoever types `mn`
    datapath = "kernel" if choose("ovs", topology).name == "ovs-kernel" else "user"
    setLogLevel("error")
    Mininet.inited = True  # or it would raise limits of the whole machine, and leave them so
    topo = Topo()
    for spine in range(topology.spines):
        topo.addSwitch(topology.spine_name(spine), dpid=f"{0x10000 + spine:x}")
    for leaf in range(topology.leaves):
        topo.addSwitch(topology.leaf_name(leaf), dpid=f"{1 + leaf:x}")
        for host in topology.hosts_of(leaf):
            topo.addHost(topology.host_name(host))
            topo.addLink(topology.host_name(host), topology.leaf_name(leaf), bw=topology.host_rate_bps / 1e6)
    for leaf, spine in topology.links():
        topo.addLink(topology.leaf_name(leaf), topology.spine_name(spine), bw=topology.fabric_rate_bps / 1e6)
    started = time.monotonic()
    net = Mininet(topo=topo, link=TCLink, switch=partial(OVSSwitch, datapath=datapath), controller=None)
    net.start()
    took_s = time.monotonic() - started
    if not all(link.intf1.isUp() for link in net.links):
        raise EmulatorError("plain Mininet's links are not up")
    return took_s
