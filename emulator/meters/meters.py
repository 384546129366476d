"""What a run is measured by: interface counters before and after, and samples of queues and CPU in between."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import pandas as pd

from emulator import netlink
from emulator.child import connection_pair
from emulator.errors import EmulatorError
from emulator.meters.sampler import RawSample
from emulator.netlink import attributes
from emulator.ports import Port

SAMPLE_PERIOD_S = 0.05
_SETTLE_TIMEOUT_S = 5.0
_QUIET_S = 0.06  # longer than Linux delays an acknowledgement at first (TCP_DELACK_MIN, 40 ms)
_REPLY_TIMEOUT_S = 20.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

if TYPE_CHECKING:
    from emulator.fabric import Fabric

_TCA_KIND, _TCA_STATS2, _TCA_STATS_BASIC, _TCA_STATS_QUEUE = 1, 7, 1, 3
_ROOT = 0xFFFFFFFF  # TC_H_ROOT: the parent of a port's outermost queue


WAITING = ["time_s", "port", "waiting_bytes"]


@dataclass(frozen=True)
class Samples:
    """Decoded samples.

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
        """`programs`: users' programs will run beside it, niced, and what they use of the CPU counts as idle."""
        self._ports = fabric.ports
        self._pids = sorted({port.pid for port in fabric.ports})
        self._watched = fabric.plane.watched_pids
        ours, theirs = connection_pair()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "emulator.meters.sampler", str(theirs.fileno())),
                *(",".join(map(str, self._pids)), ",".join(map(str, self._watched)), "programs" if programs else ""),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        theirs.close()
        self._connection: Connection = ours
        self._reply()

    def start(self) -> None:
        self._connection.send(SAMPLE_PERIOD_S)

    def stop(self) -> Samples:
        self._connection.send("stop")
        sockets = frozenset().union(*map(_socket_inodes, self._watched))
        return decode(self._reply(), self._pids, self._ports, sockets)

    def _reply(self) -> Any:
        try:
            if self._connection.poll(_REPLY_TIMEOUT_S):
                return self._connection.recv()
        except (EOFError, OSError):
            pass
        raise EmulatorError("the sampler ended unexpectedly; its last words are in run.log")


def decode(
    samples: Sequence[RawSample], pids: Sequence[int], ports: Sequence[Port], sockets: frozenset[int] = frozenset()
) -> Samples:
    """`sockets`: the inodes of those through which a switch takes packets; others may be a capture's."""
    places = {(port.pid, port.index): place for place, port in enumerate(ports)}
    rows = [
        (when, places[pid, index], sent, backlog, drops)
        for sample in samples
        for pid, (when, answer) in zip(pids, sample.queues, strict=True)
        for index, sent, backlog, drops in _qdiscs(answer)
        if (pid, index) in places
    ]
    queues = pd.DataFrame(rows, columns=["time_s", "port", "sent_bytes", "backlog_bytes", "drops_packets"])
    # A switch in user space has all its ports in one namespace: an index is enough.
    numbers = {port.index: number for number, port in enumerate(ports) if not port.at_host}
    waiting = [
        (sample.woke_s, numbers[index], size_bytes)
        for sample in samples
        for table in sample.packet_sockets
        for index, size_bytes, inode in _packet_sockets(table)
        if inode in sockets and index in numbers
    ]
    cpu = pd.DataFrame([_cpu(sample) for sample in samples])
    return Samples(queues, cpu, pd.DataFrame(waiting, columns=WAITING))


def _packet_sockets(table: bytes) -> Iterator[tuple[int, int, int]]:
    """(interface index, bytes received and not yet read, inode) of every line of /proc/PID/net/packet."""
    for line in table.splitlines()[1:]:  # sk RefCnt Type Proto Iface R Rmem User Inode
        fields = line.split()
        yield int(fields[4]), int(fields[6]), int(fields[8])


def _socket_inodes(pid: int) -> set[int]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink())):
                found.add(int(match[1]))
    return found


def _qdiscs(answer: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(interface index, bytes sent, backlog in bytes, packets dropped) of every token bucket in a netlink dump."""
    offset = 0
    while offset + 36 <= len(answer):
        length, kind = struct.unpack_from("=IH", answer, offset)
        if kind == 36:  # RTM_NEWQDISC
            yield from _qdisc(answer[offset + 16 : offset + length])
        offset += (length + 3) & ~3


def _qdisc(message: bytes) -> Iterator[tuple[int, int, int, int]]:
    index, _, parent = struct.unpack_from("=iII", message, 4)
    found = attributes(message, 20)
    if found.get(_TCA_KIND) == b"tbf\0" and parent == _ROOT:
        nested = attributes(found[_TCA_STATS2])
        (sent,) = struct.unpack_from("=Q", nested[_TCA_STATS_BASIC])
        _, backlog, drops = struct.unpack_from("=III", nested[_TCA_STATS_QUEUE])
        yield index, sent, backlog, drops


def _cpu(sample: RawSample) -> dict[str, float]:
    # user nice system idle iowait irq softirq steal (proc_stat(5)); stolen time is time the machine did not have
    ticks = [int(field) for field in sample.machine_cpu.split()[1:9]]
    # What yields to the fabric takes nothing from it: MPI's ranks wait in busy loops, at the least priority there is.
    idle = min(ticks[3] + ticks[4] + sample.yielding_ticks, sum(ticks))
    # utime and stime, counted from the end of the command name, which may hold anything (proc_pid_stat(5))
    process = [data.rpartition(b") ")[2].split() for data in sample.process_cpu]
    return {
        "time_s": sample.woke_s,
        "late_s": sample.woke_s - sample.due_s,
        "idle_s": idle / _TICKS_PER_S,
        "busy_s": (sum(ticks) - idle) / _TICKS_PER_S,
        "process_s": sum((int(fields[11]) + int(fields[12])) / _TICKS_PER_S for fields in process),
    }


COUNTERS = ["rx_bytes", "rx_packets", "rx_drops", "tx_bytes", "tx_packets", "tx_drops"]


def read_counters(fabric: Fabric) -> pd.DataFrame:
    """Counters of every port, one row each in the order of `fabric.ports`: columns COUNTERS.

    They are its interface's, but for `tx_bytes`, which are its token bucket's: where frames travel as one, the
    interface counts their headers once.
    """
    pids = {port.pid for port in fabric.ports}
    tables = {pid: _device_table(pid) for pid in pids}
    wire_bytes = {
        (pid, index): sent
        for pid in pids
        for message in netlink.queues(fabric.netlink_of(pid))
        for index, sent, *_ in _qdisc(message)
    }
    rows = [dict(zip(COUNTERS, tables[port.pid][port.name], strict=True)) for port in fabric.ports]
    for row, port in zip(rows, fabric.ports, strict=True):
        row["tx_bytes"] = wire_bytes.get((port.pid, port.index), row["tx_bytes"])
    return pd.DataFrame(rows, columns=COUNTERS)


def _device_table(pid: int) -> dict[str, list[int]]:
    """/proc/PID/net/dev: bytes packets errs drop fifo frame compressed multicast, received then sent."""
    table = {}
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]:
        name, _, numbers = line.partition(":")
        field = [int(number) for number in numbers.split()]
        table[name.strip()] = [field[0], field[1], field[2] + field[3], field[8], field[9], field[10] + field[11]]
    return table


def settled_counters(fabric: Fabric) -> pd.DataFrame:
    """Counters once nothing moves any more: last acknowledgements have crossed and queues are empty."""
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
