"""Unmodified programs on the fabric: one process a host, started together, watched, and ended together.

A process is the program's if it was not there before the program started: the sandbox has a PID namespace of its own,
so that nothing a program starts, however it detaches itself, is missed when the program is ended.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emulator.command import run
from emulator.errors import EmulatorError
from emulator.inherited import PATH, script
from emulator.proc import process_ids, read_process_stat
from emulator.topology import FABRIC_PREFIX, LeafSpine

OUTPUT_LIMIT_BYTES = 10_000_000
"""What is kept of each host's output."""

TIMED_OUT = 124  # as timeout(1)
_GRACE_S = 2.0  # between SIGTERM and SIGKILL
_GONE_TIMEOUT_S = 5.0
_TICK_S = 0.1
_READ_BYTES = 1 << 16
_HAND_OVER_BYTES = 1 << 20

_WORLD = Path("/run/spraylab")  # on the sandbox's own tmpfs
_TABLE, _AGENT = _WORLD / "table", "spraylab-rsh"
_ENTER = script(Path(__file__).with_name("enter.py"), _TABLE)


@dataclass(frozen=True)
class Launch:
    """A program to start: `command` on `hosts`, rank by rank; it is ended after `timeout_s`.

    `surroundings` are the environment variables of the user who asked for it.
    """

    command: tuple[str, ...]
    hosts: tuple[int, ...]
    timeout_s: float
    master_port: int
    surroundings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """What hosts have written since the last such message, up to OUTPUT_LIMIT_BYTES each in all."""

    pieces: Mapping[int, bytes]


@dataclass(frozen=True)
class Ended:
    """How a program ended. Times are of CLOCK_MONOTONIC.

    `status` is 0, or that of the first `host` that failed, with `reason` for people; TIMED_OUT if a host never ended. A
    process ended by signal n has status 128 + n, as in shells.
    """

    started_s: float
    ended_s: float
    status: int
    host: int | None
    reason: str
    output_bytes: Mapping[int, int]


def furnish(topology: LeafSpine) -> None:
    """Prepare the sandbox for programs, before the fabric is built. Raises EmulatorError.

    Hosts get names, in /etc/hosts as the sandbox sees it; shared memory and temporary files get a place that ends with
    the sandbox.
    """
    for folder in (_WORLD / "bin", _WORLD / "tmp"):
        folder.mkdir(parents=True)
    (_WORLD / "tmp").chmod(0o1777)
    hosts = range(topology.hosts)
    names = [f"{topology.host_ip(host)} {topology.host_name(host)}\n" for host in hosts]
    (_WORLD / "hosts").write_text("127.0.0.1 localhost\n" + "".join(names))
    (_WORLD / "hostfile").write_text("".join(f"{topology.host_name(host)} slots=1\n" for host in hosts))
    agent = _WORLD / "bin" / _AGENT
    agent.write_text(f'#!/bin/sh\nhost=$1\nshift\nexec {shlex.join(_ENTER)} "$host" /bin/sh -c "$*"\n')
    agent.chmod(0o755)
    run(["mount", "--bind", str(_WORLD / "hosts"), "/etc/hosts"])
    if Path("/etc/resolv.conf").exists():  # no name server could answer: to ask none is quicker, and sends nothing
        (_WORLD / "resolv.conf").touch()
        run(["mount", "--bind", str(_WORLD / "resolv.conf"), "/etc/resolv.conf"])
    run(["mount", "-t", "tmpfs", "-o", "mode=1777", "spraylab", "/dev/shm"])


def put_first() -> None:
    """Give what runs now in the sandbox (the switches, above all) precedence over programs started later.

    MPI waits in busy loops, and where the kernel shares cores out by session (sched(7), autogroup), 16 of those leave
    a switch in user space a few milliseconds a second, whatever their nice values.
    """
    with contextlib.suppress(OSError):  # a kernel without it goes by nice values
        Path("/proc/self/autogroup").write_text("-20")


def register(topology: LeafSpine, host_pids: Sequence[int]) -> None:
    """Write down where each host is to be entered, once the fabric is built."""
    rows = [f"{topology.host_name(host)} {pid} {topology.host_ip(host)}\n" for host, pid in enumerate(host_pids)]
    _TABLE.write_text("".join(rows))


