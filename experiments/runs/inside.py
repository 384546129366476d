"""Performs runs inside the sandbox: builds the fabric once, then plays and measures one load after the other.

It judges nothing: what it yields are raw measurements.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from controllers.dataplane import build
from emulator.errors import EmulatorError
from emulator.fabric import Fabric
from emulator.meters.capture import Captures, capture_points
from emulator.meters.meters import Sampler, settled_counters
from emulator.order import FabricOrder
from emulator.programs import furnish, put_first, register
from experiments.judge.evidence import Built, Measured
from experiments.runs.messages import Event, Failed, Job, Playing, Progress, Started, UnfitError


def perform(order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
    """Runs in the sandbox. Raises EmulatorError when the fabric cannot be built."""
    fabric = fabric_of(order, jobs[0].seed)
    sampler = Sampler(fabric, sys.stderr, programs=order.for_programs)
    yield described(fabric)
    for job in jobs:
        print(f"{time.strftime('%H:%M:%S')} run {job.run_id}", file=sys.stderr, flush=True)
        yield Started(job.run_id)
        try:
            fabric.program(job.seed, job.load.hashed, forwarding=job.load.forwarding)
            yield from _play(fabric, sampler, job)
        except UnfitError as error:
            yield Failed(job.run_id, error.reason, error.status)
            return
        except EmulatorError as error:
            yield Failed(job.run_id, str(error))


def fabric_of(order: FabricOrder, seed: int) -> Fabric:
    """Build what `order` asks for; where that is for programs, with all that they find on a host."""
    if not order.for_programs:
        return build(order, sys.stderr, seed)
    furnish(order.topology)
    put_first()
    fabric = build(order, sys.stderr, seed)
    register(order.topology, fabric.host_pids)
    return fabric


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


def _play(fabric: Fabric, sampler: Sampler, job: Job) -> Iterator[Event]:
    points = capture_points(fabric.ports, job.captures)
    with job.load.ready(fabric, job.seed) as play:
        settled_counters(fabric)  # what made it ready has passed
        with Captures(points, job.capture_directory, sys.stderr) as captures:
            before = settled_counters(fabric)
            sampler.start()
            try:
                result = yield from _reported(job.run_id, play())
                after = settled_counters(fabric)
            finally:
                samples = sampler.stop()
            captured = captures.stop() if points else None
        shaping = fabric.read_shaping()
    yield Measured(job.run_id, result, before, after, samples, shaping, captured)


def _reported(run_id: str, playing: Playing) -> Iterator[Event] | Any:
    while True:
        try:
            said = next(playing)
        except StopIteration as end:
            return end.value
        yield Progress(run_id, said) if isinstance(said, float | int) else said
