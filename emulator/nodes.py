"""Mininet's nodes, switches and links, made without a shell and over netlink.

Mininet gives every node an interactive shell and configures it by typing commands, some 20 ms each. These subclasses
keep Mininet's objects (names, ports, its command line) and leave the doing to `emulator.fabric`.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from typing import Any, ClassVar

from mininet.link import Intf, Link
from mininet.net import Mininet
from mininet.node import Host, Node, OVSSwitch
from mininet.topo import Topo
from pyroute2 import IPRoute

from controllers.openflow import leaf_dpid, spine_dpid
from emulator.ovs import run
from emulator.topology import LeafSpine


class _Shellless(Node):
    """A node whose only process holds its network namespace; a shell starts when a command is typed."""

    inNamespace: bool

    def startShell(self, mnopts: str | None = None) -> None:
        self.execed = False
        self.waiting = False
        if self.inNamespace:
            # -n gives the process its own network namespace; it has it by the time it writes its pid (-p).
            keeper = ["mnexec", "-pn", "sleep", "infinity"]
            self._keeper = subprocess.Popen(keeper, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            assert self._keeper.stdout
            self._keeper.stdout.readline()
            self.pid = self._keeper.pid
        else:
            self.pid = 1  # the sandbox's own namespace

    def sendCmd(self, *args: Any, **kwargs: Any) -> None:
        if self.shell is None:
            namespace, self.inNamespace = self.inNamespace, False
            held = self.pid
            Node.startShell(self, f"-cda{held}")
            self.pid, self.inNamespace = held, namespace
        super().sendCmd(*args, **kwargs)

    def terminate(self) -> None:
        if self.shell is not None:
            super().terminate()

    def config(self, **_: Any) -> dict[str, Any]:
        """Nothing: the fabric configures every node over netlink."""
        return {}


class FabricHost(_Shellless, Host):
    pass


class FabricSwitch(_Shellless, OVSSwitch):
    """An Open vSwitch bridge that speaks OpenFlow 1.3, started together with all others in one transaction."""

    @classmethod
    def batchStartup(cls, switches: Sequence[Any], run: Any = None) -> Sequence[Any]:
        arguments = ["ovs-vsctl"]
        for switch in switches:
            for command in switch.commands:
                arguments += shlex.split(command)
            switch.commands, switch.batch = [], False
        _run(arguments)
        return switches


_run = run  # Mininet calls its own parameter `run`


class FabricIntf(Intf):
    def config(self, **_: Any) -> dict[str, Any]:
        return {}


class VethLink(Link):
    """A veth pair made in one netlink request, each end already in its node's namespace."""

    netlink: ClassVar[IPRoute]
    mtu_bytes: ClassVar[int]

    @classmethod
    def makeIntfPair(
        cls,
        intfname1: str,
        intfname2: str,
        addr1: str | None = None,
        addr2: str | None = None,
        node1: Any = None,
        node2: Any = None,
        deleteIntfs: bool = True,
    ) -> None:
        def end(name: str, address: str | None, node: Any) -> dict[str, Any]:
            where = {"net_ns_pid": node.pid} if node.inNamespace else {}
            return {"ifname": name, "mtu": cls.mtu_bytes, **where, **({"address": address} if address else {})}

        # The first end is made here whichever way round Mininet has it; a host's end is always the peer.
        here, there = (node1, node2) if not node1.inNamespace else (node2, node1)
        names = {node1: (intfname1, addr1), node2: (intfname2, addr2)}
        cls.netlink.link("add", kind="veth", **end(*names[here], here), peer=end(*names[there], there))


class FabricTopo(Topo):
    """The leaf-spine as Mininet's topology: hosts, leaves and spines by their names, ports as the tables expect."""

    def build(self, fabric: LeafSpine, datapath: str) -> None:
        for host in range(fabric.hosts):
            self.addHost(fabric.host_name(host), ip=fabric.host_ip(host), mac=fabric.host_mac(host))
        options = {"datapath": datapath, "protocols": "OpenFlow13"}
        for leaf in range(fabric.leaves):
            self.addSwitch(fabric.leaf_name(leaf), dpid=f"{leaf_dpid(leaf):x}", **options)
            for host in fabric.hosts_of(leaf):
                self.addLink(
                    fabric.host_name(host), fabric.leaf_name(leaf),
                    port1=0, port2=fabric.leaf_port_to_host(host), addr1=fabric.host_mac(host),
                )  # fmt: skip
        for spine in range(fabric.spines):
            self.addSwitch(fabric.spine_name(spine), dpid=f"{spine_dpid(spine):x}", **options)
            for leaf in range(fabric.leaves):
                self.addLink(
                    fabric.leaf_name(leaf), fabric.spine_name(spine),
                    port1=fabric.leaf_port_to_spine(spine), port2=fabric.spine_port_to_leaf(leaf),
                )  # fmt: skip


class FabricNet(Mininet):
    """Mininet without its `init`, which would raise system-wide limits and leave them so."""

    inited = True

    def __init__(self, fabric: LeafSpine, datapath: str, netlink: IPRoute) -> None:
        VethLink.netlink, VethLink.mtu_bytes = netlink, fabric.mtu_bytes
        super().__init__(
            topo=FabricTopo(fabric=fabric, datapath=datapath),
            host=FabricHost,
            switch=FabricSwitch,
            link=VethLink,
            intf=FabricIntf,
            controller=None,
        )
