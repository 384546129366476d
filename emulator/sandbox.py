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
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType, GeneratorType
from typing import Any, TypeVar

from emulator.child import connection_pair
from emulator.errors import EmulatorError
from emulator.namespaces import quiet_ipv6

_START_TIMEOUT_S = 20.0
AMPLE_OPEN_FILES = 2**20

T = TypeVar("T")


class Sandbox:
    """Context manager; needs root. `log` is where the world inside, and its daemons, write what they have to say.

    Functions given to `call` and `stream` are pickled by name: they live at the top level of an importable module.
    `descriptors` are open files that the world inside has too, under the same numbers.
    """

    def __init__(self, log: Path, descriptors: Sequence[int] = ()) -> None:
        self._log = log
        self._descriptors = descriptors

    def __enter__(self) -> Sandbox:
        if os.geteuid() != 0:
            raise EmulatorError("building a fabric needs root: start this with sudo")
        ours, theirs = connection_pair()
        with self._log.open("ab") as log:
            # setpriv: the sandbox dies with us. --kill-child: the world inside dies with unshare. Its own session:
            # Ctrl-C reaches us alone, and we decide what to do about it.
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "--"),
                    *("unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc", "--"),
                    *(sys.executable, "-P", "-m", "emulator.sandbox", str(theirs.fileno())),
                ],
                pass_fds=[theirs.fileno(), *self._descriptors],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        theirs.close()
        self._connection = ours
        if not ours.poll(_START_TIMEOUT_S):
            self.__exit__()
            raise EmulatorError(f"the sandbox did not start; the last words of unshare are in {self._log}")
        try:
            ours.recv()
        except EOFError as error:
            self.__exit__()
            raise EmulatorError(f"no private namespaces could be made here: {self._last_words()}") from error
        return self

    def __exit__(self, *_: object) -> None:
        # SIGKILL to unshare takes the world inside with it.
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._connection.close()

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
            self._connection.send((function, args))
            while True:
                if not self._connection.poll(timeout_s):
                    raise EmulatorError(f"the sandbox has been silent for {timeout_s:g} s and was ended")
                kind, value = self._connection.recv()
                if kind == "end":
                    return
                if kind == "error":
                    raise EmulatorError(value)
                yield value
                self._connection.send("next")
        except (EOFError, OSError) as error:
            self._process.wait()
            raise EmulatorError(
                f"the sandbox ended unexpectedly (exit status {self._process.returncode}): {self._last_words()}"
            ) from error

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return lines[-1] if lines else f"nothing was said in {self._log}"


def _prepare() -> None:
    """Hide the host's runtime files, and keep the kernel from sending packets of its own."""
    raise_open_files()
    # All of /run: Open vSwitch's sockets, `ip netns` names, and whatever else daemons would meet by.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "spraylab", "/run"], check=True, timeout=10)
    subprocess.run(["mount", "-t", "sysfs", "spraylab", "/sys"], check=False, timeout=10, stderr=subprocess.DEVNULL)
    quiet_ipv6()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)


def raise_open_files() -> None:
    """As many as this process may have, or ample: every subflow takes two, and the switch several for every port."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < AMPLE_OPEN_FILES:
        with contextlib.suppress(ValueError):  # only some may have more than the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (AMPLE_OPEN_FILES, AMPLE_OPEN_FILES))


def _serve(connection: Connection) -> None:
    """Run what is asked for until the other end goes away."""
    connection.send("ready")
    while True:
        try:
            function, args = connection.recv()
        except EOFError:
            return
        try:
            result = function(*args)
            if isinstance(result, GeneratorType):
                for item in result:
                    _hand_over(connection, item)
            else:
                _hand_over(connection, result)
            connection.send(("end", None))
        except EmulatorError as error:
            connection.send(("error", str(error)))
        except Exception as error:  # the traceback goes to the log, one sentence to the user
            traceback.print_exc()
            connection.send(("error", f"{type(error).__name__}: {error} (the traceback is in run.log)"))


def _hand_over(connection: Connection, item: Any) -> None:
    connection.send(("item", item))
    connection.recv()  # what is done with it outside must not disturb what comes next inside


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    os._exit(1)


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    # The first process of a PID namespace ignores signals it has no handler for.
    signal.signal(signal.SIGTERM, _terminate)
    _prepare()
    _serve(connection)


if __name__ == "__main__":
    # Functions and exceptions are pickled by module name: run as the module others import.
    from emulator import sandbox

    sandbox.main()
