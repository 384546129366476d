"""What the network does about links that go down and come up: a controller hears of it, and tells the leaves."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from emulator.errors import EmulatorError
from emulator.topology import Link

if TYPE_CHECKING:
    from emulator.fabric import Fabric

_JOIN_TIMEOUT_S = 30.0  # longer than switches may take to confirm


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """A controller hears `detect_s` after a link went down or came up, and has leaves avoid what is down then."""

    detect_s: float


@dataclass(frozen=True)
class Reacted:
    """Because of what befell links at `heard_s`, leaves were told at `asked_s` and all had confirmed by `confirmed_s`.

    Times are of CLOCK_MONOTONIC.
    """

    heard_s: float
    asked_s: float
    confirmed_s: float


class _News(NamedTuple):
    """From `at_s` on, these links were down."""

    at_s: float
    down: frozenset[Link]


class Reactor:
    """Reacts on a thread of its own, as faults go on meanwhile; without a `reaction` it does nothing at all."""

    def __init__(self, reaction: Reaction | None, fabric: Fabric) -> None:
        self._reaction, self._fabric = reaction, fabric
        self._news: queue.SimpleQueue[_News | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._problem: EmulatorError | None = None
        self._reacted: dict[float, Reacted] = {}

    def heard(self, at_s: float, down: Collection[Link]) -> None:
        """Say that from `at_s` on, these links and no others are down."""
        if self._reaction is None or self._over.is_set():
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=[self._reaction], name="reaction", daemon=True)
            self._thread.start()
        self._news.put(_News(at_s, frozenset(down)))

    def halt(self) -> None:
        """React no more. Raises EmulatorError where the leaves could not be told."""
        self._over.set()
        self._news.put(None)
        if self._thread:
            self._thread.join(_JOIN_TIMEOUT_S)
            if self._thread.is_alive():
                raise EmulatorError(
                    f"leaves were still being told of a fault {_JOIN_TIMEOUT_S:g} s after the load ended"
                )
            self._thread = None
        if self._problem:
            problem, self._problem = self._problem, None
            raise problem

    def to(self, heard_s: float) -> Reacted | None:
        """Return what came of what was heard at that time, if anything did."""
        return self._reacted.get(heard_s)

    def _run(self, reaction: Reaction) -> None:
        try:
            while news := self._news.get():
                if self._over.wait(max(0.0, news.at_s + reaction.detect_s - time.monotonic())):
                    return
                asked_s = time.monotonic()
                self._fabric.avoid(news.down)
                self._reacted[news.at_s] = Reacted(news.at_s, asked_s, time.monotonic())
        except EmulatorError as error:
            self._problem = error
        except OSError as error:
            self._problem = EmulatorError(f"leaves could not be told of a fault: {error}")