def environment(topology: LeafSpine, launch: Launch, rank: int) -> dict[str, str]:
    """Return the environment variables of the process of `rank`: those of the user, and on top of them ours.

    Ours are torchrun's, and those that let mpirun reach the other hosts.
    """
    addresses = [topology.host_ip(host) for host in launch.hosts]
    return {
        **launch.surroundings,
        "RANK": str(rank),
        "WORLD_SIZE": str(len(launch.hosts)),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": addresses[0],
        "MASTER_PORT": str(launch.master_port),
        "SPRAYLAB_HOSTS": ",".join(addresses),
        "PATH": f"{_WORLD / 'bin'}:{launch.surroundings.get('PATH', PATH)}",
        "TMPDIR": str(_WORLD / "tmp"),
        "OMPI_MCA_plm_rsh_agent": _AGENT,
        "OMPI_MCA_orte_default_hostfile": str(_WORLD / "hostfile"),
        "OMPI_MCA_btl_tcp_if_include": FABRIC_PREFIX,
        "OMPI_MCA_oob_tcp_if_include": FABRIC_PREFIX,
        "OMPI_MCA_mpi_yield_when_idle": "1",  # a rank that waits does so in a loop, and has no core to itself here
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def run_program(topology: LeafSpine, launch: Launch) -> Iterator[Output | Ended]:
    """Start a program, pass on what it writes, end it whole; `Ended` comes last. Raises EmulatorError."""
    with _Program(topology, launch) as program:
        yield from program.run()


class _Program:
    def __init__(self, topology: LeafSpine, launch: Launch) -> None:
        self._topology, self._launch = topology, launch
        self._before = set(process_ids())
        self._selector = selectors.DefaultSelector()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._pending: dict[int, bytearray] = {}
        self._total = dict.fromkeys(launch.hosts, 0)
        self._failed: int | None = None

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)
        for process in self._processes.values():
            process.wait(_GONE_TIMEOUT_S)
            assert process.stdout
            process.stdout.close()
        self._selector.close()

    def run(self) -> Iterator[Output | Ended]:
        started = time.monotonic()
        self._start()
        deadline = started + self._launch.timeout_s
        while self._running() and self._failed is None and time.monotonic() < deadline:
            yield from self._watch(min(_TICK_S, max(0.0, deadline - time.monotonic())))
        ended = time.monotonic()
        hung = self._running() if self._failed is None else []
        status, host, reason = self._outcome(hung)
        stubborn = yield from self._end()
        if stubborn:
            reason += f"; {self._names(stubborn)} did not heed SIGTERM and had to be killed"
        yield from self._rest()
        yield Ended(started, ended, status, host, reason, self._total)

    def _start(self) -> None:
        for rank, host in enumerate(self._launch.hosts):
            process = subprocess.Popen(
                [*_ENTER, self._topology.host_name(host), *self._launch.command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment(self._topology, self._launch, rank),
                start_new_session=True,
            )
            assert process.stdout
            self._processes[host] = process
            os.set_blocking(process.stdout.fileno(), False)
            self._selector.register(process.stdout.fileno(), selectors.EVENT_READ, ("output", host))
            self._selector.register(os.pidfd_open(process.pid), selectors.EVENT_READ, ("end", host))

    def _watch(self, wait_s: float) -> Iterator[Output]:
        """See what happens within `wait_s`, or a little more."""
        until = time.monotonic() + wait_s
        while True:
            for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
                kind, host = key.data
                if kind == "output":
                    self._read(key.fd, host)
                else:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    if self._processes[host].wait() != 0 and self._failed is None:
                        self._failed = host
            waiting = sum(map(len, self._pending.values()))
            if time.monotonic() >= until or waiting > _HAND_OVER_BYTES or not self._running():
                break
        if waiting:
            yield Output({host: bytes(piece) for host, piece in self._pending.items()})
            self._pending.clear()

    def _read(self, descriptor: int, host: int) -> bool:
        """Whether there was anything. What is beyond the limit is read too, so that the program goes on."""
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(descriptor)
            return False
        room = OUTPUT_LIMIT_BYTES - self._total[host]
        if room > 0:
            self._pending.setdefault(host, bytearray()).extend(data[:room])
        self._total[host] += len(data)
        return True

    def _running(self) -> list[int]:
        return [host for host, process in self._processes.items() if process.poll() is None]

    def _outcome(self, hung: Sequence[int]) -> tuple[int, int | None, str]:
        if self._failed is None:
            # One that ended badly just as the last look was taken.
            self._failed = next((host for host, process in self._processes.items() if process.returncode), None)
        if self._failed is not None:
            code, name = self._processes[self._failed].returncode, self._topology.host_name(self._failed)
            if code < 0:
                return 128 - code, self._failed, f"{name} was ended by {_signal_name(-code)}"
            return code, self._failed, f"{name} ended with exit status {code}"
        if hung:
            verb = "has" if len(hung) == 1 else "have"
            return TIMED_OUT, hung[0], f"{self._names(hung)} {verb} not ended within {self._launch.timeout_s:g} s"
        return 0, None, ""

    def _end(self) -> Generator[Output, None, list[int]]:
        """End whatever is left of the program; returns the hosts whose process did not heed SIGTERM."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while self._strangers() and time.monotonic() < deadline:
            yield from self._watch(_TICK_S / 2) if self._running() else self._pause()
        stubborn = self._running()
        deadline = time.monotonic() + _GONE_TIMEOUT_S
        while self._strangers():
            if time.monotonic() > deadline:
                raise EmulatorError(f"{self._launch.command[0]} starts processes faster than they can be ended")
            self._signal(signal.SIGKILL)
            yield from self._pause()
        return stubborn

    def _pause(self) -> Iterator[Output]:
        time.sleep(_TICK_S / 10)
        yield from ()

    def _rest(self) -> Iterator[Output]:
        """What is still in the pipes, whose other ends are all closed."""
        for host, process in self._processes.items():
            assert process.stdout
            while self._read_rest(process.stdout.fileno(), host):
                pass
        yield from self._watch(0)

    def _read_rest(self, descriptor: int, host: int) -> bool:
        return descriptor in self._selector.get_map() and self._read(descriptor, host)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._strangers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _strangers(self) -> list[int]:
        """Living processes that were not there before."""
        ours = {process.pid for process in self._processes.values()}
        found = []
        for pid in process_ids():
            if pid in self._before:
                continue
            if pid in ours:
                self._running()  # takes note of those that have ended
            else:
                # Orphans become ours, the first process of this PID namespace: nobody else will hear of their end.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if (stat := read_process_stat(pid)) and stat.lives:  # a zombie waits for a parent that is about to go
                found.append(pid)
        return found

    def _names(self, hosts: Sequence[int]) -> str:
        return ", ".join(self._topology.host_name(host) for host in hosts)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
