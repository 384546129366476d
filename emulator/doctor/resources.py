"""The machine itself: what it runs in, whether it has room for a run, and is fast and idle enough to trust one.

Everything is read from the kernel's files; nothing is changed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import platform
import resource
import shutil
import sys
import time
from pathlib import Path

from emulator.doctor.finding import Finding, Status, as_root, is_root
from emulator.proc import (
    MachineCpu,
    available_memory_bytes,
    effective_capabilities,
    process_ids,
    read_command,
    read_machine_cpu,
    read_process_stat,
)
from emulator.sandbox import AMPLE_OPEN_FILES

# What the experiment `quick` takes, measured: 16 hosts, and 240 subflows with both ends of each in one process.
_QUICK_FILES = 650
_QUICK_PROCESSES = 100
_QUICK_MEMORY_BYTES = 512_000_000
_QUICK_NAMESPACES = 17
_QUICK_DISK_BYTES = 10_000_000

# What leaves room for large fabrics, ten thousand subflows and captures.
_AMPLE_SUBFLOWS = 10_000
_AMPLE_PROCESSES = 1_000
_AMPLE_MEMORY_BYTES = 2_000_000_000
_AMPLE_NAMESPACES = 1_024
_AMPLE_DISK_BYTES = 1_000_000_000

FILES_BESIDE_SUBFLOWS = 100
_LEAST_CORES = 2
_BUSY = 0.2  # of all cores, before a run takes its part
_LOAD_WINDOW_S = 0.3
_COARSE_TIMER_S = 1e-6
_SLOW_CLOCKS = {"hpet", "acpi_pm", "pit", "jiffies"}  # each reading goes to a slow device, or is as coarse as a tick

# What a run cannot do without (capabilities(7)): it makes namespaces, interfaces and packet sockets, and has its
# sampler preferred to other processes.
_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_NICE": 23}
_CAP_SYS_RESOURCE = 24
_CGROUPS = Path("/sys/fs/cgroup")


# What it is


def container() -> str | None:
    """Return the kind of container this is, by the marks that container engines leave; None outside of one."""
    for mark, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if Path(mark).exists():
            return kind
    with contextlib.suppress(OSError):
        return Path("/run/systemd/container").read_text().strip() or None
    return None


def surroundings() -> Finding:
    """Say what kernel and machine this is."""
    kind = container()
    words = [platform.machine(), *([f"in a {kind} container"] if kind else [])]
    with contextlib.suppress(OSError):
        # A flag of x86 processors; others do not tell.
        words += ["in a virtual machine"] if " hypervisor" in Path("/proc/cpuinfo").read_text() else []
    return Finding("machine", "ok", f"Linux {platform.release()}, {' '.join(words)}")


def privileges() -> Finding:
    """Check that this user is root with all capabilities it takes, or can become root."""
    if is_root():
        if lacking := [name for name, bit in _CAPABILITIES.items() if not _has_capability(bit)]:
            return Finding("privileges", "missing", f"root without {', '.join(lacking)}", how_to_be_privileged())
        return Finding("privileges", "ok", "root, with all that takes")
    if shutil.which("sudo"):
        return Finding("privileges", "ok", "not root: run asks sudo")
    return Finding("privileges", "missing", "not root, and there is no sudo", "su -c './spraylab run quick'")


def how_to_be_privileged() -> str:
    """Return what gives root here the privileges it lacks."""
    kind = container()
    if kind is None:
        return "start it as root, outside of whatever confines it here"
    return f"start the container with {'podman' if kind == 'podman' else 'docker'} run --privileged"


def _has_capability(bit: int) -> bool:
    capabilities = effective_capabilities()
    return is_root() if capabilities is None else bool(capabilities >> bit & 1)


# Room


def open_files() -> Finding:
    """Check how many files a process may open: each subflow takes two."""
    # The sandbox raises the soft limit to the hard one, and root with the right to it beyond.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY or (is_root() and _has_capability(_CAP_SYS_RESOURCE))
    limit = math.inf if unlimited else hard
    ample = 2 * _AMPLE_SUBFLOWS + FILES_BESIDE_SUBFLOWS
    if limit >= ample:
        return Finding("open files", "ok", f"up to {limit}: room for {_AMPLE_SUBFLOWS} subflows and more")
    connections = max(0, (hard - FILES_BESIDE_SUBFLOWS) // 2)
    status, detail = _judge(limit, _QUICK_FILES), f"up to {limit}: room for {connections} subflows of two sockets each"
    if is_root():
        remedy = f"docker run --ulimit nofile={ample}:{ample}, or LimitNOFILE={ample}"
    else:
        remedy = f"sudo prlimit --pid $$ --nofile={ample}:{ample}"
    return Finding("open files", status, detail, remedy)


def most_open_files() -> int:
    """Return how many files the sandbox can have open, as far as can be told before it is there."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return sys.maxsize
    may_raise = not is_root() or _has_capability(_CAP_SYS_RESOURCE)  # who is not root yet becomes it
    return max(hard, AMPLE_OPEN_FILES) if may_raise else hard


