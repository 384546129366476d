"""Network namespaces: making them, and acting inside another one for a moment, from one thread."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from emulator.errors import EmulatorError
from emulator.inherited import environment, script

_CLONE_NEWUTS, _CLONE_NEWNET = 0x4000000, 0x40000000
_MS_BIND, _MS_REC = 0x1000, 0x4000
_HOLDER_TIMEOUT_S = 60.0
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(pid: int) -> Iterator[None]:
    """Move the calling thread into the network namespace of process `pid`, within the block.

    Sockets made there stay there.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        away = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(away)
        finally:
            os.close(away)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def bind(source: str | Path, target: str | Path) -> None:
    """Have at `target` what is at `source`, with all that is mounted there (mount(2)). Raises OSError."""
    _checked(_libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None), "mount")


def take_name(name: str) -> None:
    """Have a hostname of this process's own, and of what it starts, from now on. Raises OSError."""
    _checked(_libc.unshare(_CLONE_NEWUTS), "unshare")
    _checked(_libc.sethostname(name.encode(), len(name)), "sethostname")


def _setns(descriptor: int) -> None:
    _checked(_libc.setns(descriptor, _CLONE_NEWNET), "setns")


def _checked(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


def hold_namespaces(count: int) -> list[int]:
    """Start `count` processes, each in a new network namespace, that live until the sandbox ends; return their pids.

    Raises EmulatorError.
    """
    holder = subprocess.Popen(
        script(Path(__file__).with_name("holder.py"), count),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert holder.stdout
    with holder.stdout:
        ready, _, _ = select.select([holder.stdout], [], [], _HOLDER_TIMEOUT_S)
        said = holder.stdout.readline().strip() if ready else f"error not within {_HOLDER_TIMEOUT_S:g} s"
    if not said or said.startswith("error"):
        reason = said.removeprefix("error ") or "their holder ended unexpectedly; its last words are in run.log"
        raise EmulatorError(f"{count} network namespaces could not be made: {reason}")
    return [int(pid) for pid in said.split()]


def set_sysctls(values: Mapping[str, str]) -> None:
    """Set sysctls of the calling thread's network namespace; ones this kernel does not have are left out."""
    for name, value in values.items():
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/{name.replace('.', '/')}", "w") as file:  # noqa: PTH123
            file.write(value)


def quiet_ipv6() -> None:
    """Keep this network namespace from router solicitations and the like: they would be counted as traffic."""
    for scope in ("all", "default"):
        with contextlib.suppress(OSError):  # a kernel without IPv6 has nothing to silence
            Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
