"""Builds a leaf-spine inside the sandbox: Mininet's nodes, veth links, addresses, shaping; and checks what it built."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from mininet.log import setLogLevel
from mininet.node import RemoteController
from pyroute2 import IPRoute
from pyroute2.ethtool.ioctl import IoctlEthtool

from controllers.client import OPENFLOW_PORT, Controller
from emulator.namespaces import inside
from emulator.nodes import FabricNet
from emulator.ovs import OpenVSwitch
from emulator.ports import Port, Shaping, shaping_for
from emulator.sandbox import EmulatorError, quiet_ipv6
from emulator.shaping import read_back, shape
from emulator.topology import LeafSpine

_OFFLOADS = (
    "tx-checksumming",  # the userspace datapath would forward packets whose checksum is still to be filled in
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
)
# Links run at a thousandth of a data centre's rate, so queueing takes a thousand times as long: at Linux's least
# retransmission time-out of 200 ms, a few waiting frames would count as lost.
_METRICS = {"rto_min": 1000, "lock": 1 << 13}  # ms; the kernel heeds it only if locked
_WARM_UP_PORT = 9
_WARM_UP_TIMEOUT_S = 10.0


class Fabric:
    """A built, programmed and checked fabric. Lives in the sandbox and dies with it."""

    def __init__(self, topology: LeafSpine, log: TextIO, sysctls: Mapping[str, str], seed: int = 0) -> None:
        """Raises EmulatorError when something cannot be built as asked, naming it."""
        setLogLevel("error")
        self.topology = topology
        self.timings: dict[str, float] = {}
        started = time.monotonic()
        self.controller = Controller(log)  # importing os-ken takes a while: meanwhile, the rest
        self.ovs = OpenVSwitch(log)
        self.dataplane = f"ovs-{self.ovs.datapath}"
        self._lap("ovs", started)
        self.netlink = IPRoute()
        self.net = FabricNet(topology, self.ovs.datapath, self.netlink)
        self._ports_up()
        self._lap("links", started)
        self.host_pids = [self.net[topology.host_name(host)].pid for host in range(topology.hosts)]
        self._host_netlink = [self._configure_host(host, sysctls) for host in range(topology.hosts)]
        self._lap("hosts", started)
        self.net.addController("controller", RemoteController, ip="127.0.0.1", port=OPENFLOW_PORT)
        self.controller.wait_ready()
        self.net.start()
        self._lap("bridges", started)
        self.ports = self._shape_ports()
        self._lap("shaping", started)
        self.controller.program(topology, seed)
        self._lap("programmed", started)
        self._warm_up()
        self.buffer_bytes = self.ovs.raise_buffers() if self.ovs.datapath == "user" else None
        self._lap("ready", started)

    def _lap(self, name: str, started: float) -> None:
        self.timings[name] = round(time.monotonic() - started, 3)

    def _configure_host(self, host: int, sysctls: Mapping[str, str]) -> IPRoute:
        """Address, gateway and offloads of one host; returns a netlink socket that lives in its namespace."""
        topology = self.topology
        interface = f"{topology.host_name(host)}-eth0"
        gateway = topology.gateway_ip(topology.leaf_of(host))
        with inside(self.host_pids[host]):
            quiet_ipv6()
            _set_sysctls(sysctls)
            netlink = IPRoute()
            netlink.link("set", index=1, state="up")
            [index] = netlink.link_lookup(ifname=interface)
            _offloads_off(interface)
            # One segment a packet, or TCP would hand the NIC trains of packets that a spray could not take apart.
            netlink.link("set", index=index, state="up", gso_max_segs=1)
            netlink.addr("add", index=index, address=topology.host_ip(host), prefixlen=16)
            # The leaf answers no ARP: it is a router whose address is known, and it knows its hosts.
            mac = topology.gateway_mac(topology.leaf_of(host))
            netlink.neigh("add", dst=gateway, lladdr=mac, ifindex=index, state="permanent")
            netlink.flush_routes(table=254)
            netlink.route("add", dst=f"{gateway}/32", oif=index, scope="link")
            netlink.route("add", dst="default", gateway=gateway, oif=index, metrics=_METRICS)
        return netlink

    def _ports_up(self) -> None:
        """Before the bridges take them: Open vSwitch complains about ports that are down."""
        for link in self.netlink.get_links(kind="veth"):
            _offloads_off(link.get_attr("IFLA_IFNAME"))
            self.netlink.link("set", index=link["index"], state="up")

    def _shape_ports(self) -> list[Port]:
        topology = self.topology
        host = shaping_for(topology.host_rate_bps, topology.mtu_bytes, topology.queue_bytes)
        uplink = shaping_for(topology.fabric_rate_bps, topology.mtu_bytes, topology.queue_bytes)
        indices = {link.get_attr("IFLA_IFNAME"): link["index"] for link in self.netlink.get_links()}
        ports = []
        for number in range(topology.hosts):
            leaf = topology.leaf_of(number)
            near, far = (
                f"{topology.host_name(number)}-eth0",
                _port(topology.leaf_name(leaf), topology.leaf_port_to_host(number)),
            )
            netlink = self._host_netlink[number]
            [index] = netlink.link_lookup(ifname=near)
            shape(netlink, index, host)
            pid = self.host_pids[number]
            ports.append(Port(near, topology.host_name(number), far, pid, index, host, leaf, None, number, up=True))
            ports.append(Port(far, topology.leaf_name(leaf), near, 1, indices[far], host, leaf, None, number, up=False))
        for leaf, spine in topology.links():
            near = _port(topology.leaf_name(leaf), topology.leaf_port_to_spine(spine))
            far = _port(topology.spine_name(spine), topology.spine_port_to_leaf(leaf))
            ports.append(
                Port(near, topology.leaf_name(leaf), far, 1, indices[near], uplink, leaf, spine, None, up=True)
            )
            ports.append(
                Port(far, topology.spine_name(spine), near, 1, indices[far], uplink, leaf, spine, None, up=False)
            )
        for port in ports:
            if port.pid == 1:
                shape(self.netlink, port.index, port.shaping)
        return ports

    def read_shaping(self) -> dict[str, Shaping | None]:
        """What the kernel says is in force on every port, by its name."""
        here = read_back(self.netlink)
        found: dict[str, Shaping | None] = {}
        for port in self.ports:
            if port.pid == 1:
                found[port.name] = here.get(port.index)
            else:
                assert port.host is not None
                found[port.name] = read_back(self._host_netlink[port.host]).get(port.index)
        return found

    def _warm_up(self) -> None:
        """A datagram to every host, from the same place of the leaf before: the fabric carries, or we say so."""
        topology = self.topology
        sockets: list[socket.socket] = []
        try:
            for pid in self.host_pids:
                with inside(pid):
                    sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sockets[-1].bind(("", _WARM_UP_PORT))
            waiting = set(range(topology.hosts))
            deadline = time.monotonic() + _WARM_UP_TIMEOUT_S
            while waiting and time.monotonic() < deadline:
                for host in waiting:
                    sender = sockets[host - topology.hosts_per_leaf]
                    sender.sendto(b"spraylab", (topology.host_ip(host), _WARM_UP_PORT))
                while waiting:
                    ready, _, _ = select.select([sockets[host] for host in waiting], [], [], 0.1)
                    if not ready:
                        break
                    for arrived in ready:
                        arrived.recv(64)
                        waiting.discard(sockets.index(arrived))
        finally:
            for opened in sockets:
                opened.close()
        if waiting:
            names = ", ".join(topology.host_name(host) for host in sorted(waiting)[:8])
            raise EmulatorError(f"the fabric does not carry packets to {names}")


def _port(switch: str, number: int) -> str:
    return f"{switch}-eth{number}"


def _offloads_off(interface: str) -> None:
    """For an interface of the calling thread's network namespace."""
    handle: Any = IoctlEthtool(interface)
    try:
        for name in _OFFLOADS:
            handle.set_offload_flag(name, False)
    finally:
        handle.close()


def _set_sysctls(values: Mapping[str, str]) -> None:
    """Sysctls of the calling thread's network namespace; ones this kernel does not have are left out."""
    for name, value in values.items():
        path = Path("/proc/sys") / name.replace(".", "/")
        with contextlib.suppress(FileNotFoundError):
            path.write_text(value)
