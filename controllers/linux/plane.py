"""Linux routers as a data plane that experiments may ask for."""

from __future__ import annotations

from typing import TextIO

from controllers.plane import Offer, Plane
from emulator.dataplane import Dataplane
from emulator.topology import LeafSpine


def _make(topology: LeafSpine, _name: str, why: str, log: TextIO) -> Dataplane:
    from controllers.linux.routers import Routers  # imports Mininet, which only a machine that emulates has

    return Routers(topology, why, log)


LINUX = Plane(
    name="linux",
    says="leaves and spines as Linux routers in network namespaces, programmed from the same tables",
    offer=lambda _topology, _userspace_limit_bps: Offer("linux", fits="every kernel has it"),
    make=_make,
)
