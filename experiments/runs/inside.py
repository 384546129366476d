"""Performs runs inside the sandbox: builds the fabric once, then plays and measures one load after the other.

It judges nothing: what it yields are raw measurements.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from controllers.dataplane import build
from emulator import vigil
from emulator.errors import EmulatorError
from emulator.fabric import Fabric
from emulator.faults.clock import Clock
from emulator.meters.capture import Captures, capture_points
from emulator.meters.meters import Sampler, settled_counters
from emulator.order import FabricOrder
from emulator.programs import furnish, put_first, register
from experiments.judge.evidence import Built, Measured
from experiments.runs.messages import Event, Failed, Glance, Job, Lost, Playing, Progress, Started, UnfitError
from traffic.watch import Far


def perform(order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
    """Runs in the sandbox. Raises EmulatorError when the fabric cannot be built.

    It ends with Lost, and runs are left, where a process has ended without which the fabric is none.
    """
    with vigil.kept():
        fabric = fabric_of(order, jobs[0].seed)
        sampler = Sampler(fabric, sys.stderr, programs=order.for_programs)
    yield described(fabric)
    for job in jobs:
        if job is not jobs[0] and (lost := vigil.loss(0)):
            yield Lost(lost)
            return
        print(f"{time.strftime('%H:%M:%S')} run {job.run_id}", file=sys.stderr, flush=True)
        yield Started(job.run_id)
        try:
            yield from _guarded(_play(fabric, sampler, job))
        except UnfitError as error:
            yield Failed(job.run_id, error.reason, error.status)
            return
        except Exception as error:  # whatever it breaks: that it ended is the reason
            lost = vigil.loss()
            if lost is None and not isinstance(error, EmulatorError):
                raise
            yield Failed(job.run_id, lost or str(error))
            if lost:
                yield Lost(lost)
                return


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


def _guarded(events: Generator[Event, None, None]) -> Iterator[Event]:
    """Interrupt `events` as soon as a process ends that the fabric rests upon, but never whom they are handed to."""
    with closing(events):
        while True:
            with vigil.kept():
                try:
                    event = next(events)
                except StopIteration:
                    return
            yield event


def _play(fabric: Fabric, sampler: Sampler, job: Job) -> Generator[Event, None, None]:
    protected = job.reaction is not None and job.reaction.local
    fabric.program(job.seed, job.load.hashed, forwarding=job.load.forwarding, protected=protected)
    points = capture_points(fabric.ports, job.captures)
    with job.load.ready(fabric, job.seed) as play:
        settled_counters(fabric)  # what made it ready has passed
        with (
            Captures(points, job.capture_directory, sys.stderr) as captures,
            Clock(job.faults, fabric, job.reaction) as clock,
        ):
            before = settled_counters(fabric)
            sampler.start()
            try:
                clock.start()
                result = yield from _reported(job.run_id, play(), sampler if job.watched else None)
                clock.halt()
                after = settled_counters(fabric)
                happened = clock.settle()
            finally:
                samples = sampler.stop()
            captured = captures.stop() if points else None
        shaping = fabric.read_shaping()
    yield Measured(job.run_id, result, before, after, samples, shaping, captured, happened)


def _reported(run_id: str, playing: Playing, sampler: Sampler | None) -> Iterator[Event] | Any:
    while True:
        try:
            said = next(playing)
        except StopIteration as end:
            return end.value
        yield Progress(run_id, said) if isinstance(said, Far) else said
        if sampler and (sample := sampler.glance()):
            yield Glance(run_id, sample)
