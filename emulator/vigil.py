"""Notices at once when a process ends that a fabric rests upon: a switch, the controller, the sampler, a host's holder.

One vigil is kept in each process, which in the sandbox is the one that builds the fabric. `watch` it over every process
that must not end; within `kept`, the main thread is interrupted by LostError, whatever it waits for, as soon as one
does. What has happened cannot be mended in place: the fabric is to be built anew, in another sandbox.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from emulator.errors import EmulatorError

_WAKE = signal.SIGUSR1
_SEEN_WITHIN_S = 0.2  # that a process has ended is known a moment after its files are closed


class LostError(EmulatorError):
    """A process has ended without which a fabric is none."""


class _Vigil:
    """Waits for the end of processes, in a thread of its own, by their pidfds (pidfd_open(2))."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}  # by pidfd; changed by whoever watches while others look: always as a whole
        self._pidfds: dict[int, int] = {}  # by process
        self._ended = select.epoll()
        self._armed = False
        signal.signal(_WAKE, self._interrupt)
        threading.Thread(target=self._wait, name="vigil", daemon=True).start()

    def watch(self, pid: int, name: str) -> None:
        pidfd = os.pidfd_open(pid)
        self._names, self._pidfds[pid] = {**self._names, pidfd: name}, pidfd
        self._ended.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)

    def release(self, pid: int) -> None:
        if (pidfd := self._pidfds.pop(pid, None)) is not None:
            self._names = {each: name for each, name in self._names.items() if each != pidfd}
            self._ended.unregister(pidfd)  # and stays open: somebody may be looking at it

    def loss(self, within_s: float) -> str | None:
        ended, names = select.poll(), self._names
        for pidfd in names:
            ended.register(pidfd, select.POLLIN)
        found = ended.poll(within_s * 1000)
        return _sentence(found[0][0], names[found[0][0]]) if found else None

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        self._armed = True
        try:
            self._raise()
            yield
        finally:
            self._armed = False

    def _wait(self) -> None:
        while True:
            if self._ended.poll():
                signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._raise()

    def _raise(self) -> None:
        if lost := self.loss(0):
            self._armed = False  # once is enough: what is tidied up now is not to be interrupted
            raise LostError(lost)


def _sentence(pidfd: int, name: str) -> str:
    try:
        end = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # another's child, or one that was waited for
        end = None
    if end is None:
        return f"{name} has ended, which nobody asked it to"
    if end.si_code == os.CLD_EXITED:
        return f"{name} has ended with exit status {end.si_status}, which nobody asked it to; see run.log"
    return f"{name} was ended by {signal.Signals(end.si_status).name}"


@functools.cache
def _vigil() -> _Vigil:
    return _Vigil()


def watch(pid: int, name: str) -> None:
    """Keep watch over the process `pid`, which people know by `name`. To be called in the main thread."""
    _vigil().watch(pid, name)


def release(pid: int) -> None:
    """Watch no more over the process `pid`, which is about to end as it should."""
    _vigil().release(pid)


def loss(within_s: float = _SEEN_WITHIN_S) -> str | None:
    """Return which of the processes has ended, in a sentence, if one has or does so within `within_s`."""
    return _vigil().loss(within_s)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Raise LostError within the block, once, as soon as a process has ended that is watched, or if one has already."""
    with _vigil().kept():
        yield
