"""What ends a command from outside: SIGTERM and SIGHUP do as Ctrl-C does.

Everything built goes, what had finished is kept, the terminal is as it was, and the exit status is 128 + the signal's
number. This is the one place that deals with signals; all others see a KeyboardInterrupt.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_S = 1.0  # within it, the same signal again is the same event


class Interrupted(KeyboardInterrupt):
    """The signal `number` came."""

    def __init__(self, number: int) -> None:
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        super().__init__(f"interrupted{by}")
        self.number = number


def status(error: KeyboardInterrupt) -> int:
    """Return the exit status of a command that `error` ended."""
    return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Have signals raise Interrupted within the block; those that were to be ignored (nohup) still are."""
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
    came: dict[int, float] = {}

    def interrupt(number: int, _frame: FrameType | None) -> None:
        _leave_dead(terminals)
        before_s, came[number] = came.get(number, -_SAME_S), time.monotonic()
        # Who presses Ctrl-C again will not wait; but a terminal that goes and the shell in it say so both.
        if number == signal.SIGINT or came[number] - before_s >= _SAME_S:
            raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in _ENDING}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_dead(terminals: list[int]) -> None:
    """What would be written to a terminal that is gone goes nowhere instead of failing."""
    gone = [descriptor for descriptor in terminals if not os.isatty(descriptor)]
    if gone:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        for descriptor in gone:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
