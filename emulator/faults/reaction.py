"""What the network does about links that go down and come up: a controller hears of it, and tells the leaves; or each
leaf sees what befalls its own uplinks, and takes others.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from emulator.errors import EmulatorError
from emulator.topology import Link

if TYPE_CHECKING:
    from emulator.fabric import Fabric

_JOIN_TIMEOUT_S = 30.0  # longer than switches may take to confirm


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """A controller hears `detect_s` after a link went down or came up, and has leaves avoid what is down then.

    Or nobody has to be told, where it is `local`: by then the leaf at its end has seen it, and takes another uplink.
    """

    detect_s: float
    local: bool = False


@dataclass(frozen=True)
class Reacted:
    """Because of what befell links at `heard_s`, leaves were told at `asked_s` and all had confirmed by `confirmed_s`.

    Times are of CLOCK_MONOTONIC.
    """

    heard_s: float
    asked_s: float
    confirmed_s: float


class _News(NamedTuple):
    """At `due_s`, somebody hears that these links are down; `of` is when what they hear of came about.

    Or it is a controller that has just `returned`.
    """

    due_s: float
    down: frozenset[Link]
    of: Sequence[float]
    returned: bool = False


class Reactor:
    """Reacts on a thread of its own, as faults go on meanwhile; without a `reaction`, nobody reacts to links."""

    def __init__(self, reaction: Reaction | None, fabric: Fabric) -> None:
        self._reaction, self._fabric = reaction, fabric
        self._news: queue.SimpleQueue[_News | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._problem: EmulatorError | None = None
        self._reacted: dict[float, Reacted] = {}
        self._down: frozenset[Link] = frozenset()
        self._silent = False
        self._missed: list[float] = []  # what came about while there was no controller

    def heard(self, at_s: float, down: Collection[Link]) -> None:
        """Say that from `at_s` on, these links and no others are down."""
        if self._reaction is None:
            return
        self._down = frozenset(down)
        if self._silent and not self._reaction.local:
            self._missed.append(at_s)
        else:
            self._tell(_News(at_s + self._reaction.detect_s, self._down, [at_s]))

    def silence(self) -> None:
        """Say that there is no controller any more."""
        self._silent = True

    def returned(self, at_s: float) -> None:
        """Say that there is one again since `at_s`: it has switches hold what they should, as links are then."""
        self._silent, missed, self._missed = False, self._missed, []
        self._tell(_News(at_s, self._down, [at_s, *missed], returned=True))

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

    def _tell(self, news: _News) -> None:
        if self._over.is_set():
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="reaction", daemon=True)
            self._thread.start()
        self._news.put(news)

    def _run(self) -> None:
        try:
            while news := self._news.get():
                if self._over.wait(max(0.0, news.due_s - time.monotonic())):
                    return
                asked_s = time.monotonic()
                self._react(news)
                confirmed_s = time.monotonic()
                self._reacted |= {heard_s: Reacted(heard_s, asked_s, confirmed_s) for heard_s in news.of}
        except EmulatorError as error:
            self._problem = error
        except OSError as error:
            self._problem = EmulatorError(f"leaves could not be told of a fault: {error}")

    def _react(self, news: _News) -> None:
        if not (self._reaction and self._reaction.local):
            self._fabric.avoid(news.down)
            return
        if news.returned:
            self._fabric.avoid(())
        self._fabric.notice(news.down)
