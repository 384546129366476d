"""Whether the machine has room for a run, and is fast and idle enough to trust it: what emulator/machine.py reads,
judged.
"""

from __future__ import annotations

import math
import os
import resource
import shutil
import time
from pathlib import Path

from emulator import machine
from emulator.finding import Finding, Status, as_root, is_root

# What the experiment `quick` takes, measured: 16 hosts, 240 subflows, both ends of each in one process.
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

_FILES_BESIDE_SUBFLOWS = 100
_LEAST_CORES = 2
_BUSY = 0.2  # of all cores, before a run takes its part
_LOAD_WINDOW_S = 0.3
_COARSE_TIMER_S = 1e-6
_SLOW_CLOCKS = {"hpet", "acpi_pm", "pit", "jiffies"}  # each reading goes to a slow device, or is as coarse as a tick


def open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = math.inf if soft == resource.RLIM_INFINITY else soft
    ample = 2 * _AMPLE_SUBFLOWS + _FILES_BESIDE_SUBFLOWS
    if limit >= ample:
        return Finding("open files", "ok", f"{limit}: room for {_AMPLE_SUBFLOWS} subflows and more")
    subflows = max(0, (soft - _FILES_BESIDE_SUBFLOWS) // 2)
    detail = f"{soft}: room for {subflows} subflows, two sockets each"
    if limit < _QUICK_FILES:
        detail += f"; quick takes {_QUICK_FILES} files"
    within = is_root() or hard == resource.RLIM_INFINITY or hard >= ample
    remedy = f"ulimit -n {ample}" if within else f"sudo prlimit --pid $$ --nofile={ample}:{ample}"
    return Finding("open files", "missing" if limit < _QUICK_FILES else "degraded", detail, remedy)


def processes() -> Finding:
    limit = machine.processes_limit()
    if limit >= _AMPLE_PROCESSES:
        return Finding("processes", "ok", f"up to {limit}")
    status: Status = "missing" if limit < _QUICK_PROCESSES else "degraded"
    remedy = "raise ulimit -u, kernel.pid_max or the container's --pids-limit"
    return Finding("processes", status, f"up to {limit}; a run takes one a host and some 40 more", remedy)


def memory() -> Finding:
    available = machine.available_memory_bytes()
    detail = f"{available / 1e9:.1f} GB available"
    if available >= _AMPLE_MEMORY_BYTES:
        return Finding("memory", "ok", detail)
    status: Status = "missing" if available < _QUICK_MEMORY_BYTES else "degraded"
    return Finding("memory", status, f"{detail}: small fabrics only", "end other programs, or give the machine more")


def disk() -> Finding:
    results = Path("results") if Path("results").is_dir() else Path()
    place = results.absolute()
    if not os.access(results, os.W_OK):
        return Finding("disk", "missing", f"{place} cannot be written to", "start in a folder of your own, or use --out")
    free = shutil.disk_usage(results).free
    detail = f"{free / 1e9:.1f} GB free for results in {place}"
    if free >= _AMPLE_DISK_BYTES:
        return Finding("disk", "ok", detail)
    status: Status = "missing" if free < _QUICK_DISK_BYTES else "degraded"
    return Finding("disk", status, f"{detail}: too little for captures", "make room, or use --out with a folder elsewhere")


def cores() -> Finding:
    cores = machine.usable_cores()
    if cores >= _LEAST_CORES:
        return Finding("cores", "ok", f"{cores:g}")
    detail = f"{cores:g} of at least {_LEAST_CORES}: senders, switches and sampler wait for each other; expect fidelity fail"
    return Finding("cores", "degraded", detail, f"give the machine or container {_LEAST_CORES} cores")


def clock() -> Finding:
    """Shaping and pacing are timers, and every time that is reported is a reading."""
    source = machine.clock_source()
    resolution_s = time.clock_getres(time.CLOCK_MONOTONIC)
    if resolution_s > _COARSE_TIMER_S:
        detail = f"timers fire every {resolution_s * 1e3:g} ms only: ports send in bursts; expect fidelity fail"
        return Finding("clock", "degraded", detail, "start the kernel without highres=off and nohz=off")
    if source in _SLOW_CLOCKS:
        detail = f"{source}: every timestamp and timer takes longer; lower faithful rates"
        return Finding("clock", "degraded", detail, "start the kernel with clocksource=tsc, if its tsc is stable")
    return Finding("clock", "ok", source or "high-resolution timers")


def load() -> Finding:
    busy, stolen = machine.busy_share(_LOAD_WINDOW_S)
    by_others = f", {stolen:.0%} by the hypervisor's other guests" if stolen >= 0.01 else ""
    detail = f"{busy:.0%} of all cores busy just now{by_others}"
    if busy <= _BUSY:
        return Finding("load", "ok", detail)
    return Finding("load", "degraded", f"{detail}: fidelity may fail", "end what else runs (see top), then start")


def sandboxes() -> Finding:
    """A sandbox ends with the process that started it; one that did not takes CPU from the next run."""
    found = machine.running_sandboxes()
    left = [str(sandbox.pid) for sandbox in found if not sandbox.owned]
    if left:
        detail = f"{len(left)} left behind by a run that is gone: fidelity may fail"
        return Finding("leftovers", "degraded", detail, as_root(f"kill -9 {' '.join(left)}"))
    others = f"; {len(found)} of a run under way" if found else ""
    return Finding("leftovers", "ok", f"none{others}")
