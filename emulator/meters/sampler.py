"""Samples queues and CPU while a run is under way: `python -m emulator.meters.sampler FD PIDS WATCHED PROGRAMS`.

A process of its own, so that it neither delays the replay nor is delayed by it. While sampling it only asks the kernel
and keeps the raw answers; they are decoded after the run (`emulator.samples`). One netlink request returns every
queue of a network namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from emulator.namespaces import inside

_RTM_GETQDISC, _NLM_F_REQUEST_DUMP, _NLMSG_ERROR, _NLMSG_DONE, _DONE_BYTES = 38, 0x301, 2, 3, 20
_HEADER = struct.Struct("=IHHII")
_RECEIVE_BYTES = 1 << 20
_received = memoryview(bytearray(_RECEIVE_BYTES))

MAX_COST = 0.015
"""Most of one core that sampling may take: where a sample costs more, there are fewer."""


@dataclass(frozen=True, slots=True)
class RawSample:
    """One wake-up: when it was due and when it came; the kernel's answers for each namespace, each with its time.

    Times are of CLOCK_MONOTONIC, in seconds. `machine_cpu` is the first line of /proc/stat; `process_cpu` the
    /proc/PID/stat, and `packet_sockets` the /proc/PID/net/packet, of the watched processes. `yielding_ticks` is the CPU
    time, in clock ticks, of all niced processes of the sandbox: users' programs, where they run.
    """

    due_s: float
    woke_s: float
    queues: list[tuple[float, bytes]]
    machine_cpu: bytes
    process_cpu: list[bytes]
    packet_sockets: list[bytes] = field(default_factory=list)
    yielding_ticks: int = 0


class _QueueReader:
    """Asks one network namespace for its qdiscs; only the kernel's bytes are kept."""

    def __init__(self, pid: int) -> None:
        with inside(pid):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))
        # Netlink answers a dump in pieces as large as the reader's buffer has been.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self._request = _HEADER.pack(36, _RTM_GETQDISC, _NLM_F_REQUEST_DUMP, 1, 0) + bytes(20)

    def read(self) -> tuple[float, bytes]:
        self._socket.send(self._request)
        answer = b""
        now = time.monotonic()
        while True:
            length = self._socket.recv_into(_received)  # a buffer made anew would cost more than the kernel's answer
            answer += _received[:length]
            if _ends(answer):
                return now, answer


def _ends(answer: bytes) -> bool:
    """Whether a netlink dump is complete: its last message says so (a header and an error number), or is an error."""
    if len(answer) < _DONE_BYTES:
        return False
    length, kind = struct.unpack_from("=IH", answer, len(answer) - _DONE_BYTES)
    return (length == _DONE_BYTES and kind == _NLMSG_DONE) or struct.unpack_from("=IH", answer)[1] == _NLMSG_ERROR


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path a sample would cost more than the read
        return file.read(4096)


def _read_all(path: str) -> bytes:
    """A table, which the kernel tells a page at a time."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.readall()


class Yielding:
    """The CPU time of all niced processes there are and were, as far as samples saw them."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, bytes], int] = {}

    def ticks(self) -> int:
        for name in os.listdir("/proc"):  # noqa: PTH208
            if name.isdigit():
                with contextlib.suppress(OSError):  # it has ended
                    # From the state on, for a name may hold anything (proc_pid_stat(5)): utime and stime at 11 and 12,
                    # niceness at 16, and when it was started at 19, for numbers come again.
                    fields = _read(f"/proc/{name}/stat").rpartition(b") ")[2].split()
                    if int(fields[16]) > 0:
                        self._seen[name, fields[19]] = int(fields[11]) + int(fields[12])
        return sum(self._seen.values())


def _sample(
    connection: Connection, readers: list[_QueueReader], watched: list[int], period_s: float, programs: bool = False
) -> list[RawSample]:
    """One sample a period until the other end has something to say; one more at the end."""
    samples: list[RawSample] = []
    yielding = Yielding() if programs else None
    due = time.monotonic()
    spent = time.process_time()
    while True:
        woke = time.monotonic()
        samples.append(
            RawSample(
                due,
                woke,
                [reader.read() for reader in readers],
                _read("/proc/stat").split(b"\n", 1)[0],
                [_read(f"/proc/{pid}/stat") for pid in watched],
                [_read_all(f"/proc/{pid}/net/packet") for pid in watched],
                yielding.ticks() if yielding else 0,
            )
        )
        if connection.poll(0):
            return samples
        cost_s = (time.process_time() - spent) / len(samples)
        # Where reading took longer than a period, the next sample is late, and says so.
        due = max(due, woke) + max(period_s, cost_s / MAX_COST)
        # Sleep on the connection, so that the end of a run is noticed at once.
        if select.select([connection], [], [], max(0.0, due - time.monotonic()))[0]:
            due = time.monotonic()


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    readers = [_QueueReader(int(pid)) for pid in sys.argv[2].split(",")]
    watched = [int(pid) for pid in sys.argv[3].split(",") if pid]
    _prefer()
    gc.disable()  # nothing here makes cycles, and a collection would make a sample late
    connection.send("ready")
    while True:
        try:
            period_s = connection.recv()
        except EOFError:
            return
        samples = _sample(connection, readers, watched, period_s, bool(sys.argv[4]))
        connection.recv()
        connection.send(samples)


def _prefer() -> None:
    """Run before ordinary processes (a sampler that comes late sees a machine it did not look at)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        with contextlib.suppress(OSError):  # without the right to either, it may come late, and then says so
            os.nice(-20)
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: end with the process that started us


if __name__ == "__main__":
    from emulator.meters import sampler

    sampler.main()
