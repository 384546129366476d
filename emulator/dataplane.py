"""What forwards packets in a fabric: which data plane an experiment gets and why, and what each has to offer."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from emulator.command import COMMAND_TIMEOUT_S
from emulator.sandbox import EmulatorError
from emulator.topology import LeafSpine, Link

if TYPE_CHECKING:
    from controllers.tables import Connection
    from emulator.fabric import Fabric

Asked = Literal["auto", "ovs", "linux"]
Name = Literal["ovs-kernel", "ovs-user", "linux"]

USERSPACE_LIMIT_BPS = 350_000_000
"""Host traffic, of all hosts together, that Open vSwitch's userspace datapath still carries faithfully where nothing
better is known: it forwards on one core (16 hosts at 20 Mb/s came within 1.04 to 1.10 of the bound beside other
programs; at 50 Mb/s the switch was late). `spraylab calibrate` measures it."""


class Choice(NamedTuple):
    name: Name
    why: str
    """One clause for the user."""


def choose(asked: Asked, topology: LeafSpine, userspace_limit_bps: int = USERSPACE_LIMIT_BPS) -> Choice:
    """`auto` takes the kernel datapath of Open vSwitch where there is one, then Linux routers if userspace switching
    would be too slow for the rates asked or has to take frames that travel as one, else Open vSwitch in user space.
    Call it in the sandbox.

    Raises EmulatorError when what is asked for is not installed, or cannot be.
    """
    if asked == "linux":
        return Choice("linux", "as asked")
    if shutil.which("ovs-vswitchd") is None:
        if asked == "ovs":
            raise EmulatorError("fabric.dataplane: Open vSwitch is not installed; write linux, or install it")
        return Choice("linux", "Open vSwitch is not installed")
    if kernel_datapath():
        return Choice("ovs-kernel", "this kernel has the openvswitch module")
    if topology.burst_frames > 1:
        single = "Open vSwitch in user space forwards single frames only"
        if asked == "ovs":
            raise EmulatorError(f"fabric.burst: {single}, and this kernel has no openvswitch module; write 1")
        return Choice("linux", f"{single}, and bursts of {topology.burst_frames} are asked for")
    if asked == "ovs":
        return Choice("ovs-user", "as asked, and this kernel has no openvswitch module")
    rate_bps = topology.hosts * topology.host_rate_bps
    limit = f"the {userspace_limit_bps / 1e9:.3g} Gb/s that Open vSwitch in user space carries faithfully"
    if rate_bps > userspace_limit_bps:
        return Choice("linux", f"{rate_bps / 1e9:.3g} Gb/s of host traffic is above {limit}")
    return Choice("ovs-user", f"{rate_bps / 1e9:.2g} Gb/s of host traffic is within {limit}")


def kernel_datapath() -> bool:
    """Whether this kernel has Open vSwitch's module (asking may load it)."""
    answer = subprocess.run(["ovs-dpctl", "dump-dps"], capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
    return answer.returncode == 0


class Dataplane(Protocol):
    """The leaves and spines of one fabric. Made first, so that what takes long can begin; then `start`, `program`."""

    @property
    def name(self) -> Name: ...

    @property
    def version(self) -> str | None:
        """Of Open vSwitch."""

    @property
    def switch(self) -> Any:
        """Mininet's class for a leaf or spine, made with `switch_options`."""

    @property
    def switch_options(self) -> Mapping[str, Any]: ...

    @property
    def sysctls(self) -> Mapping[str, str] | None:
        """Of each switch's own network namespace; None: the switches live in the sandbox's."""

    @property
    def macs(self) -> Mapping[str, str]:
        """The MAC that all ports of a switch have, by the switch's name; ports of others get random ones."""

    @property
    def watched_pids(self) -> Sequence[int]:
        """Processes that forward packets."""

    def start(self, fabric: Fabric) -> None:
        """Nodes and links are there, and every port is up."""

    def program(self, seed: int, connections: Sequence[Connection], failed: frozenset[Link]) -> None:
        """See `Fabric.program`."""

    def warmed_up(self) -> int | None:
        """Packets have passed. Returns the depth of the packet buffers that were raised, in bytes, if any were."""
