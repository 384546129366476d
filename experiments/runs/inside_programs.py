"""Performs runs of programs inside the sandbox: builds the fabric once, then starts and measures one run after another.

It judges nothing: what it yields are raw measurements.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from controllers.dataplane import build
from emulator.fabric import Fabric
from emulator.meters.meters import Sampler, settled_counters
from emulator.nic import nic_scheme
from emulator.proc import retransmitted_segments
from emulator.programs import Ended, Output, furnish, put_first, register, run_program
from emulator.topology import LeafSpine
from experiments.runs.inside import described
from experiments.runs.messages import Built, ProgramJob, ProgramMeasured
from experiments.shell.commandline import run_shell
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
        with nic_scheme(fabric, job.scheme, job.seed):
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
    with nic_scheme(fabric, scheme, seed):
        yield built
        run_shell(fabric, sampler, seed, terminal, lines)
    yield None


def _furnished_fabric(
    topology: LeafSpine, transport: Transport, seed: int, dataplane: str, userspace_limit_bps: int | None
) -> tuple[Fabric, Built]:
    """A fabric whose hosts have names and whose TCP is as asked, for sockets that others open. Raises EmulatorError."""
    furnish(topology)
    put_first()
    order = transport.order(topology, dataplane, userspace_limit_bps)
    fabric = build(replace(order, congestion_control=transport.congestion_control), sys.stderr, seed)
    register(topology, fabric.host_pids)
    return fabric, described(fabric)


def _retransmitted_segments(fabric: Fabric) -> int:
    return sum(map(retransmitted_segments, fabric.host_pids))
