"""What other programs take of the machine while a test runs: measured apart from everything that is under test."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

_PERIOD_S = 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Neighbours:
    """As a context manager, watches until its end the CPU time that all use but this process and its descendants.

    Of others' time, what they spend in the kernel on interrupts is left out: the packets there may be ours.
    """

    def __enter__(self) -> Neighbours:
        self._seen: list[tuple[float, float]] = []
        self._one_at_a_time, self._over = threading.Lock(), threading.Event()
        self._look()
        self._watch = threading.Thread(target=self._go_on_looking)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def took_s(self, start_s: float, end_s: float) -> float:
        """CPU seconds, of all cores together, between two past times of CLOCK_MONOTONIC."""
        self._look()
        times_s, others_s = np.array(self._seen).T
        began, ended = np.interp([start_s, end_s], times_s, others_s)
        return float(ended - began)

    def _go_on_looking(self) -> None:
        while not self._over.wait(_PERIOD_S):
            self._look()

    def _look(self) -> None:
        with self._one_at_a_time:
            self._seen.append((time.monotonic(), (_machine_ticks() - _own_ticks()) / _TICKS_PER_S))


def _machine_ticks() -> int:
    """Spent in programs, and kept from this machine by the one it is a guest of (proc_stat(5))."""
    user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return user + nice + system + steal


def _own_ticks() -> int:
    """Of this process and all that descend from it; the ended ones are counted by their parents (proc_pid_stat(5))."""
    parent, ticks = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended
                # From the state on: a program's name may hold anything. utime, stime, cutime, cstime.
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                parent[int(entry.name)], ticks[int(entry.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    own = {os.getpid()}
    while descendants := {pid for pid in parent if parent[pid] in own} - own:
        own |= descendants
    return sum(ticks[pid] for pid in own)
