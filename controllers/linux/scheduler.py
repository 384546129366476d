"""Hedera's controller for Linux routers: a process that polls what leaves count, and places connections.

Every period it asks each leaf what its hosts' connections have sent. Those that sent a hundredth of a host's rate or
more since then, which acknowledgements alone do not, are under way; `controllers.elephants` places the large ones among
them. Rounds are due by the clock. What a round takes passes before its placements count, as in a real network.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TextIO

from controllers.elephants import placed
from controllers.linux.rules import COUNTED, PLACED, FiveTuple, mark_of, placement
from emulator.child import Child
from emulator.nft import counted, load, mapped
from emulator.topology import LeafSpine
from emulator.vigil import release, watch

_ACTIVE_SHARE = 0.01
_REPLY_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Order:
    """What is to be scheduled: `leaves` are processes in the network namespaces of the leaves of `fabric`."""

    fabric: LeafSpine
    leaves: Sequence[int]
    period_s: float


class Scheduler:
    """The scheduling process; it polls from `schedule` to `rest`."""

    def __init__(self, log: TextIO) -> None:
        self._child = Child("controllers.linux.scheduler", "the flow scheduler", log)
        watch(self._child.pid, "the flow scheduler")

    def schedule(self, fabric: LeafSpine, leaves: Sequence[int], period_s: float) -> None:
        """Begin to place connections; what leaves hold placed already is kept where it may be. Raises EmulatorError."""
        self._child.ask(Order(fabric, leaves, period_s), _REPLY_TIMEOUT_S)

    def rest(self) -> None:
        """Change nothing any more. Raises EmulatorError if the process is gone, or what a round failed of."""
        self._child.ask(None, _REPLY_TIMEOUT_S)

    def stop(self) -> None:
        """Kill the process. What it has placed stays so."""
        release(self._child.pid)
        self._child.end(0)


def serve(channel: Connection) -> None:
    """Schedule as ordered, until the next order; None is to rest. Every order is answered once it is in force."""
    order: Order | None = channel.recv()
    while True:
        channel.send("heard")
        if order:
            _schedule(order, channel)
        order = channel.recv()


def _schedule(order: Order, channel: Connection) -> None:
    """Place connections every period until an order is there."""
    rounds, due_s = _Rounds(order), time.monotonic() + order.period_s
    while not channel.poll(max(0.0, due_s - time.monotonic())):
        rounds.next()
        due_s = max(due_s + order.period_s, time.monotonic())


class _Rounds:
    """What rounds remember: what connections had sent by the last one, and where they were placed."""

    def __init__(self, order: Order) -> None:
        self._fabric, self._leaves = order.fabric, order.leaves
        self._hosts = {self._fabric.host_ip(host): host for host in range(self._fabric.hosts)}
        self._sent_bytes: dict[FiveTuple, int] = {}
        self._polled_s = time.monotonic()
        self._spines: dict[FiveTuple, int] = {}
        for pid in self._leaves:  # whoever scheduled before
            self._spines |= {flow: mark - 1 for flow, mark in mapped(pid, "fabric", PLACED).items()}

    def next(self) -> None:
        """Ask all leaves, decide, and tell those whose placements change."""
        begun_s = time.monotonic()
        flows = self._under_way(begun_s)
        spines = placed(flows, self._fabric, self._spines)
        rulesets = {}
        for leaf, pid in enumerate(self._leaves):
            before, now = self._of_leaf(self._spines, leaf), self._of_leaf(spines, leaf)
            if before != now:
                rulesets[pid] = placement({flow: mark_of(spine) for flow, spine in now.items()})
        load(rulesets)
        moved = sum(self._spines.get(flow) != spine for flow, spine in spines.items())
        self._spines = spines
        if moved:
            took_ms = 1000 * (time.monotonic() - begun_s)
            said = f"placed {len(spines)} of {len(flows)} connections, {moved} anew, in {took_ms:.1f} ms"
            print(f"{time.strftime('%H:%M:%S')} flow scheduler: {said}", file=sys.stderr, flush=True)

    def _under_way(self, now_s: float) -> dict[FiveTuple, tuple[int, int]]:
        """The connections that carry data, each with its sender and its receiver."""
        least_bytes = _ACTIVE_SHARE * self._fabric.host_rate_bps / 8 * (now_s - self._polled_s)
        sent_bytes: dict[FiveTuple, int] = {}
        with ThreadPoolExecutor(len(self._leaves)) as pool:
            for counts in pool.map(lambda pid: counted(pid, "fabric", COUNTED), self._leaves):
                sent_bytes.update(counts)
        before, self._sent_bytes, self._polled_s = self._sent_bytes, sent_bytes, now_s
        return {
            flow: (self._hosts[flow[0]], self._hosts[flow[1]])
            for flow, sent in sorted(sent_bytes.items())
            if sent - before.get(flow, 0) >= least_bytes and flow[1] in self._hosts
        }

    def _of_leaf(self, spines: dict[FiveTuple, int], leaf: int) -> dict[FiveTuple, int]:
        return {flow: spine for flow, spine in spines.items() if self._fabric.leaf_of(self._hosts[flow[0]]) == leaf}
