"""Mininet's nodes, switches and links, made without a shell.

Mininet gives every node an interactive shell and configures it by typing commands, some 20 ms each. These subclasses
keep Mininet's objects (names, ports, its command line) and leave the doing to `emulator.fabric`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mininet.link import Intf, Link
from mininet.net import Mininet
from mininet.node import Host, Node
from mininet.topo import Topo

from emulator.namespaces import take_name
from emulator.topology import LeafSpine

if TYPE_CHECKING:
    from emulator.dataplane import Dataplane

SANDBOX_PID = 1
"""The process whose network namespace is the sandbox's own."""


class Shellless(Node):
    """A node in the network namespace of the process `pid` it is given; a shell starts when a command is typed."""

    inNamespace: bool
    made = False  # until then Mininet types commands of its own, a shell a switch just to bring up lo

    def startShell(self, mnopts: str | None = None) -> None:
        self.execed = False
        self.waiting = False
        self.pid = self.params.get("pid", SANDBOX_PID)

    def cmd(self, *args: Any, **kwargs: Any) -> Any:
        if not self.made:
            return ""
        self._start_shell()
        return super().cmd(*args, **kwargs)

    def sendCmd(self, *args: Any, **kwargs: Any) -> None:
        self._start_shell()
        super().sendCmd(*args, **kwargs)

    def _start_shell(self) -> None:
        if self.shell is None:
            namespace, self.inNamespace = self.inNamespace, False
            held = self.pid
            Node.startShell(self, f"-cda{held}")  # which sends a command, by when there is a shell
            self.pid, self.inNamespace = held, namespace

    def _popen(self, cmd: list[str], **params: Any) -> Any:
        """Start a command under the node's own name, which is all that `hostname x` typed there changes."""
        return super()._popen(cmd, preexec_fn=lambda: take_name(self.name), **params)

    def terminate(self) -> None:
        if self.shell is not None:
            super().terminate()

    def config(self, ip: str | None = None, **_: Any) -> dict[str, Any]:
        """Take note of the address, and do nothing: the fabric configures every node over netlink."""
        if ip:
            self.defaultIntf().ip = ip
        return {}


class FabricHost(Shellless, Host):
    """A host: its network namespace, and no process but the one that holds it."""


class _Interface(Intf):
    def config(self, **_: Any) -> dict[str, Any]:
        return {}

    def updateIP(self) -> str | None:
        """Return the address as it was planned, without asking ifconfig as Mininet would."""
        address: str | None = self.ip
        return address


class _Link(Link):
    @classmethod
    def makeIntfPair(cls, *_: Any, **__: Any) -> None:
        """Do nothing: the fabric makes all pairs in one batch."""


class FabricTopo(Topo):
    """The leaf-spine as Mininet's topology: hosts, leaves and spines by their names, ports as the tables expect."""

    def build(self, fabric: LeafSpine, plane: Dataplane, pids: Mapping[str, int]) -> None:
        for host in range(fabric.hosts):
            name = fabric.host_name(host)
            self.addHost(name, pid=pids[name], ip=fabric.host_ip(host), mac=fabric.host_mac(host))
        switches = [(fabric.leaf_name(leaf), fabric.leaf_dpid(leaf)) for leaf in range(fabric.leaves)]
        switches += [(fabric.spine_name(spine), fabric.spine_dpid(spine)) for spine in range(fabric.spines)]
        for name, dpid in switches:
            in_namespace = pids[name] != SANDBOX_PID
            self.addSwitch(name, dpid=f"{dpid:x}", pid=pids[name], inNamespace=in_namespace, **plane.switch_options)
        for host in range(fabric.hosts):
            leaf = fabric.leaf_name(fabric.leaf_of(host))
            self.addLink(
                fabric.host_name(host), leaf, port1=0, port2=fabric.leaf_port_to_host(host),
                addr1=fabric.host_mac(host), addr2=plane.macs.get(leaf),
            )  # fmt: skip
        for leaf_number, spine_number in fabric.links():
            leaf, spine = fabric.leaf_name(leaf_number), fabric.spine_name(spine_number)
            self.addLink(
                leaf, spine,
                port1=fabric.leaf_port_to_spine(spine_number), port2=fabric.spine_port_to_leaf(leaf_number),
                addr1=plane.macs.get(leaf), addr2=plane.macs.get(spine),
            )  # fmt: skip


class FabricNet(Mininet):
    """Mininet without its `init`, which would raise system-wide limits and leave them so.

    `pids` names, for every host and switch, a process of its network namespace.
    """

    inited = True

    def __init__(self, fabric: LeafSpine, plane: Dataplane, pids: Mapping[str, int]) -> None:
        super().__init__(
            topo=FabricTopo(fabric=fabric, plane=plane, pids=pids),
            host=FabricHost,
            switch=plane.switch,
            link=_Link,
            intf=_Interface,
            controller=None,
        )
        for node in (*self.hosts, *self.switches):
            node.made = True
