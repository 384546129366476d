"""What a replay is watched by: whether anything still arrives, and how long it waits for the network."""

from __future__ import annotations

import select
import time
from typing import NamedTuple

from emulator.errors import EmulatorError
from emulator.topology import LeafSpine
from traffic.board import Board
from traffic.plan import TrafficPlan

PROGRESS_PERIOD_S = 0.2
_NOTE_PERIOD_S = 0.05


class Far(NamedTuple):
    """How far a replay is: which part of all bytes has arrived, and how many flows `of` all have ended."""

    share: float
    flows: int
    of: int


class Watch:
    """Says how far a replay is, and ends one in which nothing arrives any more."""

    def __init__(self, board: Board, plan: TrafficPlan, fabric: LeafSpine, stall_timeout_s: float) -> None:
        self._board, self._plan, self._fabric = board, plan, fabric
        self._total = max(1, plan.schedule.payload_bytes)
        self._stall_timeout_s = stall_timeout_s
        self.period_s = min(PROGRESS_PERIOD_S, stall_timeout_s / 4)
        """How often it is to look, or more often."""
        self._received = 0
        self._reported_s = self._moved_s = time.monotonic()

    def look(self) -> Far | None:
        """Return how far it is, once a while.

        Raises EmulatorError, naming the flows that are stuck, when nothing has arrived for the stall time-out.
        """
        now, received = time.monotonic(), sum(self._board.received)
        if received > self._received or not self._board.under_way:
            self._received, self._moved_s = received, now
        elif now - self._moved_s > self._stall_timeout_s:
            raise EmulatorError(self._stuck())
        if now - self._reported_s <= PROGRESS_PERIOD_S:
            return None
        self._reported_s = now
        return Far(received / self._total, sum(self._board.ended), len(self._plan.schedule.flows))

    def _stuck(self) -> str:
        plan, board, name = self._plan, self._board, self._fabric.host_name
        stuck = [flow for flow in plan.schedule.flows if board.started_s[flow.id] and board.missing[flow.id]]
        listed = ", ".join(
            f"flow {flow.id} {name(plan.hosts[flow.src])} -> {name(plan.hosts[flow.dst])} "
            f"({flow.size_bytes - board.missing[flow.id]} of {flow.size_bytes} bytes)"
            for flow in stuck[:5]
        )
        more = f" and {len(stuck) - 5} more" if len(stuck) > 5 else ""
        return f"no byte has arrived for {self._stall_timeout_s:g} s; stuck: {listed}{more}"


class Patience:
    """Waits for the network, and keeps the account of it: pairs of a time and how long was waited up to then."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.waited_s = 0.0
        self.account = [(time.monotonic(), 0.0)]

    def wait(self, limit_s: float) -> list[int]:
        """The descriptors that are ready, once one is or `limit_s` have passed."""
        asked = time.monotonic()
        ready = self._epoll.poll(limit_s)
        answered = time.monotonic()
        self.waited_s += answered - asked
        if answered - self.account[-1][0] > _NOTE_PERIOD_S:
            self.note()
        return [descriptor for descriptor, _ in ready]

    def note(self) -> None:
        self.account.append((time.monotonic(), self.waited_s))
