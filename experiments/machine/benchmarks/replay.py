"""What traffic costs: CPU seconds for a GB of payload over a hop, by scheme, by number of subflows, by hosts.

Needs root, and a machine that does nothing else meanwhile: the costs of the whole machine are counted, of all processes
but niced ones.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from typing import Any

from controllers.dataplane import build
from emulator.proc import read_machine_cpu
from emulator.sandbox import Sandbox, raise_open_files
from emulator.topology import LeafSpine
from experiments.machine.probe import HOST_COUNTS, Traffic, alltoall, fabric_of, permutation, process_counts
from experiments.runs.loads.replays import ReplayLoad
from experiments.runs.messages import played
from experiments.theory.bound import bound_s
from traffic.abreast import DEFAULT_PROCESSES, Processes
from traffic.placement import place
from traffic.plan import TrafficPlan, plan_traffic
from traffic.schemes import scheme_of
from traffic.transport import Transport

_SCHEMES = ("ethereal", "subflow-8", "spray")
_BURST_FRAMES = 4
_HOSTS, _RATE_BPS = 16, 50_000_000
_GROWTH_TOTAL_BPS = 400_000_000  # of all hosts together, however many they are
_MANY_CHANNELS = 42  # between all pairs of 16 hosts: 10,080 connections, each of two sockets
_OTHER_FILES = 200  # that the process has open, or will
_TIMEOUT_S = 120.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def run(dataplane: str = "linux") -> list[dict[str, Any]]:
    """A row a measurement. `payload_gb_hops` is payload times the links it crosses; the costs are in CPU seconds for
    each of those: of the processes that drive the sockets, their own (user) and the kernel's on their behalf (system,
    which includes forwarding done at once), and of the whole machine.
    """
    fabric = fabric_of(_HOSTS, _RATE_BPS)
    measured = [_row(scheme, fabric, dataplane, Traffic(permutation(fabric, 2.0), scheme)) for scheme in _SCHEMES]
    for count in process_counts():
        what = f"{count} process{'es' if count > 1 else ''}"
        measured.append(_row(what, fabric, dataplane, Traffic(permutation(fabric, 2.0)), count))
    bursts = fabric_of(_HOSTS, _RATE_BPS, _BURST_FRAMES)
    measured.append(_row(f"bursts of {_BURST_FRAMES}", bursts, dataplane, Traffic(permutation(fabric, 2.0))))
    measured.append(_many(fabric, dataplane))
    for hosts in HOST_COUNTS:
        fabric = fabric_of(hosts, _GROWTH_TOTAL_BPS // hosts)
        measured.append(_row(f"{hosts} hosts", fabric, dataplane, Traffic(permutation(fabric, 2.0))))
    return measured


def _many(fabric: LeafSpine, dataplane: str) -> dict[str, Any]:
    """10,000 subflows, or as many as this process may open files for."""
    pairs = fabric.hosts * (fabric.hosts - 1)
    raise_open_files()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    channels = min(_MANY_CHANNELS, (files - _OTHER_FILES) // (2 * pairs))
    schedule = alltoall(fabric, 2.0, channels)
    return _row(f"{pairs * channels:,} subflows", fabric, dataplane, Traffic(schedule))


def _row(
    what: str, fabric: LeafSpine, dataplane: str, traffic: Traffic, processes: Processes = DEFAULT_PROCESSES
) -> dict[str, Any]:
    hosts = place("packed", fabric, fabric.hosts)
    plan = plan_traffic(traffic.schedule, fabric, hosts, scheme_of(traffic.scheme))
    with tempfile.TemporaryFile() as log, Sandbox(log) as sandbox:
        cost = sandbox.call(measure, fabric, dataplane, plan, traffic.seed, processes, timeout_s=_TIMEOUT_S)
    gb_hops = sum(flow.size_bytes * _hops(fabric, flow.src, flow.dst) for flow in traffic.schedule.flows) / 1e9
    row = {
        "what": what,
        "scheme": traffic.scheme,
        "hosts": fabric.hosts,
        "total_mbps": fabric.hosts * fabric.host_rate_bps / 1e6,
        "subflows": len(plan.connections),
        "setup_s": cost["setup_s"],
        "open_s": cost["open_s"],
        "cct_over_bound": cost["cct_s"] / bound_s(traffic.schedule, fabric, hosts),
        "payload_gb_hops": gb_hops,
        "user_s_per_gb_hop": cost["user_s"] / gb_hops,
        "system_s_per_gb_hop": cost["system_s"] / gb_hops,
        "machine_s_per_gb_hop": cost["machine_s"] / gb_hops,
    }
    print(row, file=sys.stderr, flush=True)
    return row


def measure(
    fabric: LeafSpine, dataplane: str, plan: TrafficPlan, seed: int, processes: Processes = DEFAULT_PROCESSES
) -> dict[str, float]:
    """Runs in the sandbox: one replay and what it cost."""
    transport = Transport()
    built = build(transport.order(fabric, dataplane), sys.stderr, seed)
    load = ReplayLoad(plan, transport, processes=processes)
    built.program(seed, load.hashed, forwarding=load.forwarding)
    opening = time.monotonic()
    with load.ready(built, seed) as play:
        opened = time.monotonic()
        machine = _machine_s()
        result = played(play())
        spent = _machine_s() - machine
    return {
        "setup_s": built.timings["ready"],
        "open_s": opened - opening,
        "cct_s": result.cct_s,
        "user_s": sum(user_s for user_s, _ in result.cpu_s),
        "system_s": sum(system_s for _, system_s in result.cpu_s),
        "machine_s": spent,
    }


def _machine_s() -> float:
    """CPU time of all cores, but for idle and waiting."""
    return read_machine_cpu().busy_ticks / _TICKS_PER_S


def _hops(fabric: LeafSpine, src: int, dst: int) -> int:
    return 2 if fabric.leaf_of(src) == fabric.leaf_of(dst) else 4