def processes() -> Finding:
    """Check how many processes there may be."""
    limits = [int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in ("pid_max", "threads-max")]
    limits += [int(value) for value in _cgroup_values("pids.max") if value != "max"]
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and not is_root():  # root's processes are not counted
        limits.append(soft)
    limit = min(limits)
    if limit >= _AMPLE_PROCESSES:
        return Finding("processes", "ok", f"up to {limit}")
    remedy = "raise kernel.pid_max, ulimit -u or the container's --pids-limit"
    detail = f"up to {limit}: a run takes one for each host, and some 40 more"
    return Finding("processes", _judge(limit, _QUICK_PROCESSES), detail, remedy)


def namespaces() -> Finding:
    """Check how many network namespaces there may be: each host takes one, and so does the sandbox."""
    try:
        limit = int(Path("/proc/sys/user/max_net_namespaces").read_text())
    except FileNotFoundError:  # a kernel that counts none
        limit = _AMPLE_NAMESPACES
    if limit >= _AMPLE_NAMESPACES:
        return Finding("namespaces", "ok", "network, mount, process and IPC namespaces")
    detail = f"up to {limit}: room for {max(0, limit - 1)} hosts"
    remedy = as_root(f"sysctl user.max_net_namespaces={_AMPLE_NAMESPACES}")
    return Finding("namespaces", _judge(limit, _QUICK_NAMESPACES), detail, remedy)


def memory() -> Finding:
    """Check the memory: what could be used without swapping, and no more than the control group may have."""
    available = min(
        [available_memory_bytes(), *(int(value) for value in _cgroup_values("memory.max") if value != "max")]
    )
    detail = f"{available / 1e9:.1f} GB available"
    if available >= _AMPLE_MEMORY_BYTES:
        return Finding("memory", "ok", detail)
    remedy = "end other programs, or give the machine more"
    return Finding("memory", _judge(available, _QUICK_MEMORY_BYTES), f"{detail}: small fabrics only", remedy)


def disk() -> Finding:
    """Check that results can be written, and that there is room for them."""
    folder = Path("results") if Path("results").is_dir() else Path()
    place = folder.absolute()
    if not os.access(folder, os.W_OK):
        return Finding("disk", "missing", f"{place} is not yours to write", "cd to a folder of yours, or use --out")
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB free in {place}"
    if free >= _AMPLE_DISK_BYTES:
        return Finding("disk", "ok", detail)
    remedy = "make room, or use --out with a folder elsewhere"
    return Finding("disk", _judge(free, _QUICK_DISK_BYTES), f"{detail}: too little for captures", remedy)


def _judge(amount: float, least: float) -> Status:
    """Of an amount that is not ample: whether `quick` could still run."""
    return "missing" if amount < least else "degraded"


# Speed


