"""Leaves and spines as Open vSwitch's bridges, programmed over OpenFlow: a data plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from controllers.ovs.client import OPENFLOW_PORT, Controller
from controllers.ovs.daemon import OpenVSwitch
from controllers.ovs.nodes import FabricController, FabricSwitch
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
from emulator.nic import LATE_IS_VALID
from emulator.topology import LeafSpine

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

    def start(self, fabric: Fabric) -> None:
        fabric.net.addController("controller", FabricController, ip="127.0.0.1", port=OPENFLOW_PORT)
        self._controller.wait_ready()

    def program(
        self, topology: LeafSpine, seed: int, connections: Sequence[Endpoints], forwarding: Forwarding | None
    ) -> None:
        if isinstance(forwarding, Flowlets):
            raise EmulatorError(NO_FLOWLETS)
        if isinstance(forwarding, Scheduling):
            if forwarding.period_s < LEAST_POLLED_S:
                raise EmulatorError(POLLED_TOO_OFTEN)
            self._ovs.count_often()
        wanted = (topology, seed, forwarding)
        if self._in_force == wanted and not isinstance(forwarding, Scheduling):  # which begins anew with every run
            return
        self._in_force = None
        self._controller.program(topology, seed, forwarding)
        if isinstance(forwarding, Spraying):
            self._trust_tcp()
        self._in_force = wanted

    def _trust_tcp(self) -> None:
        """Have connection trackers count what is late, as sprayed packets are, to its connection."""
        if self.name == "ovs-user":
            self._ovs.disable_sequence_checks()
        else:
            set_sysctls(LATE_IS_VALID)

    def warmed_up(self) -> int | None:
        return self._ovs.raise_buffers() if self.whole_frames else None
