"""Performs runs of programs inside the sandbox: builds the fabric once, then starts and measures one run after another.

It judges nothing: what it yields are raw measurements.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from controllers.dataplane import build
from emulator.command import run
from emulator.errors import EmulatorError
from emulator.fabric import Fabric
from emulator.meters.meters import Sampler, settled_counters
from emulator.nic import at_work
from emulator.programs import FABRIC_PREFIX, Ended, Output, furnish, put_first, register, run_program
from emulator.topology import LeafSpine
from experiments.runs.inside import described
from experiments.runs.messages import Built, ProgramJob, ProgramMeasured
from experiments.shell.commandline import run_shell
from traffic.schemes import scheme_of
from traffic.transport import Transport


def perform_programs(
    topology: LeafSpine,
    transport: Transport,
    jobs: Sequence[ProgramJob],
    dataplane: str,
    userspace_limit_bps: int | None,
) -> Iterator[Built | Output | ProgramMeasured]:
    """Runs in the sandbox, until the first program that fails. Raises EmulatorError."""
    fabric, built = _furnished_fabric(topology, transport, jobs[0].seed, dataplane, userspace_limit_bps)
    sampler = Sampler(fabric, sys.stderr, programs=True)
    yield built
    for job in jobs:
        print(f"{time.strftime('%H:%M:%S')} run {job.run_id}", file=sys.stderr, flush=True)
        fabric.program(job.seed)
        with at_work(scheme_of(job.scheme).program_nic, fabric, job.seed):
            before, retransmitted = settled_counters(fabric), _retransmitted_segments(fabric)
            sampler.start()
            try:
                for event in run_program(topology, job.launch):
                    if isinstance(event, Output):
                        yield event
                    else:
                        ended: Ended = event
                after = settled_counters(fabric)
            finally:
                samples = sampler.stop()
        again = _retransmitted_segments(fabric) - retransmitted
        yield ProgramMeasured(job.run_id, ended, again, before, after, samples, fabric.read_shaping())
        if ended.status != 0:
            return


def perform_shell(
    topology: LeafSpine,
    transport: Transport,
    seed: int,
    dataplane: str,
    userspace_limit_bps: int | None,
    scheme: str,
    terminal: int,
    lines: Sequence[str] | None,
) -> Iterator[Built | None]:
    """Runs in the sandbox; see `experiments.shell.commandline.run_shell`. Raises EmulatorError."""
    fabric, built = _furnished_fabric(topology, transport, seed, dataplane, userspace_limit_bps)
    sampler = Sampler(fabric, sys.stderr)
    with at_work(scheme_of(scheme).program_nic, fabric, seed):
        yield built
        run_shell(fabric, sampler, seed, terminal, lines)
    yield None


def _furnished_fabric(
    topology: LeafSpine, transport: Transport, seed: int, dataplane: str, userspace_limit_bps: int | None
) -> tuple[Fabric, Built]:
    """A fabric whose hosts have names and whose TCP is as asked, for sockets that others open. Raises EmulatorError."""
    furnish(topology)
    put_first()
    fabric = build(transport.order(topology, dataplane, userspace_limit_bps), sys.stderr, seed)
    register(topology, fabric.host_pids)
    for pid in fabric.host_pids:
        _route_programs(pid, transport.congestion_control)
    return fabric, described(fabric)


def _route_programs(pid: int, congestion_control: str) -> None:
    """A host reaches the fabric and nothing else: what went elsewhere would be lost in a switch without a trace.

    The congestion control is the route's, as a namespace's sysctl is refused what the machine does not allow all.
    """
    ip = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "route"]
    _, *way = (word for word in run([*ip, "show", "default"]).split() if word != "lock")
    try:
        run([*ip, "add", FABRIC_PREFIX, *way, "congctl", congestion_control])
    except EmulatorError as error:
        what = f"this kernel has no {congestion_control} ({error})"
        raise EmulatorError(f"transport.congestion_control: {what}") from error
    run([*ip, "delete", "default"])


def _retransmitted_segments(fabric: Fabric) -> int:
    """Of all hosts together, since they were made (RetransSegs of RFC 4022)."""
    total = 0
    for pid in fabric.host_pids:
        lines = Path(f"/proc/{pid}/net/snmp").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        total += int(values[names.index("RetransSegs")])
    return total
