"""Packets that a link loses: some of them, or all, dropped as they arrive at its other end.

Before anything takes them from the interface, so on every data plane; what waits in the sender's queue is sent on and
lost as well. The link stays up, and nobody is told.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.bpf import Dropper
from emulator.errors import EmulatorError
from emulator.faults.fault import Change, Fault, InForce
from emulator.namespaces import inside

if TYPE_CHECKING:
    from emulator.fabric import Fabric


@dataclass(frozen=True, kw_only=True)
class Loss(Fault):
    """Links lose `share` of their packets, of those with data and of acknowledgements alike.

    Which packets, counted as they arrive at a port, follows from `seed`: see `emulator.bpf.dropped`.
    """

    kind, means = "loss", "program"

    share: float
    seed: int = 0

    def begin(self, fabric: Fabric) -> InForce:
        droppers: dict[int, Dropper] = {}
        changes = []
        try:
            for place in self.receivers(fabric.ports):
                port = fabric.ports[place]
                asked_s = time.monotonic()
                with inside(port.pid):
                    droppers[place] = Dropper(port.index, self.share, self.seed << 32 | place)
                changes.append(Change(place, asked_s, time.monotonic()))
        except EmulatorError:
            for dropper in droppers.values():
                dropper.close()
            raise
        return InForce(changes, lambda: _detached(droppers))


@dataclass(frozen=True, kw_only=True)
class Blackhole(Loss):
    """Links lose all packets, and stay up."""

    kind = "blackhole"

    share: float = 1.0

    def left_bps(self, rate_bps: int) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Down(Blackhole):
    """Links are down: they carry nothing, and unlike in a blackhole, the switches at their ends know.

    Interfaces are not set down, as Linux would empty their queues without counting what it throws away, and forget
    routes and neighbours. What waits is sent into the void instead, at the link's rate, and counted there.
    """

    kind = "down"
    noticed = True


def _detached(droppers: dict[int, Dropper]) -> Sequence[Change]:
    """Let packets pass again; what was lost is that of each port."""
    changes = []
    for place, dropper in droppers.items():
        asked_s = time.monotonic()
        counts = dropper.detach()
        changes.append(
            Change(
                place,
                asked_s,
                time.monotonic(),
                destroyed_packets=counts.dropped_packets,
                destroyed_bytes=counts.dropped_bytes,
                last_destroyed_s=counts.last_drop_ns / 1e9 if counts.dropped_packets else None,
            )
        )
    return changes
