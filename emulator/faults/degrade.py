"""A link that becomes slower, and fast again: its token buckets get another rate, and what waits in them stays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from emulator.errors import EmulatorError
from emulator.faults.fault import Change, Fault, InForce
from emulator.shaping import read_back, shape

if TYPE_CHECKING:
    from emulator.fabric import Fabric


@dataclass(frozen=True, kw_only=True)
class Degrade(Fault):
    """Links carry `rate_bps`, with queues and buckets as deep as before."""

    kind, means = "degrade", "rate"
    predictable = True

    rate_bps: int

    def begin(self, fabric: Fabric) -> InForce:
        places = self.senders(fabric.ports)
        changes = _set(fabric, dict.fromkeys(places, self.rate_bps))
        usual = {place: fabric.ports[place].shaping.rate_bps for place in places}
        return InForce(changes, lambda: _set(fabric, usual))

    def left_bps(self, rate_bps: int) -> int:
        return min(rate_bps, self.rate_bps)

    def sends_bps(self, rate_bps: int) -> int:
        return self.rate_bps


def _set(fabric: Fabric, rates_bps: dict[int, int]) -> Sequence[Change]:
    """Give ports, by their places, these rates; return what the kernel then says, for each."""
    by_namespace: dict[int, list[int]] = {}
    for place in rates_bps:
        by_namespace.setdefault(fabric.ports[place].pid, []).append(place)
    changes = []
    for pid, places in by_namespace.items():
        ports = [fabric.ports[place] for place in places]
        netlink = fabric.netlink_of(pid)
        asked_s = time.monotonic()
        netlink.send(
            [
                shape(replace(port, shaping=replace(port.shaping, rate_bps=rates_bps[place])))
                for place, port in zip(places, ports, strict=True)
            ]
        )
        found = read_back(netlink)
        confirmed_s = time.monotonic()
        for place, port in zip(places, ports, strict=True):
            if port.index not in found:
                raise EmulatorError(f"{port.name} lost its shaping as it was given another rate")
            changes.append(Change(place, asked_s, confirmed_s, found[port.index].rate_bps))
    return changes
