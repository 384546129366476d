"""Performs runs inside the sandbox: builds the fabric once, then replays and measures one run after the other.

It judges nothing: what it yields are raw measurements.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator, Sequence

from controllers.dataplane import build
from emulator.dataplane import Endpoints
from emulator.errors import EmulatorError
from emulator.fabric import Fabric
from emulator.meters.capture import Captures, capture_points
from emulator.meters.meters import Sampler, settled_counters
from emulator.nic import at_work
from emulator.topology import LeafSpine
from experiments.runs.messages import Built, Event, Failed, Job, Measured, Progress
from traffic.payload import Anything, RealData
from traffic.plan import LISTEN_PORT, UNTAGGED, TrafficPlan
from traffic.replay import Replay, ReplayResult
from traffic.transport import Transport


def perform(
    topology: LeafSpine,
    transport: Transport,
    jobs: Sequence[Job],
    dataplane: str = "auto",
    userspace_limit_bps: int | None = None,
) -> Iterator[Event]:
    """Runs in the sandbox. Raises EmulatorError when the fabric cannot be built."""
    log = sys.stderr
    fabric = build(transport.order(topology, dataplane, userspace_limit_bps), log, jobs[0].seed)
    sampler = Sampler(fabric, log)
    yield described(fabric)
    for job in jobs:
        print(f"{time.strftime('%H:%M:%S')} run {job.run_id}", file=log, flush=True)
        try:
            fabric.program(job.seed, hashed_connections(job.plan))
            yield from _play(fabric, sampler, transport, job)
        except EmulatorError as error:
            yield Failed(job.run_id, str(error))


def described(fabric: Fabric) -> Built:
    """What there is to know of a fabric that is up."""
    return Built(
        dataplane=fabric.plane.name,
        why=fabric.plane.why,
        ovs_version=fabric.plane.version,
        setup_s=fabric.timings,
        packet_buffer_bytes=fabric.buffer_bytes,
        ports=fabric.ports,
        shaping=fabric.read_shaping(),
    )


def hashed_connections(plan: TrafficPlan) -> list[Endpoints]:
    """Those whose paths the leaves choose."""
    if plan.scheme.spreads:
        return []
    return [
        Endpoints(subflow.src_host, subflow.dst_host, subflow.src_port, LISTEN_PORT)
        for subflow in plan.subflows
        if subflow.path_tag == UNTAGGED
    ]


def _play(fabric: Fabric, sampler: Sampler, transport: Transport, job: Job) -> Iterator[Event]:
    with at_work(job.plan.scheme.nic, fabric, job.seed):
        payload = RealData(job.plan, job.seed) if job.verify else Anything()
        points = capture_points(fabric.ports, job.captures)
        with Replay(job.plan, fabric.topology, fabric.host_pids, transport, payload) as replay:
            settled_counters(fabric)  # what opened the connections has passed
            with Captures(points, job.capture_directory, sys.stderr) as captures:
                before = settled_counters(fabric)
                sampler.start()
                try:
                    result = yield from _reported(job.run_id, replay.run())
                    after = settled_counters(fabric)
                finally:
                    samples = sampler.stop()
                captured = captures.stop() if points else None
            shaping = fabric.read_shaping()
        yield Measured(job.run_id, result, before, after, samples, shaping, captured)


def _reported(run_id: str, steps: Generator[float, None, ReplayResult]) -> Generator[Event, None, ReplayResult]:
    while True:
        try:
            yield Progress(run_id, next(steps))
        except StopIteration as end:
            result: ReplayResult = end.value
            return result
