"""Builds a leaf-spine inside the sandbox: Mininet's nodes, veth links, addresses, shaping; and checks what it built.

What is here is common to all data planes; what differs, the plane that it is handed does.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from mininet.log import setLogLevel

from emulator import netlink
from emulator.control import control_ruleset
from emulator.dataplane import Dataplane, Endpoints
from emulator.errors import EmulatorError
from emulator.ethtool import Offload, switch_off
from emulator.forwarding import Forwarding
from emulator.namespaces import hold_namespaces, inside, quiet_ipv6, set_sysctls
from emulator.netlink import Netlink
from emulator.nft import load
from emulator.nodes import SANDBOX_PID, FabricNet
from emulator.order import FabricOrder
from emulator.ports import Port, Shaping, shaping_for
from emulator.shaping import control_first, read_back, shape
from emulator.topology import ETHERNET_HEADER_BYTES, FABRIC_PREFIX, LeafSpine, Link
from emulator.vigil import watch
from emulator.warmup import warm_up

_SINGLE_FRAMES = (Offload.TCP_SEGMENTATION, Offload.GENERIC_SEGMENTATION, Offload.GENERIC_MERGING)
# The userspace datapath would forward packets whose checksum is still to be filled in.
_WHOLE_FRAMES = (Offload.CHECKSUMS_SENT, *_SINGLE_FRAMES)
# Links run at a thousandth of a data centre's rate, so queueing takes a thousand times as long: at Linux's least
# retransmission time-out of 200 ms, a few waiting frames would count as lost. It is what a full queue takes to drain,
# within these.
_LEAST_RTO_MIN_S, _MOST_RTO_MIN_S = 1.0, 5.0
_LEAST_QUEUE_PACKETS = 1000  # of a host, whose own queue is to drop nothing: Linux's own default
_LOOPBACK = 1
_FIRST_INDEX = 1000  # of our interfaces: beyond those that a new namespace brings


class Fabric:
    """A built, programmed and checked fabric. Lives in the sandbox and dies with it.

    By node name: `net` (Mininet's nodes), `pids` (a process of each node's network namespace), `netlink` (a socket that
    lives in it). `ports` are both ends of every link; `host_pids` are in the order of hosts; `plane` is what forwards;
    `timings` say when each stage of building ended, in seconds from the start.
    """

    def __init__(self, order: FabricOrder, plane: Dataplane, seed: int = 0, started_s: float | None = None) -> None:
        """Build the fabric. `plane` was made since `started_s`, and hashes with `seed` until it is programmed anew.

        Raises EmulatorError when something cannot be built as asked, naming it.
        """
        setLogLevel("error")
        started = time.monotonic() if started_s is None else started_s
        self.topology = topology = order.topology
        self.timings: dict[str, float] = {}
        self.plane = plane
        self._lap("switches", started)
        self.pids = self._namespaces()
        for name, pid in self.pids.items():
            if pid != SANDBOX_PID:
                watch(pid, f"the process that holds {name}")
        self.host_pids = [self.pids[topology.host_name(host)] for host in range(topology.hosts)]
        self.netlink = self._enter_namespaces(order.sysctls)
        self._lap("namespaces", started)
        self.ports = _ports(topology, self.pids)
        self.net = FabricNet(topology, self.plane, self.pids)
        self._make_links()
        self._lap("links", started)
        self._configure()
        self._route_hosts(order.congestion_control)
        self._lap("configured", started)
        self.plane.start(self)
        self.net.start()
        self._lap("started", started)
        self._shape(order.acknowledgements == "first")
        self._lap("shaped", started)
        self.program(seed)
        self._lap("programmed", started)
        warm_up(topology, self.host_pids)
        self.buffer_bytes = self.plane.warmed_up()
        self._lap("ready", started)

    def program(
        self,
        seed: int,
        connections: Sequence[Endpoints] = (),
        topology: LeafSpine | None = None,
        forwarding: Forwarding | None = None,
        *,
        protected: bool = False,
    ) -> None:
        """Have every switch hold the tables of `topology`, hashing with `seed`; return once all do.

        `topology` is the fabric's own, or that without some links. `connections` are those that will be hashed: with
        the same seed, they take the same paths on every data plane. `forwarding` is what leaves do instead of hashing;
        `protected`, they hold another way for each of their uplinks, for when they notice that it is down.
        Raises EmulatorError if a switch refuses a rule or does not answer in time.
        """
        self.plane.notice(())
        self._programmed, self._protected = (seed, connections, forwarding), protected
        self.plane.program(topology or self.topology, *self._programmed, protected=protected)

    def avoid(self, links: Collection[Link]) -> None:
        """Have leaves send nothing over `links` that can go another way; else everything as last programmed.

        What is on its way over them stays so. Raises EmulatorError as `program` does.
        """
        self.plane.program(self.topology.avoiding(links), *self._programmed, protected=self._protected)

    def notice(self, links: Collection[Link]) -> None:
        """Have leaves, which are `protected`, see that of their uplinks those among `links` are down, and no others.

        Nobody has to tell them what to do: what would go up a dead one takes the next that is alive. Other leaves, and
        spines, go on as before.
        """
        self.plane.notice(links)

    def burst(self, frames: int) -> None:
        """Have hosts send up to so many frames of a connection as one, for connections that open from now on."""
        for port in self.ports:
            if port.at_host:
                self.netlink[port.node].send([netlink.burst(port.index, frames)])

    def read_shaping(self) -> dict[str, Shaping | None]:
        """Return what the kernel says is in force on every port, by its name."""
        found = {pid: read_back(self.netlink_of(pid)) for pid in {port.pid for port in self.ports}}
        return {port.name: found[port.pid].get(port.index) for port in self.ports}

    def _lap(self, name: str, started: float) -> None:
        self.timings[name] = round(time.monotonic() - started, 3)

    def _namespaces(self) -> dict[str, int]:
        """For every node, a process of the network namespace it lives in."""
        topology = self.topology
        hosts = [topology.host_name(host) for host in range(topology.hosts)]
        switches = [topology.leaf_name(leaf) for leaf in range(topology.leaves)]
        switches += [topology.spine_name(spine) for spine in range(topology.spines)]
        if self.plane.sysctls is None:
            pids = dict(zip(hosts, hold_namespaces(len(hosts)), strict=True))
            return pids | dict.fromkeys(switches, SANDBOX_PID)
        return dict(zip(hosts + switches, hold_namespaces(len(hosts + switches)), strict=True))

    def _enter_namespaces(self, host_sysctls: Mapping[str, str]) -> dict[str, Netlink]:
        """Prepare every namespace before it has interfaces; a netlink socket that lives in it, by node."""
        # Without being told, TCP fits its bursts to the pace of a connection.
        host_settings = {**host_sysctls, "net.ipv4.tcp_min_tso_segs": str(self.topology.burst_frames)}
        ours = Netlink()
        sockets = {}
        for number, (name, pid) in enumerate(self.pids.items()):
            if pid == SANDBOX_PID:
                sockets[name] = ours
                continue
            with inside(pid):
                quiet_ipv6()
                set_sysctls(host_settings if number < self.topology.hosts else self.plane.sysctls or {})
                sockets[name] = Netlink()
        return sockets

    def netlink_of(self, pid: int) -> Netlink:
        """Return the netlink socket of the network namespace of process `pid`."""
        return next(self.netlink[name] for name, where in self.pids.items() if where == pid)

    def _make_links(self) -> None:
        topology = self.topology
        # What travels as one counts as one.
        queue_packets = topology.queue_bytes // (topology.burst_frames * (topology.mtu_bytes + ETHERNET_HEADER_BYTES))

        def end(port: Port) -> netlink.LinkEnd:
            mac = self.plane.macs.get(port.node)
            if port.host is not None and port.at_host:
                mac = topology.host_mac(port.host)
            return netlink.LinkEnd(
                port.index, port.name, port.pid, mac, topology.mtu_bytes, topology.burst_frames,
                max(queue_packets, _LEAST_QUEUE_PACKETS) if port.at_host else max(queue_packets, 1),
            )  # fmt: skip

        pairs = zip(self.ports[::2], self.ports[1::2], strict=True)
        Netlink().send([netlink.veth_pair(end(near), end(far)) for near, far in pairs])

    def _configure(self) -> None:
        """Set offloads and state of every port, address and gateway of every host."""
        offloads: Sequence[Offload] = _WHOLE_FRAMES if self.plane.whole_frames else _SINGLE_FRAMES
        if self.topology.burst_frames > 1:
            offloads = [Offload.GENERIC_MERGING]
        for node, ports in self._ports_by_node().items():
            with inside(ports[0].pid):
                switch_off((port.name for port in ports), offloads)
            requests = [netlink.interface_up(_LOOPBACK)]  # without it, a router takes no gateway for one
            for port in ports:
                requests.append(netlink.interface_up(port.index))
                if port.at_host:
                    requests += self._host(port)
            self.netlink[node].send(requests)

    def _shape(self, prioritised: bool) -> None:
        """Once bridges have their ports: Open vSwitch takes away whatever shapes a port it is given."""
        by_namespace: dict[int, list[Port]] = {}
        for node, ports in self._ports_by_node().items():
            requests = [shape(port) for port in ports]
            if prioritised:
                requests += [control_first(port) for port in ports]
                by_namespace.setdefault(self.pids[node], []).extend(ports)
            self.netlink[node].send(requests)
        load({pid: control_ruleset(ports) for pid, ports in by_namespace.items()})

    def _ports_by_node(self) -> dict[str, list[Port]]:
        by_node: dict[str, list[Port]] = {}
        for port in self.ports:
            by_node.setdefault(port.node, []).append(port)
        return by_node

    def _host(self, port: Port) -> list[netlink.Request]:
        """The leaf answers no ARP: it is a router whose address is known, and it knows its hosts."""
        topology, gateway = self.topology, self.topology.gateway_ip(port.leaf)
        assert port.host is not None
        return [
            netlink.address(port.index, topology.host_ip(port.host)),
            netlink.neighbour(port.index, gateway, topology.gateway_mac(port.leaf)),
            netlink.route(f"{gateway}/32", port.index),
        ]

    def _route_hosts(self, congestion_control: str | None) -> None:
        """Have replays' hosts send anywhere, but programs' to the fabric alone.

        What a program sent elsewhere would be lost in a switch without a trace. The congestion control is the route's,
        as a namespace's sysctl is refused what the machine does not allow all.
        """
        prefix = FABRIC_PREFIX if congestion_control else "0.0.0.0/0"
        metrics = netlink.route_metrics(round(1000 * rto_min_s(self.topology)), congestion_control)
        for port in self.ports:
            if port.at_host:
                route = netlink.route(prefix, port.index, via=self.topology.gateway_ip(port.leaf), metrics=metrics)
                try:
                    self.netlink[port.node].send([route])
                except EmulatorError as error:
                    if congestion_control is None:
                        raise
                    what = f"this kernel has no {congestion_control} ({error})"
                    raise EmulatorError(f"transport.congestion_control: {what}") from error


def rto_min_s(topology: LeafSpine) -> float:
    """Return the least retransmission time-out, in seconds, of a fabric's hosts."""
    drain_s = topology.queue_bytes * 8 / topology.slowest_bps
    return min(max(drain_s, _LEAST_RTO_MIN_S), _MOST_RTO_MIN_S)


