"""A process of ours, and the one channel over which Python objects pass to it and back.

`Child(MODULE, ...)` starts a Python that calls `main` here, which hands its end of the channel to the module's `serve`.
What `serve` is to do comes over the channel; when the other end goes away, so does the process. An EmulatorError that
passes is raised where it is received.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import signal
import socket
import subprocess
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import IO, Any

from emulator.errors import EmulatorError
from emulator.inherited import environment, python

_END_TIMEOUT_S = 5.0
_PR_SET_PDEATHSIG = 1


class ChildEnded(EmulatorError):
    """A process ended before it had answered."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"{name} ended unexpectedly (exit status {status}); its last words are in run.log")
        self.status = status


class Child:
    """A running process. `name` is what people call it, `log` receives what it prints.

    It is started by the command `by`, if that is given, and has the open files `descriptors` under the same numbers.
    `session`: it has one of its own, so that Ctrl-C does not reach it.
    """

    def __init__(
        self,
        module: str,
        name: str,
        log: IO[Any],
        *,
        by: Sequence[str] = (),
        descriptors: Sequence[int] = (),
        session: bool = False,
    ) -> None:
        self._name = name
        self._channel, theirs = _channel()
        with theirs:
            self._process = subprocess.Popen(
                [*by, *python("emulator.child", module, theirs.fileno())],
                pass_fds=[theirs.fileno(), *descriptors],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=session,
            )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def send(self, what: object) -> None:
        """Hand over an object, pickled. Raises ChildEnded."""
        try:
            self._channel.send(what)
        except OSError as error:
            self.receive(_END_TIMEOUT_S)  # raises what it may have said before it ended
            raise self._ended() from error

    def receive(self, timeout_s: float | None = None) -> Any:
        """Wait for an object and return it. Raises EmulatorError: one that was sent, silence, or ChildEnded."""
        try:
            if not self._channel.poll(timeout_s):
                self.end(0)
                raise EmulatorError(f"{self._name} has been silent for {timeout_s:g} s and was ended")
            received = self._channel.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(received, EmulatorError):
            raise received
        return received

    def has_answered(self) -> bool:
        """Whether `receive` would return, or raise, at once."""
        return self._channel.poll(0)

    def ask(self, what: object, timeout_s: float | None = None) -> Any:
        """Hand over an object and return the answer. Raises EmulatorError, as `send` and `receive` do."""
        self.send(what)
        return self.receive(timeout_s)

    def kill(self) -> None:
        """Have it end at once, whatever it is doing; whoever waits for its answer gets ChildEnded."""
        self._process.kill()

    def end(self, grace_s: float = _END_TIMEOUT_S) -> None:
        """Close the channel, upon which the process ends; kill it after `grace_s`."""
        self._channel.close()
        if grace_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self._process.kill()  # does nothing to a process that has been waited for
        self._process.wait()

    def _ended(self) -> ChildEnded:
        self.end()
        return ChildEnded(self._name, self._process.returncode)


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _channel() -> tuple[Connection, Connection]:
    """Both ends; one goes to another process by its file descriptor."""
    ours, theirs = socket.socketpair()
    return Connection(ours.detach()), Connection(theirs.detach())


def main(arguments: Sequence[str]) -> None:
    """Serve whoever started this process: `arguments` are the module and the channel's descriptor."""
    module, descriptor = arguments
    channel = Connection(int(descriptor))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # whoever it was has gone
        try:
            importlib.import_module(module).serve(channel)
        except EmulatorError as error:
            channel.send(error)
            while True:  # until it has been read
                channel.recv()
