"""What forwards packets in a fabric: the data planes there are, which one an experiment gets, and why.

A new one is a folder of its own, and its `Plane` in PLANES.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, TextIO

from controllers.linux.plane import LINUX
from controllers.ovs.plane import OVS
from controllers.plane import Plane
from emulator.errors import EmulatorError
from emulator.order import FabricOrder
from emulator.topology import LeafSpine

if TYPE_CHECKING:
    from emulator.fabric import Fabric

AUTO = "auto"

PLANES: dict[str, Plane] = {plane.name: plane for plane in (OVS, LINUX)}
"""By the name that experiments have for it, in the order in which `auto` looks for one that fits."""


class Choice(NamedTuple):
    """A data plane, its exact name, and one clause for the user that says what decided it."""

    plane: Plane
    name: str
    why: str


def choose(asked: str, topology: LeafSpine, userspace_limit_bps: int | None = None) -> Choice:
    """Choose the data plane that `asked` names, or the first that fits for `auto`. Call it in the sandbox.

    `auto` takes the kernel datapath of Open vSwitch where there is one, then Linux routers if userspace switching would
    be too slow for the rates asked or has to take frames that travel as one, else Open vSwitch in user space.

    Raises EmulatorError when what is asked for is not installed, or cannot be.
    """
    if asked != AUTO:
        plane = PLANES[asked]
        offer = plane.offer(topology, userspace_limit_bps)
        if offer.refusal:
            raise EmulatorError(offer.refusal)
        return Choice(plane, offer.name, offer.as_asked)
    passed_over: list[str] = []
    for plane in PLANES.values():
        offer = plane.offer(topology, userspace_limit_bps)
        if not offer.passed_over:
            return Choice(plane, offer.name, "; ".join(passed_over) or offer.fits)
        passed_over.append(offer.passed_over)
    raise EmulatorError(f"fabric.dataplane: no data plane fits this fabric here: {'; '.join(passed_over)}")


def build(order: FabricOrder, log: TextIO, seed: int = 0) -> Fabric:
    """Build the fabric of `order` on the data plane it asks for. Call it in the sandbox.

    `log` receives what daemons say, and `seed` is the first hash's. Raises EmulatorError.
    """
    from emulator.fabric import Fabric  # imports Mininet, which only a machine that emulates has

    started_s = time.monotonic()
    plane, name, why = choose(order.dataplane, order.topology, order.userspace_limit_bps)
    return Fabric(order, plane.make(order.topology, name, why, log), seed, started_s)
