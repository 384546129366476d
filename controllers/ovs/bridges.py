"""Leaves and spines as Open vSwitch's bridges, programmed over OpenFlow: a data plane."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from controllers.ovs.client import OPENFLOW_PORT, Controller
from controllers.ovs.daemon import OpenVSwitch
from controllers.ovs.nodes import FabricController, FabricSwitch
from controllers.ovs.openflow import signal_port
from emulator import netlink
from emulator.command import run
from emulator.dataplane import Endpoints
from emulator.errors import EmulatorError
from emulator.forwarding import (
    LEAST_POLLED_S,
    NO_FLOWLETS,
    POLLED_TOO_OFTEN,
    Flowlets,
    Forwarding,
    Scheduling,
    Spraying,
)
from emulator.namespaces import set_sysctls
from emulator.netlink import LinkEnd, Netlink
from emulator.nic import LATE_IS_VALID
from emulator.nodes import SANDBOX_PID
from emulator.topology import LeafSpine, Link

if TYPE_CHECKING:
    from emulator.fabric import Fabric


class Bridges:
    """Open vSwitch's bridges as the data plane of a fabric: see `emulator.dataplane.Dataplane`.

    `name` is ovs-kernel or ovs-user, after the datapath.
    """

    switch = FabricSwitch
    macs: dict[str, str] = {}  # noqa: RUF012 - random ones: the sandbox's own stack then leaves the packets alone
    sysctls = None  # the switches share the sandbox's namespace
    hashes_as_predicted = True

    def __init__(self, topology: LeafSpine, name: str, why: str, log: TextIO) -> None:
        self.name, self.why = name, why
        self.whole_frames = name == "ovs-user"
        self.switch_options = {"datapath": name.removeprefix("ovs-"), "protocols": "OpenFlow13"}
        self._controller = Controller(log)  # importing os-ken takes a while: meanwhile, the rest
        self._ovs = OpenVSwitch(log)
        self.version = self._ovs.version
        self.watched_pids = [self._ovs.daemon.pid]
        self._in_force: object = None
        self._signals: dict[Link, int] = {}  # the interface of each, once leaves are protected
        self._dead: frozenset[Link] = frozenset()

    def start(self, fabric: Fabric) -> None:
        self._first_signal = 1 + max(port.index for port in fabric.ports)
        self._netlink = Netlink()  # our own: who reacts does so beside what else is asked of the sandbox
        fabric.net.addController("controller", FabricController, ip="127.0.0.1", port=OPENFLOW_PORT)
        self._controller.wait_ready()

    def program(
        self,
        topology: LeafSpine,
        seed: int,
        connections: Sequence[Endpoints],
        forwarding: Forwarding | None,
        *,
        protected: bool,
    ) -> None:
        if isinstance(forwarding, Flowlets):
            raise EmulatorError(NO_FLOWLETS)
        if isinstance(forwarding, Scheduling):
            if forwarding.period_s < LEAST_POLLED_S:
                raise EmulatorError(POLLED_TOO_OFTEN)
            self._ovs.count_often()
        wanted = (topology, seed, forwarding, protected)
        if self._in_force == wanted and not isinstance(forwarding, Scheduling):  # which begins anew with every run
            return
        self._in_force = None
        if protected and not self._signals:
            self._make_signals(topology)
        self._controller.program(topology, seed, forwarding, protected=protected)
        if isinstance(forwarding, Spraying):
            self._trust_tcp()
        self._in_force = wanted

    def _make_signals(self, topology: LeafSpine) -> None:
        """Give each leaf a port for each uplink that carries nothing, and is up as long as the uplink is."""
        self._signals = {link: self._first_signal + 2 * place for place, link in enumerate(topology.links())}

        def end(name: str, index: int) -> LinkEnd:
            return LinkEnd(index, name, SANDBOX_PID, None, topology.mtu_bytes, 1, 1)

        def arguments() -> Iterator[str]:
            for leaf, spine in self._signals:
                bridge, number = topology.leaf_name(leaf), signal_port(spine)
                name = f"{bridge}-s{spine + 1}"
                yield from ("--", "add-port", bridge, name, "--", "set", "interface", name, f"ofport_request={number}")

        for (leaf, spine), index in self._signals.items():
            name = f"{topology.leaf_name(leaf)}-s{spine + 1}"
            pair = netlink.veth_pair(end(name, index), end(f"{name}-far", index + 1))
            self._netlink.send([pair, netlink.interface_up(index), netlink.interface_up(index + 1)])
        run(["ovs-vsctl", *list(arguments())[1:]])

    def notice(self, links: Collection[Link]) -> None:
        dead = frozenset(links) & self._signals.keys()
        changed = sorted(dead ^ self._dead)
        self._netlink.send([netlink.interface_up(self._signals[link], up=link not in dead) for link in changed])
        self._dead = dead

    def lose_controller(self) -> None:
        self._controller.stop()
        self._in_force = None

    def restore_controller(self) -> None:
        self._controller.start()

    def _trust_tcp(self) -> None:
        """Have connection trackers count what is late, as sprayed packets are, to its connection."""
        if self.name == "ovs-user":
            self._ovs.disable_sequence_checks()
        else:
            set_sysctls(LATE_IS_VALID)

    def warmed_up(self) -> int | None:
        return self._ovs.raise_buffers() if self.whole_frames else None