def _ports(topology: LeafSpine, pids: Mapping[str, int]) -> list[Port]:
    """Both ends of every link, the nearer to the hosts first; interfaces are numbered alike."""
    host_shaping = shaping_for(topology.host_rate_bps, topology)
    ports: list[Port] = []

    def link(near: str, far: str, shaping: Shaping, leaf: int, spine: int | None, host: int | None) -> None:
        for name, peer in ((near, far), (far, near)):
            node, up = name.partition("-")[0], name == near
            index = _FIRST_INDEX + len(ports)
            ports.append(Port(name, node, peer, pids[node], index, shaping, leaf, spine, host, up))

    for host in range(topology.hosts):
        leaf = topology.leaf_of(host)
        far = f"{topology.leaf_name(leaf)}-eth{topology.leaf_port_to_host(host)}"
        link(f"{topology.host_name(host)}-eth0", far, host_shaping, leaf, None, host)
    for leaf, spine in topology.links():
        near = f"{topology.leaf_name(leaf)}-eth{topology.leaf_port_to_spine(spine)}"
        far = f"{topology.spine_name(spine)}-eth{topology.spine_port_to_leaf(leaf)}"
        link(near, far, shaping_for(topology.spine_rate_bps(spine), topology), leaf, spine, None)
    return ports
