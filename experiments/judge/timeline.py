"""At which rate each port was meant to send at every moment of a run, and what faults took from it.

A fault acts at some time between asking the kernel and its answer, and a packet that is under way then is sent at the
old rate. So of every stretch of time there is a least and a most that a port could send.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emulator.faults.fault import Change, Happened
from emulator.ports import Port

Floats = NDArray[np.float64]


class _Step(NamedTuple):
    """From `time_s` on, a port sends at a rate between these two."""

    time_s: float
    least_bps: float
    most_bps: float


class Timeline:
    """What `faults` made of `ports`, which without them send at the rates they are shaped to."""

    def __init__(self, ports: Sequence[Port], faults: Sequence[Happened] = ()) -> None:
        self._ports = ports
        self._changes: dict[int, list[Change]] = {}
        for change in sorted(_changes(faults), key=lambda change: change.asked_s):
            if change.port is not None:
                self._changes.setdefault(change.port, []).append(change)
        self._steps = {port: list(self._steps_of(port)) for port in self._changes}

    def could_send_bytes(self, port: int, start_s: Floats, end_s: Floats) -> tuple[Floats, Floats]:
        """Return the least and the most that a port with enough to send could from each start to its end."""
        steps = self._steps.get(port, [])
        usual_bps = float(self._ports[port].shaping.rate_bps)
        least = most = usual_bps * (end_s - start_s)
        for place, step in enumerate(steps):
            until_s = steps[place + 1].time_s if place + 1 < len(steps) else np.inf
            within_s = np.maximum(np.minimum(end_s, until_s) - np.maximum(start_s, step.time_s), 0.0)
            least = least + (step.least_bps - usual_bps) * within_s
            most = most + (step.most_bps - usual_bps) * within_s
        return least / 8, most / 8

    @property
    def changed(self) -> bool:
        """Whether any fault came about."""
        return bool(self._changes)

    @cached_property
    def destroyed_packets(self) -> NDArray[np.int64]:
        """Packets that faults took, by the place of the port they were last seen at."""
        totals = np.zeros(len(self._ports), dtype=np.int64)
        for port, changes in self._changes.items():
            totals[port] = sum(change.destroyed_packets for change in changes)
        return totals

    @cached_property
    def on_lossy_links(self) -> NDArray[np.bool_]:
        """Of every port, whether a fault took packets at either end of its link, going either way."""
        taken = {self._ports[place].name for place in np.flatnonzero(self.destroyed_packets).tolist()}
        return np.array([port.name in taken or port.peer in taken for port in self._ports], dtype=bool)

    def _steps_of(self, place: int) -> Iterator[_Step]:
        """While a change is under way both rates are possible; after it, until a bucket has filled at the old one."""
        shaping = self._ports[place].shaping
        before_bps = shaping.rate_bps
        changes = [change for change in self._changes[place] if change.rate_bps is not None]
        for number, change in enumerate(changes):
            now_bps = change.rate_bps or 0
            slower, faster = sorted((before_bps, now_bps))
            yield _Step(change.asked_s, slower, faster)
            settled_s = change.confirmed_s + (shaping.burst_bytes * 8 / before_bps if before_bps else 0.0)
            if number + 1 == len(changes) or settled_s < changes[number + 1].asked_s:
                yield _Step(settled_s, now_bps, now_bps)
            before_bps = now_bps


def _changes(faults: Sequence[Happened]) -> Iterator[Change]:
    for each in faults:
        yield from each.begun
        yield from each.ended
