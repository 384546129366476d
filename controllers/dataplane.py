"""What forwards packets in a fabric: the data planes there are, which one an experiment gets, and why."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple, TextIO

from emulator.command import COMMAND_TIMEOUT_S
from emulator.dataplane import Dataplane
from emulator.errors import EmulatorError
from emulator.inherited import environment, which
from emulator.order import FabricOrder
from emulator.topology import LeafSpine

if TYPE_CHECKING:
    from emulator.fabric import Fabric

USERSPACE_LIMIT_BPS = 350_000_000
"""Host traffic, of all hosts together, that Open vSwitch's userspace datapath still carries faithfully where nothing
better is known: it forwards on one core (16 hosts at 20 Mb/s came within 1.04 to 1.10 of the bound beside other
programs; at 50 Mb/s the switch was late). `spraylab calibrate` measures it."""


class Choice(NamedTuple):
    """A data plane by its name, and one clause for the user that says what decided it."""

    name: str
    why: str


def choose(asked: str, topology: LeafSpine, userspace_limit_bps: int | None = None) -> Choice:
    """Choose the data plane that `asked` names, or the best one for `auto`. Call it in the sandbox.

    `auto` takes the kernel datapath of Open vSwitch where there is one, then Linux routers if userspace switching would
    be too slow for the rates asked or has to take frames that travel as one, else Open vSwitch in user space.

    Raises EmulatorError when what is asked for is not installed, or cannot be.
    """
    userspace_limit_bps = userspace_limit_bps or USERSPACE_LIMIT_BPS
    if asked == "linux":
        return Choice("linux", "as asked")
    if which("ovs-vswitchd") is None:
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
    """Return whether this kernel has Open vSwitch's module (asking may load it)."""
    answer = subprocess.run(
        ["ovs-dpctl", "dump-dps"], capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False, env=environment()
    )
    return answer.returncode == 0


def build(order: FabricOrder, log: TextIO, seed: int = 0) -> Fabric:
    """Build the fabric of `order` on the data plane it asks for. Call it in the sandbox.

    `log` receives what daemons say, and `seed` is the first hash's. Raises EmulatorError.
    """
    from emulator.fabric import Fabric  # imports Mininet, which only a machine that emulates has

    started_s = time.monotonic()
    choice = choose(order.dataplane, order.topology, order.userspace_limit_bps)
    return Fabric(order, _made(choice, order.topology, log), seed, started_s)


def _made(choice: Choice, topology: LeafSpine, log: TextIO) -> Dataplane:
    if choice.name == "linux":
        from controllers.linux.routers import Routers

        return Routers(topology, choice.why, log)
    from controllers.ovs.bridges import Bridges

    return Bridges(topology, choice.name, choice.why, log)
