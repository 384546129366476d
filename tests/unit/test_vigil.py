"""A process that ends and must not is noticed at once, whatever is waited for, and named."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from emulator import vigil
from emulator.vigil import LostError

LONG_S, SOON_S = 30.0, 5.0


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Each test has a vigil of its own."""
    vigil._vigil.cache_clear()
    yield
    vigil._vigil.cache_clear()


@pytest.fixture
def daemon() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(int(sys.stdin.read() or 7))"],
                          stdin=subprocess.PIPE) as process:  # fmt: skip
        yield process
        process.kill()


def silent() -> None:
    ours, _theirs = socket.socketpair()
    with select.epoll() as epoll:
        epoll.register(ours.fileno(), select.EPOLLIN)
        epoll.poll(LONG_S)


@pytest.mark.parametrize("wait", [lambda: time.sleep(LONG_S), silent, threading.Event().wait])
def test_whatever_is_waited_for_is_interrupted(daemon: subprocess.Popen[bytes], wait: Callable[[], object]) -> None:
    vigil.watch(daemon.pid, "the daemon")
    threading.Timer(0.2, daemon.kill).start()
    started = time.monotonic()
    with pytest.raises(LostError, match=r"^the daemon was ended by SIGKILL$"), vigil.kept():
        wait()
    assert time.monotonic() - started < SOON_S


def test_how_it_ended_is_said(daemon: subprocess.Popen[bytes]) -> None:
    vigil.watch(daemon.pid, "the daemon")
    assert vigil.loss(0) is None
    assert daemon.stdin
    daemon.stdin.close()
    assert vigil.loss(LONG_S) == "the daemon has ended with exit status 7, which nobody asked it to; see run.log"
    daemon.wait()
    assert vigil.loss(0) == "the daemon has ended, which nobody asked it to"


def test_nobody_is_interrupted_who_does_something_else(
    daemon: subprocess.Popen[bytes],
) -> None:
    vigil.watch(daemon.pid, "the daemon")
    daemon.kill()
    assert vigil.loss(LONG_S)
    time.sleep(0.2)  # in which the signal comes, and nothing is raised
    with pytest.raises(LostError), vigil.kept():
        raise AssertionError("it has ended before")


def test_what_is_tidied_up_is_not_interrupted(daemon: subprocess.Popen[bytes]) -> None:
    """Another one ends meanwhile."""
    vigil.watch(daemon.pid, "the daemon")
    with subprocess.Popen(["sleep", str(LONG_S)]) as other:
        vigil.watch(other.pid, "the other")
        threading.Timer(0.2, daemon.kill).start()
        tidied = False

        def tidy() -> None:
            nonlocal tidied
            other.kill()
            time.sleep(0.3)
            tidied = True

        def work() -> None:
            with vigil.kept(), contextlib.ExitStack() as stack:
                stack.callback(tidy)
                time.sleep(LONG_S)

        with pytest.raises(LostError, match=r"^the daemon was"):
            work()
        assert tidied
