"""What the kernel tells in /proc: every file is taken apart here and nowhere else.

Functions that take bytes take apart what somebody has read, as the sampler does long before it has time for that.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
"""Of the clock that CPU time is counted by."""

_FIRST_BYTES = 4096


class MachineCpu(NamedTuple):
    """The CPU time of all cores together since boot, in clock ticks.

    Time that a hypervisor gave to its other guests is stolen, and busy too.
    """

    idle_ticks: int
    busy_ticks: int
    stolen_ticks: int

    @property
    def total_ticks(self) -> int:
        """Return all ticks there were, of whatever kind."""
        return self.idle_ticks + self.busy_ticks

    def since(self, earlier: MachineCpu) -> MachineCpu:
        """Return what was counted between `earlier` and this."""
        return MachineCpu(*(now - then for now, then in zip(self, earlier, strict=True)))


class ProcessStat(NamedTuple):
    """A process: its state's letter, its parent, its CPU time, niceness and, in clock ticks since boot, its start."""

    state: str
    parent_pid: int
    cpu_ticks: int
    niceness: int
    started_ticks: int

    @property
    def lives(self) -> bool:
        """Return whether it is neither a zombie nor dead."""
        return self.state not in ("Z", "X")


class PacketSocket(NamedTuple):
    """A packet socket: the interface it is bound to, what it has received and nobody has read, its inode.

    `waiting_bytes` count the kernel's overhead too, up to twice the packets' size.
    """

    interface_index: int
    waiting_bytes: int
    inode: int


class InterfaceCounters(NamedTuple):
    """An interface's counters since it was made."""

    rx_bytes: int
    rx_packets: int
    rx_drops: int
    tx_bytes: int
    tx_packets: int
    tx_drops: int


def read_start(path: str) -> bytes:
    """Read the first page of a file, in one system call."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path a sample would cost more than the read
        return file.read(_FIRST_BYTES)


def read_table(path: str) -> bytes:
    """Read all of a file, of which the kernel tells a page at a time."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.readall()


def machine_cpu(stat: bytes) -> MachineCpu:
    """Take apart /proc/stat, or its first line (proc_stat(5)). Time that waits for disks is idle."""
    # Guests' time is in user and nice already.
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, stat.split(b"\n", 1)[0].split()[1:9])
    return MachineCpu(idle + iowait, user + nice + system + irq + softirq + steal, steal)


def read_machine_cpu() -> MachineCpu:
    """Read the CPU time of this machine so far."""
    return machine_cpu(read_start("/proc/stat"))


def process_stat(stat: bytes) -> ProcessStat:
    """Take apart /proc/PID/stat (proc_pid_stat(5))."""
    # From the end of the command's name, which may hold anything.
    field = stat.rpartition(b") ")[2].split()
    return ProcessStat(
        state=field[0].decode(),
        parent_pid=int(field[1]),
        cpu_ticks=int(field[11]) + int(field[12]),  # in user mode, in the kernel
        niceness=int(field[16]),
        started_ticks=int(field[19]),
    )


def read_process_stat(pid: int, proc: str = "/proc") -> ProcessStat | None:
    """Read a process's state and CPU time; None: it has ended."""
    try:
        return process_stat(read_start(f"{proc}/{pid}/stat"))
    except OSError:
        return None


def read_command(pid: int, proc: str = "/proc") -> list[str] | None:
    """Read the words that a process was started with; None: it has ended."""
    try:
        return read_table(f"{proc}/{pid}/cmdline").decode(errors="replace").split("\0")
    except OSError:
        return None


def process_ids(proc: str = "/proc") -> Iterator[int]:
    """Return all processes of this PID namespace."""
    return (int(name) for name in os.listdir(proc) if name.isdecimal())  # noqa: PTH208 - names are all that is wanted


def packet_sockets(table: bytes) -> Iterator[PacketSocket]:
    """Take apart /proc/PID/net/packet (packet(7)): all packet sockets of the process's network namespace."""
    for line in table.splitlines()[1:]:  # sk RefCnt Type Proto Iface R Rmem User Inode
        field = line.split()
        yield PacketSocket(int(field[4]), int(field[6]), int(field[8]))


def sockets_of(pid: int) -> dict[int, int]:
    """Return the sockets that a process has open: the file descriptor of each, by its inode."""
    found = {}
    for entry in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            if match := re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink())):
                found[int(match[1])] = int(entry.name)
    return found


def interface_counters(table: bytes) -> dict[str, InterfaceCounters]:
    """Take apart /proc/PID/net/dev: the counters of every interface of a network namespace, by its name."""
    counters = {}
    for line in table.decode().splitlines()[2:]:
        name, _, numbers = line.partition(":")
        # bytes packets errs drop fifo frame compressed multicast, received; then the like, sent
        field = [int(number) for number in numbers.split()]
        counters[name.strip()] = InterfaceCounters(
            field[0], field[1], field[2] + field[3], field[8], field[9], field[10] + field[11]
        )
    return counters


def read_interface_counters(pid: int) -> dict[str, InterfaceCounters]:
    """Read the counters of every interface in the network namespace of process `pid`, by its name."""
    return interface_counters(read_table(f"/proc/{pid}/net/dev"))


def retransmitted_segments(pid: int) -> int:
    """Read how many TCP segments the network namespace of a process has sent again (RetransSegs of RFC 4022)."""
    lines = (PROC / str(pid) / "net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def available_memory_bytes() -> int:
    """Read how much memory could be used without swapping (MemAvailable of proc_meminfo(5))."""
    fields = dict(line.split(":", 1) for line in (PROC / "meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) << 10


def peak_memory_bytes() -> int:
    """Read the most memory this program ever held. (What getrusage says may be of the one it was started from.)"""
    lines = (PROC / "self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def effective_capabilities() -> int | None:
    """Read this process's capabilities (capabilities(7)), a bit each; None where the kernel does not tell."""
    for line in (PROC / "self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return None
