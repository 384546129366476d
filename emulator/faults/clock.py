"""Has faults happen when they are due, beside whatever plays the load."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emulator.errors import EmulatorError
from emulator.faults.fault import Change, Fault, Happened, InForce
from emulator.faults.reaction import Reaction, Reactor

if TYPE_CHECKING:
    from emulator.fabric import Fabric

_JOIN_TIMEOUT_S = 30.0  # longer than the kernel may take to answer over netlink


class Clock:
    """The faults of one run, on a thread of their own; without any there is no thread. A context manager.

    `reaction` is what the network does about those that it sees. `start` when the load begins, `halt` when it has
    ended, `settle` once its last packets are counted. Leaving it ends what is still in force, whatever came before.
    """

    def __init__(self, faults: Sequence[Fault], fabric: Fabric, reaction: Reaction | None = None) -> None:
        self._faults, self._fabric = faults, fabric
        self._reactor = Reactor(reaction, fabric)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._origin_s = 0.0
        self._begun: dict[int, Sequence[Change]] = {}
        self._ended: dict[int, Sequence[Change]] = {}
        self._in_force: dict[int, InForce] = {}
        self._problem: EmulatorError | None = None

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(EmulatorError):  # what came before is what the user is to hear of
            self.halt()
        with contextlib.suppress(EmulatorError):
            self._end_all()

    def start(self) -> None:
        """Begin to count the seconds."""
        self._origin_s = time.monotonic()
        if self._faults:
            self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
            self._thread.start()

    def halt(self) -> None:
        """Let nothing more happen; what is in force stays so. Raises EmulatorError where a fault could not happen."""
        self._over.set()
        if self._thread:
            self._thread.join(_JOIN_TIMEOUT_S)
            if self._thread.is_alive():
                raise EmulatorError(f"a fault was still beginning or ending {_JOIN_TIMEOUT_S:g} s after the load ended")
            self._thread = None
        self._reactor.halt()
        if self._problem:
            problem, self._problem = self._problem, None
            raise problem

    def settle(self) -> list[Happened]:
        """End what is in force; return how every fault came about. Raises EmulatorError."""
        self._end_all()
        return [
            self._happened(fault, self._begun.get(number, ()), self._ended.get(number, ()))
            for number, fault in enumerate(self._faults)
        ]

    def _happened(self, fault: Fault, begun: Sequence[Change], ended: Sequence[Change]) -> Happened:
        reacted = (self._reactor.to(_since_s(begun)), self._reactor.to(_since_s(ended)))
        return Happened(fault, self._origin_s + fault.at_s, begun, ended, reacted)

    def _run(self) -> None:
        """Begin and end each in its turn; at the same instant, what ends does so before what begins."""
        ends = [(fault.end_s, False, number) for number, fault in enumerate(self._faults)]
        begins = [(fault.at_s, True, number) for number, fault in enumerate(self._faults)]
        try:
            for due_s, begins_now, number in sorted(ends + begins):
                if due_s == float("inf") or self._over.wait(max(0.0, self._origin_s + due_s - time.monotonic())):
                    return
                if begins_now:
                    self._begin(number)
                else:
                    self._end(number)
        except EmulatorError as error:
            self._problem = error
        except OSError as error:
            self._problem = EmulatorError(f"a fault could not happen: {error}")

    def _begin(self, number: int) -> None:
        self._in_force[number] = in_force = self._faults[number].begin(self._fabric)
        self._begun[number] = in_force.changes
        if self._faults[number].silences:
            self._reactor.silence()
        self._tell(number, in_force.changes)

    def _end(self, number: int) -> None:
        self._ended[number] = changes = self._in_force[number].end()
        del self._in_force[number]
        if self._faults[number].silences:
            self._reactor.returned(_since_s(changes))
        self._tell(number, changes)

    def _tell(self, number: int, changes: Sequence[Change]) -> None:
        """Have the network hear of what its switches see."""
        if self._faults[number].noticed:
            down = {link for each in self._in_force if (fault := self._faults[each]).noticed for link in fault.links}
            self._reactor.heard(_since_s(changes), down)

    def _end_all(self) -> None:
        for number in list(self._in_force):
            self._end(number)


def _since_s(changes: Sequence[Change]) -> float:
    """When all of them were in force."""
    return max((change.confirmed_s for change in changes), default=0.0)
