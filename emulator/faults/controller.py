"""A controller that dies in the middle of a run, and comes back: whoever forwards packets goes on as last told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.faults.fault import Change, Fault, InForce
from emulator.topology import LeafSpine, Link

if TYPE_CHECKING:
    from emulator.fabric import Fabric


@dataclass(frozen=True, kw_only=True)
class ControllerDown(Fault):
    """The network's controller is killed, and started again at the end: nobody hears of links meanwhile."""

    kind, means = "controller_down", "controller"
    predictable = True
    silences = True

    links: tuple[Link, ...] = ()

    def begin(self, fabric: Fabric) -> InForce:
        changes = [_done(fabric.plane.lose_controller)]
        return InForce(changes, lambda: [_done(fabric.plane.restore_controller)])

    def meets(self, other: Fault) -> bool:
        return self.means == other.means and self.overlaps(other)

    def words(self, fabric: LeafSpine) -> str:
        return f"{self.kind} {self.span}"


def _done(what: Callable[[], None]) -> Change:
    asked_s = time.monotonic()
    what()
    return Change(None, asked_s, time.monotonic())
