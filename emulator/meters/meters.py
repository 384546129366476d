"""What a run is measured by: interface counters before and after, and samples of queues and CPU in between."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

import numpy as np
import pandas as pd

from emulator.child import Child
from emulator.meters.sampler import GLANCE, RawSample, SamplingOrder
from emulator.ports import Port
from emulator.proc import (
    TICKS_PER_S,
    InterfaceCounters,
    machine_cpu,
    packet_sockets,
    process_stat,
    read_interface_counters,
    sockets_of,
)
from emulator.shaping import bucket_counts, queues
from emulator.vigil import watch

if TYPE_CHECKING:
    from emulator.fabric import Fabric

SAMPLE_PERIOD_S = 0.05
GLANCE_PERIOD_S = 1.0
_SETTLE_TIMEOUT_S = 5.0
_QUIET_S = 0.06  # longer than Linux delays an acknowledgement at first (TCP_DELACK_MIN, 40 ms)
_REPLY_TIMEOUT_S = 20.0

COUNTERS = list(InterfaceCounters._fields)
WAITING = ["time_s", "port", "waiting_bytes"]


@dataclass(frozen=True)
class Samples:
    """What was sampled, taken apart.

    `queues`: time_s, port (its place in Fabric.ports), sent_bytes, backlog_bytes, drops_packets; totals since the
    port was made. `cpu`: time_s, late_s, idle_s, busy_s (all cores together), process_s; totals since boot; what users'
    programs took counts as idle, for they yield to the fabric.
    `waiting`: time_s, port, waiting_bytes: what had arrived at a port of a userspace switch and the switch had not
    taken yet, with the kernel's overhead (up to twice the packets' size).
    """

    queues: pd.DataFrame
    cpu: pd.DataFrame
    waiting: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=WAITING))


class Sampler:
    """The sampling process; `start` and `stop` bracket a run."""

    def __init__(self, fabric: Fabric, log: TextIO, programs: bool = False) -> None:
        """Start the process. Raises EmulatorError.

        `programs`: users' programs will run beside it, niced, and what they use of the CPU counts as idle.
        """
        self._ports = fabric.ports
        self._watched = list(fabric.plane.watched_pids)
        self._child = Child("emulator.meters.sampler", "the sampler", log)
        order = SamplingOrder(namespaces(fabric.ports), self._watched, programs, SAMPLE_PERIOD_S)
        self._child.ask(order, _REPLY_TIMEOUT_S)
        watch(self._child.pid, "the sampler")
        self._glance_due_s = 0.0
        self._glancing = False

    def start(self) -> None:
        """Begin to sample. Raises EmulatorError if the sampler is gone."""
        self._child.send("start")

    def glance(self) -> RawSample | None:
        """Return the last sample, about every GLANCE_PERIOD_S, and else None: between `start` and `stop`, at once.

        Raises EmulatorError if the sampler is gone.
        """
        if self._glancing and self._child.has_answered():
            self._glancing = False
            sample: RawSample = self._child.receive(_REPLY_TIMEOUT_S)
            return sample
        if not self._glancing and time.monotonic() >= self._glance_due_s:
            self._glance_due_s = time.monotonic() + GLANCE_PERIOD_S
            self._child.send(GLANCE)
            self._glancing = True
        return None

    def stop(self) -> Samples:
        """Return what was sampled since `start`. Raises EmulatorError if the sampler is gone."""
        if self._glancing:
            self._child.receive(_REPLY_TIMEOUT_S)
            self._glancing = False
        samples = self._child.ask("stop", _REPLY_TIMEOUT_S)
        return decode(samples, namespaces(self._ports), self._ports, frozenset().union(*map(sockets_of, self._watched)))


def namespaces(ports: Sequence[Port]) -> list[int]:
    """Return a process of each network namespace, in the order in which they are sampled."""
    return sorted({port.pid for port in ports})


def decode(
    samples: Sequence[RawSample], pids: Sequence[int], ports: Sequence[Port], sockets: frozenset[int] = frozenset()
) -> Samples:
    """Take apart what the sampler kept of the network namespaces of `pids`, in which `ports` live.

    `sockets` are the inodes of those through which a switch takes packets; others may be a capture's.
    """
    places = {(port.pid, port.index): place for place, port in enumerate(ports)}
    rows = [
        (when, places[pid, counts.interface_index], *counts[1:])
        for sample in samples
        for pid, (when, answer) in zip(pids, sample.queues, strict=True)
        for counts in bucket_counts(answer)
        if (pid, counts.interface_index) in places
    ]
    columns = ["time_s", "port", "sent_bytes", "backlog_bytes", "drops_packets"]
    # A switch in user space has all its ports in one namespace: an index is enough.
    numbers = {port.index: number for number, port in enumerate(ports) if not port.at_host}
    waiting = [
        (sample.woke_s, numbers[index], size_bytes)
        for sample in samples
        for table in sample.packet_sockets
        for index, size_bytes, inode in packet_sockets(table)
        if inode in sockets and index in numbers
    ]
    cpu = pd.DataFrame([_cpu(sample) for sample in samples])
    return Samples(pd.DataFrame(rows, columns=columns), cpu, pd.DataFrame(waiting, columns=WAITING))


def _cpu(sample: RawSample) -> dict[str, float]:
    machine = machine_cpu(sample.machine_cpu)
    # What yields to the fabric takes nothing from it: MPI's ranks wait in busy loops, at the least priority there is.
    idle_ticks = min(machine.idle_ticks + sample.yielding_ticks, machine.total_ticks)
    return {
        "time_s": sample.woke_s,
        "late_s": sample.woke_s - sample.due_s,
        "idle_s": idle_ticks / TICKS_PER_S,
        "busy_s": (machine.total_ticks - idle_ticks) / TICKS_PER_S,
        "process_s": sum(process_stat(stat).cpu_ticks for stat in sample.process_cpu if stat) / TICKS_PER_S,
    }


def read_counters(fabric: Fabric) -> pd.DataFrame:
    """Read the counters of every port: one row each in the order of `fabric.ports`, columns COUNTERS.

    They are its interface's, but for `tx_bytes`, which are its token bucket's: where frames travel as one, the
    interface counts their headers once.
    """
    pids = {port.pid for port in fabric.ports}
    tables = {pid: read_interface_counters(pid) for pid in pids}
    wire_bytes = {
        (pid, counts.interface_index): counts.sent_bytes
        for pid in pids
        for counts in bucket_counts(queues(fabric.netlink_of(pid)))
    }
    rows = [
        counters._replace(tx_bytes=wire_bytes.get((port.pid, port.index), counters.tx_bytes))
        for port in fabric.ports
        for counters in [tables[port.pid][port.name]]
    ]
    return pd.DataFrame(rows, columns=COUNTERS)


def settled_counters(fabric: Fabric) -> pd.DataFrame:
    """Read the counters once nothing moves any more: last acknowledgements have crossed and queues are empty."""
    deadline = time.monotonic() + _SETTLE_TIMEOUT_S
    # In the time it takes to fill a bucket, which holds a whole burst, a queue that is not empty sends one.
    quiet_s = max(_QUIET_S, *(port.shaping.burst_bytes * 8 / port.shaping.rate_bps for port in fabric.ports))
    before = read_counters(fabric)
    while time.monotonic() < deadline:
        time.sleep(quiet_s)
        now = read_counters(fabric)
        if np.array_equal(now.to_numpy(), before.to_numpy()):
            return now
        before = now
    return before
