"""Facts about the machine: its limits, its load, what it runs in, and the sandboxes on it. Read, never changed."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

# What a run cannot do without (capabilities(7)): namespaces, interfaces and packet sockets are made, and the sampler is
# preferred to other processes.
_NEEDED_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_NICE": 23}
_CGROUPS = Path("/sys/fs/cgroup")


def container() -> str | None:
    """The kind of container this is, by the marks that container engines leave; None outside of one."""
    for mark, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if Path(mark).exists():
            return kind
    with contextlib.suppress(OSError):
        return Path("/run/systemd/container").read_text().strip()  # os-release(5)'s neighbour: lxc, systemd-nspawn, ...
    return None


def virtual() -> bool:
    """Whether a hypervisor says it is there (a flag of x86 processors; others do not tell)."""
    with contextlib.suppress(OSError):
        return " hypervisor" in Path("/proc/cpuinfo").read_text()
    return False


def lacking_capabilities() -> list[str]:
    """Those a run needs and this process does not have."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return [name for name, bit in _NEEDED_CAPABILITIES.items() if not effective >> bit & 1]
    return []


def processes_limit() -> int:
    """How many more processes and threads there may be here, by the tightest of the limits that bind."""
    limits = [int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in ("pid_max", "threads-max")]
    limits += [int(value) for value in _cgroup_values("pids.max") if value != "max"]
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:  # root's processes are not counted
        limits.append(soft)
    return min(limits)


def available_memory_bytes() -> int:
    """What could be used without swapping, and no more than the control group may have."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) << 10
    return min([available, *(int(value) for value in _cgroup_values("memory.max") if value != "max")])


def usable_cores() -> float:
    """Cores that this process may run on, or the part of them that its control group's quota allows."""
    quotas = [value.split() for value in _cgroup_values("cpu.max")]
    allowed = [int(quota) / int(period) for quota, period in quotas if quota != "max"]
    return min([len(os.sched_getaffinity(0)), *allowed])


def _cgroup_values(name: str) -> list[str]:
    """A setting of this process's control group and of every one above it, as far as it can be seen (cgroup v2)."""
    values = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                folder = _CGROUPS / line[3:].lstrip("/")
                for place in (folder, *folder.parents):
                    if not place.is_relative_to(_CGROUPS):
                        break
                    with contextlib.suppress(OSError):
                        values.append((place / name).read_text().strip())
    return values


def busy_share(window_s: float) -> tuple[float, float]:
    """The part of all cores that was busy over a window, and the part that the hypervisor gave to others, 0 to 1."""
    before = Path("/proc/stat").read_text()
    time.sleep(window_s)
    return shares(before, Path("/proc/stat").read_text())


def shares(before: str, after: str) -> tuple[float, float]:
    """Busy and stolen parts between two readings of /proc/stat (proc_stat(5)); what is stolen counts as busy."""
    # user nice system idle iowait irq softirq steal
    old, new = ([int(field) for field in text.split("\n", 1)[0].split()[1:9]] for text in (before, after))
    ticks = [late - early for early, late in zip(old, new, strict=True)]
    total = max(1, sum(ticks))
    return 1 - (ticks[3] + ticks[4]) / total, ticks[7] / total


def clock_source() -> str | None:
    """What the kernel reads the time from; None if it does not tell."""
    with contextlib.suppress(OSError):
        return Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    return None


def namespace_limit() -> int | None:
    """How many network namespaces a user may have (namespaces(7)); None if the kernel sets no limit."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/sys/user/max_net_namespaces").read_text())
    return None


@dataclass(frozen=True)
class RunningSandbox:
    """`owned`: whether the Python process that started it is still there to end it."""

    pid: int
    owned: bool


def running_sandboxes(proc: Path = Path("/proc")) -> list[RunningSandbox]:
    """Every sandbox that can be seen from here, by the process that holds it (emulator/sandbox.py)."""
    commands: dict[int, list[str]] = {}
    parents: dict[int, int] = {}
    for folder in proc.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):  # it may end meanwhile
                commands[int(folder.name)] = (folder / "cmdline").read_text(errors="replace").split("\0")
                # "PID (NAME) STATE PPID", where NAME may hold anything (proc_pid_stat(5))
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    sandboxes = {pid for pid, command in commands.items() if ("-m", "emulator.sandbox") in zip(command, command[1:])}
    return [
        RunningSandbox(pid, Path(commands.get(parents[pid], [""])[0]).name.startswith("python"))
        for pid in sorted(sandboxes & parents.keys())
        if parents[pid] not in sandboxes
    ]
