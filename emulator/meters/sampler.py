"""Samples queues and CPU while a run is under way, in a process of its own that `emulator.meters.meters` starts.

So it neither delays the replay nor is delayed by it. While sampling it only asks the kernel and keeps the raw answers;
`emulator.meters.meters.decode` takes them apart after the run. One netlink request returns every queue of a network
namespace.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from emulator.child import end_with_parent
from emulator.namespaces import inside
from emulator.netlink import Netlink
from emulator.proc import process_ids, read_process_stat, read_start, read_table
from emulator.shaping import ask_queues

GLANCE = "glance"
"""The word on which the last sample is shown and sampling goes on; any other ends it."""

MAX_COST = 0.015
"""Most of one core that sampling may take: where a sample costs more, there are fewer."""


@dataclass(frozen=True, slots=True)
class SamplingOrder:
    """What to sample, every `period_s`: the queues of the network namespaces of `pids`, the CPU, and `watched_pids`.

    `programs`: the CPU time of niced processes is wanted too.
    """

    pids: Sequence[int]
    watched_pids: Sequence[int]
    programs: bool
    period_s: float


@dataclass(frozen=True, slots=True)
class RawSample:
    """One wake-up: when it was due and when it came; the kernel's answers for each namespace, each with its time.

    Times are of CLOCK_MONOTONIC, in seconds. `machine_cpu` is the first line of /proc/stat; `process_cpu` the
    /proc/PID/stat, and `packet_sockets` the /proc/PID/net/packet, of the watched processes, empty where one has ended.
    `yielding_ticks` is the CPU time, in clock ticks, of all niced processes of the sandbox: users' programs, where they
    run.
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
            self._netlink = Netlink()

    def read(self) -> tuple[float, bytes]:
        ask_queues(self._netlink)
        now = time.monotonic()
        return now, self._netlink.answer()


class Yielding:
    """Adds up the CPU time of all niced processes there are and were, as far as samples saw them."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], int] = {}

    def ticks(self) -> int:
        """Return that CPU time, in clock ticks, having looked at all processes there are now."""
        for pid in process_ids():
            if (stat := read_process_stat(pid)) and stat.niceness > 0:
                self._seen[pid, stat.started_ticks] = stat.cpu_ticks  # for numbers come again
        return sum(self._seen.values())


def _sample(
    channel: Connection,
    readers: Sequence[_QueueReader],
    watched: Sequence[int],
    period_s: float,
    programs: bool = False,
) -> list[RawSample]:
    """One sample a period until the other end says so; one more at the end."""
    samples: list[RawSample] = []
    ended = False
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
                read_start("/proc/stat").split(b"\n", 1)[0],
                [_of_process(read_start, pid, "stat") for pid in watched],
                [_of_process(read_table, pid, "net/packet") for pid in watched],
                yielding.ticks() if yielding else 0,
            )
        )
        if ended:
            return samples
        cost_s = (time.process_time() - spent) / len(samples)
        # Where reading took longer than a period, the next sample is late, and says so.
        due = max(due, woke) + max(period_s, cost_s / MAX_COST)
        # Sleep on the channel, so that the end of a run is noticed at once.
        while not ended and select.select([channel], [], [], max(0.0, due - time.monotonic()))[0]:
            if channel.recv() == GLANCE:
                channel.send(samples[-1])
            else:
                ended, due = True, time.monotonic()


def _of_process(read: Callable[[str], bytes], pid: int, name: str) -> bytes:
    """Nothing is told of one that has ended: others will say so, and what else there is to sample goes on."""
    try:
        return read(f"/proc/{pid}/{name}")
    except (FileNotFoundError, ProcessLookupError):
        return b""


def serve(channel: Connection) -> None:
    """Sample as ordered, from each word that comes over the channel until the next that ends it; send the samples."""
    order: SamplingOrder = channel.recv()
    readers = [_QueueReader(pid) for pid in order.pids]
    _prefer()
    gc.disable()  # nothing here makes cycles, and a collection would make a sample late
    channel.send("ready")
    while True:
        channel.recv()
        channel.send(_sample(channel, readers, order.watched_pids, order.period_s, order.programs))


def _prefer() -> None:
    """Run before ordinary processes (a sampler that comes late sees a machine it did not look at)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        with contextlib.suppress(OSError):  # without the right to either, it may come late, and then says so
            os.nice(-20)
    end_with_parent()
