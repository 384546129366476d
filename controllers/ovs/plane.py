"""Open vSwitch as a data plane that experiments may ask for: in the kernel where it can be, else in user space."""

from __future__ import annotations

import subprocess
from typing import TextIO

from controllers.plane import Offer, Plane
from emulator.command import COMMAND_TIMEOUT_S
from emulator.dataplane import Dataplane
from emulator.inherited import environment, which
from emulator.topology import LeafSpine

USERSPACE_LIMIT_BPS = 350_000_000
"""Host traffic, of all hosts together, that Open vSwitch's userspace datapath still carries faithfully where nothing
better is known: it forwards on one core (16 hosts at 20 Mb/s came within 1.04 to 1.10 of the bound beside other
programs; at 50 Mb/s the switch was late). `spraylab calibrate` measures it."""


def _offer(topology: LeafSpine, userspace_limit_bps: int | None) -> Offer:
    """What is slower than the fabric asks for, or takes single frames only, is passed over."""
    if not installed():
        missing = "Open vSwitch is not installed"
        return Offer("", passed_over=missing, refusal=f"fabric.dataplane: {missing}; write linux, or install it")
    if kernel_datapath():
        module = "this kernel has the openvswitch module"
        return Offer("ovs-kernel", module, module)
    if topology.burst_frames > 1:
        single = "Open vSwitch in user space forwards single frames only"
        return Offer(
            "",
            passed_over=f"{single}, and bursts of {topology.burst_frames} are asked for",
            refusal=f"fabric.burst: {single}, and this kernel has no openvswitch module; write 1",
        )
    limit_bps = userspace_limit_bps or USERSPACE_LIMIT_BPS
    rate_bps = topology.hosts * topology.host_rate_bps
    limit = f"the {limit_bps / 1e9:.3g} Gb/s that Open vSwitch in user space carries faithfully"
    return Offer(
        "ovs-user",
        "as asked, and this kernel has no openvswitch module",
        fits=f"{rate_bps / 1e9:.2g} Gb/s of host traffic is within {limit}",
        passed_over=f"{rate_bps / 1e9:.3g} Gb/s of host traffic is above {limit}" if rate_bps > limit_bps else "",
    )


def installed() -> bool:
    """Return whether this machine has Open vSwitch."""
    return which("ovs-vswitchd") is not None


def kernel_datapath() -> bool:
    """Return whether this kernel has Open vSwitch's module (asking may load it)."""
    answer = subprocess.run(
        ["ovs-dpctl", "dump-dps"], capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False, env=environment()
    )
    return answer.returncode == 0


def _make(topology: LeafSpine, name: str, why: str, log: TextIO) -> Dataplane:
    from controllers.ovs.bridges import Bridges  # imports Mininet, which only a machine that emulates has

    return Bridges(topology, name, why, log)


OVS = Plane(
    name="ovs",
    says="Open vSwitch, programmed over OpenFlow; in the kernel where it has the `openvswitch` module, else in user "
    "space",
    offer=_offer,
    make=_make,
    installed=installed,
    bursts=False,
)
