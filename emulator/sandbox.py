"""A private world for everything privileged: its own network, mounts, processes and Open vSwitch.

`Sandbox` starts one process inside new namespaces and has it run functions, streaming back what they yield. When that
process dies, for whatever reason, the kernel ends every process in its PID namespace and, with them, the namespaces:
there is nothing to clean up and no name to clean up by. If the process that owns the sandbox dies, so does the sandbox.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType, GeneratorType
from typing import Any, BinaryIO, TypeVar

from emulator.child import Child, ChildEnded
from emulator.command import run
from emulator.errors import EmulatorError
from emulator.namespaces import bind, quiet_ipv6

_START_TIMEOUT_S = 20.0
# setpriv: the sandbox dies with us. --kill-child: the world inside dies with unshare.
_APART = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc", "--"),
)
_LAST_BYTES = 8192  # of the log, of which the last line is shown
AMPLE_OPEN_FILES = 2**20
_RUN = "/run"
# Open vSwitch's sockets and `ip netns` names; and by whom programs would be told of the host's network, not of ours.
_MEETING_PLACES = frozenset({"openvswitch", "netns", "systemd", "dbus", "nscd", "spraylab", "spraylab-controller.sock"})

T = TypeVar("T")


class Sandbox:
    """A private world, for as long as the `with` block lasts. Needs root.

    `log` is an open file, which can be read too: the world inside, daemons and all, writes to it what it has to say.
    Functions given to `call` and `stream` are pickled by name: they live at the top level of an importable module.
    `descriptors` are open files that the world inside has too, under the same numbers.
    """

    def __init__(self, log: BinaryIO, descriptors: Sequence[int] = ()) -> None:
        self._log = log
        self._descriptors = descriptors

    def __enter__(self) -> Sandbox:
        if os.geteuid() != 0:
            raise EmulatorError("building a fabric needs root: start this with sudo")
        # Its own session: Ctrl-C reaches us alone, and we decide what to do about it.
        self._child = Child(
            "emulator.sandbox", "the sandbox", self._log, by=_APART, descriptors=self._descriptors, session=True
        )
        try:
            self._child.receive(_START_TIMEOUT_S)
        except ChildEnded as error:
            raise EmulatorError(f"no private namespaces could be made here: {self._last_words()}") from error
        except EmulatorError as error:
            raise EmulatorError(f"the sandbox did not start; its last words: {self._last_words()}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._child.end(0)  # SIGKILL to unshare takes the world inside with it

    def kill(self) -> None:
        """Have the world inside end at once. Another thread's, as `call` and `stream` raise EmulatorError then."""
        self._child.kill()

    def call(self, function: Callable[..., T], *args: Any, timeout_s: float | None = None) -> T:
        """Run `function(*args)` inside and return what it returns. Raises EmulatorError."""
        items = list(self._items(function, args, timeout_s))
        result: T = items[-1]
        return result

    def stream(self, function: Callable[..., Iterator[T]], *args: Any, timeout_s: float | None = None) -> Iterator[T]:
        """Run a generator inside and yield what it yields. `timeout_s` bounds the silence between two items.

        As with any generator, it goes on inside when the next item is asked for, and not before.
        """
        yield from self._items(function, args, timeout_s)

    def _items(self, function: Callable[..., Any], args: tuple[Any, ...], timeout_s: float | None) -> Iterator[Any]:
        try:
            self._child.send((function, args))
            while True:
                kind, value = self._child.receive(timeout_s)
                if kind == "end":
                    return
                yield value
                self._child.send("next")
        except ChildEnded as error:
            raise EmulatorError(
                f"the sandbox ended unexpectedly (exit status {error.status}): {self._last_words()}"
            ) from error

    def _last_words(self) -> str:
        descriptor = self._log.fileno()
        size_bytes = os.fstat(descriptor).st_size
        end = os.pread(descriptor, _LAST_BYTES, max(0, size_bytes - _LAST_BYTES))
        lines = end.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _prepare() -> None:
    """Inside: hide what the host's daemons are met by, and keep the kernel from sending packets of its own."""
    raise_open_files()
    _hide_meeting_places()
    with contextlib.suppress(EmulatorError):  # where it is refused, /sys shows less
        run(["mount", "-t", "sysfs", "spraylab", "/sys"])
    quiet_ipv6()
    run(["ip", "link", "set", "lo", "up"])


def _hide_meeting_places() -> None:
    """Have a /run of our own, in which is what the host has there, but not what its daemons are met by.

    Working directories, programs and results may lie there: USB disks and /run/user do.
    """
    before = os.open(_RUN, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "spraylab", _RUN])
    try:
        with os.scandir(f"/proc/self/fd/{before}") as entries:
            for entry in entries:
                if entry.name not in _MEETING_PLACES:
                    _show(entry, Path(_RUN) / entry.name)
    finally:
        os.close(before)


def _show(entry: os.DirEntry[str], place: Path) -> None:
    """Have at `place` what is hidden below it; sockets and the like, and what cannot be shown, stay hidden."""
    with contextlib.suppress(OSError):
        if entry.is_symlink():
            place.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir():
            place.mkdir()
            bind(entry.path, place)
        elif entry.is_file():
            place.touch()
            bind(entry.path, place)


def raise_open_files() -> None:
    """Let this process open as many files as it may, or amply many.

    Every subflow takes two, and a switch several for every port.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < AMPLE_OPEN_FILES:
        with contextlib.suppress(ValueError):  # only some may have more than the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (AMPLE_OPEN_FILES, AMPLE_OPEN_FILES))


def serve(channel: Connection) -> None:
    """Inside: run what is asked for until the other end goes away."""
    # The first process of a PID namespace ignores signals it has no handler for.
    signal.signal(signal.SIGTERM, _terminate)
    _prepare()
    channel.send("ready")
    while True:
        function, args = channel.recv()
        try:
            result = function(*args)
            if isinstance(result, GeneratorType):
                for item in result:
                    _hand_over(channel, item)
            else:
                _hand_over(channel, result)
            channel.send(("end", None))
        except EmulatorError as error:
            channel.send(EmulatorError(str(error)))
        except Exception as error:  # the traceback goes to the log, one sentence to the user
            traceback.print_exc()
            channel.send(EmulatorError(f"{type(error).__name__}: {error} (the traceback is in run.log)"))


def _hand_over(channel: Connection, item: Any) -> None:
    channel.send(("item", item))
    channel.recv()  # what is done with it outside must not disturb what comes next inside


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    os._exit(1)
