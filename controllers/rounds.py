"""What a scheduling controller makes of what leaves count, round by round: the same for every data plane.

Connections that sent a hundredth of a host's rate or more since the last round, which acknowledgements alone do not,
are under way; `controllers.elephants` places the large ones among them. What a round takes passes before its placements
count, as in a real network.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from controllers.elephants import placed
from emulator.topology import LeafSpine

_ACTIVE_SHARE = 0.01

FiveTuple = tuple[str, str, int, int]
"""A TCP connection, one way: the addresses of its sender and receiver, and their ports."""

Placed = Mapping[FiveTuple, int]
"""The spine of each connection that was placed."""


@dataclass(frozen=True)
class Change:
    """What a leaf holds of placements before a round and from then on."""

    before: Placed
    now: Placed


class Rounds:
    """What rounds remember: what connections had sent by the last one, and where they were placed."""

    def __init__(self, fabric: LeafSpine, held: Placed | None = None) -> None:
        """Begin with what is `held` placed already."""
        self._fabric = fabric
        self._hosts = {fabric.host_ip(host): host for host in range(fabric.hosts)}
        self._sent_bytes: Mapping[FiveTuple, int] = {}
        self._polled_s = self._begun_s = time.monotonic()
        self._spines = dict(held or {})
        self._found = ""

    def begin(self) -> None:
        """Begin a round: leaves are about to be asked."""
        self._begun_s = time.monotonic()

    def decide(self, sent_bytes: Mapping[FiveTuple, int]) -> dict[int, Change]:
        """Place connections by what each has sent so far; return what changes, by leaf."""
        flows = self._under_way(sent_bytes)
        before, self._spines = self._spines, placed(flows, self._fabric, self._spines)
        moved = sum(before.get(flow) != spine for flow, spine in self._spines.items())
        self._found = f"placed {len(self._spines)} of {len(flows)} connections, {moved} anew" if moved else ""
        changes = {
            leaf: Change(self._of_leaf(before, leaf), self._of_leaf(self._spines, leaf))
            for leaf in range(self._fabric.leaves)
        }
        return {leaf: change for leaf, change in changes.items() if change.before != change.now}

    def end(self) -> None:
        """End a round: leaves have been told. The log hears of it if a connection was moved."""
        if self._found:
            took_ms = 1000 * (time.monotonic() - self._begun_s)
            said = f"{time.strftime('%H:%M:%S')} flow scheduler: {self._found}, in {took_ms:.1f} ms"
            print(said, file=sys.stderr, flush=True)

    def _under_way(self, sent_bytes: Mapping[FiveTuple, int]) -> dict[FiveTuple, tuple[int, int]]:
        """The connections that carry data, each with its sender and its receiver."""
        least_bytes = _ACTIVE_SHARE * self._fabric.host_rate_bps / 8 * (self._begun_s - self._polled_s)
        before, self._sent_bytes, self._polled_s = self._sent_bytes, sent_bytes, self._begun_s
        return {
            flow: (self._hosts[flow[0]], self._hosts[flow[1]])
            for flow, sent in sorted(sent_bytes.items())
            if sent - before.get(flow, 0) >= least_bytes and flow[1] in self._hosts
        }

    def _of_leaf(self, spines: Placed, leaf: int) -> dict[FiveTuple, int]:
        return {flow: spine for flow, spine in spines.items() if self._fabric.leaf_of(self._hosts[flow[0]]) == leaf}