def cores() -> Finding:
    """Check the cores: those this process may run on, or the part of them that its control group's quota allows."""
    quotas = [value.split() for value in _cgroup_values("cpu.max")]
    allowed = [int(quota) / int(period) for quota, period in quotas if quota != "max"]
    usable = min([len(os.sched_getaffinity(0)), *allowed])
    if usable >= _LEAST_CORES:
        return Finding("cores", "ok", f"{usable:g}")
    detail = f"{usable:g}: senders, switches and sampler wait for each other, so fidelity may fail"
    return Finding("cores", "degraded", detail, f"give the machine or container {_LEAST_CORES} cores")


def clock() -> Finding:
    """Check the clock: shaping and pacing are its timers, and every time that is reported is a reading of it."""
    resolution_s = time.clock_getres(time.CLOCK_MONOTONIC)
    if resolution_s > _COARSE_TIMER_S:
        detail = f"timers fire only every {resolution_s * 1e3:g} ms: ports send in bursts, so fidelity may fail"
        return Finding("clock", "degraded", detail, "start the kernel without highres=off")
    source = "high-resolution timers"
    with contextlib.suppress(OSError):
        source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    if source in _SLOW_CLOCKS:
        detail = f"{source}: every timer and timestamp takes longer; lower faithful rates"
        return Finding("clock", "degraded", detail, "start the kernel with clocksource=tsc, if its tsc is stable")
    return Finding("clock", "ok", source)


def load() -> Finding:
    """Check how busy all cores are before a run begins.

    What a hypervisor gives to others is not there for a run either.
    """
    before = read_machine_cpu()
    time.sleep(_LOAD_WINDOW_S)
    busy, stolen = busy_shares(before, read_machine_cpu())
    detail = f"{busy:.0%} of all cores busy just now"
    detail += f", {stolen:.0%} with a hypervisor's other guests" if stolen >= 0.01 else ""
    if busy <= _BUSY:
        return Finding("load", "ok", detail)
    return Finding("load", "degraded", f"{detail}: fidelity may fail", "see what runs beside (top), and end it")


def busy_shares(before: MachineCpu, after: MachineCpu) -> tuple[float, float]:
    """Return the busy and the stolen part of all cores, 0 to 1, between two readings; what is stolen is busy too."""
    spent = after.since(before)
    total_ticks = max(1, spent.total_ticks)
    return spent.busy_ticks / total_ticks, spent.stolen_ticks / total_ticks


def _cgroup_values(name: str) -> list[str]:
    """A setting of this process's control group and of every one above it, as far as they show (cgroup v2)."""
    values = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            folder = _CGROUPS / line[3:].lstrip("/")
            for place in (folder, *folder.parents):
                with contextlib.suppress(OSError):
                    values.append((place / name).read_text().strip())
    return values


# Leftovers


def leftovers() -> Finding:
    """Check that no sandbox has outlived the process that started it: it would take CPU from the next run."""
    owned, left = sandboxes()
    if left:
        time.sleep(0.1)  # it may just have been ending
        left &= sandboxes()[1]
    if left:
        detail = f"{len(left)} sandbox{'es' * (len(left) > 1)} of a run that is gone: fidelity may fail"
        return Finding("leftovers", "degraded", detail, as_root(f"kill -9 {' '.join(map(str, sorted(left)))}"))
    return Finding("leftovers", "ok", f"none; {len(owned)} other under way" if owned else "none")


def sandboxes(proc: str = "/proc") -> tuple[set[int], set[int]]:
    """Return the processes that hold a sandbox (emulator/sandbox.py), apart from this process's own.

    First those whose owner, a Python process, is there to end them, then those it left behind.
    """
    commands: dict[int, list[str]] = {}
    parents: dict[int, int] = {}
    for pid in process_ids(proc):
        command, stat = read_command(pid, proc), read_process_stat(pid, proc)
        if command and stat:
            commands[pid], parents[pid] = command, stat.parent_pid
    inside = {pid for pid in parents if ("emulator.child", "emulator.sandbox") in itertools.pairwise(commands[pid])}
    holders = {pid for pid in inside if parents[pid] not in inside and parents[pid] != os.getpid()}
    owned = {pid for pid in holders if Path(commands.get(parents[pid], [""])[0]).name.startswith("python")}
    return owned, holders - owned
