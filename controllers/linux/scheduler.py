"""Hedera's controller for Linux routers: a process that polls what leaves count, and places connections.

Every period it asks each leaf what its hosts' connections have sent, and has leaves hold what `controllers.rounds`
makes of that. Rounds are due by the clock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TextIO

from controllers.linux.rules import COUNTED, PLACED, mark_of, placement
from controllers.rounds import FiveTuple, Rounds
from emulator.child import Child
from emulator.nft import counted, load, mapped
from emulator.topology import LeafSpine
from emulator.vigil import release, watch

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
    rounds, due_s = Rounds(order.fabric, _held(order.leaves)), time.monotonic() + order.period_s
    while not channel.poll(max(0.0, due_s - time.monotonic())):
        rounds.begin()
        changes = rounds.decide(_sent_bytes(order.leaves))
        load(
            {
                order.leaves[leaf]: placement({flow: mark_of(spine) for flow, spine in change.now.items()})
                for leaf, change in changes.items()
            }
        )
        rounds.end()
        due_s = max(due_s + order.period_s, time.monotonic())


def _sent_bytes(leaves: Sequence[int]) -> dict[FiveTuple, int]:
    sent_bytes: dict[FiveTuple, int] = {}
    with ThreadPoolExecutor(len(leaves)) as pool:
        for counts in pool.map(lambda pid: counted(pid, "fabric", COUNTED), leaves):
            sent_bytes.update(counts)
    return sent_bytes


def _held(leaves: Sequence[int]) -> dict[FiveTuple, int]:
    """What leaves hold placed already, by whoever scheduled before: the spine of each connection."""
    return {flow: mark - 1 for pid in leaves for flow, mark in mapped(pid, "fabric", PLACED).items()}
