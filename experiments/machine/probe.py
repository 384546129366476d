"""Performs a few runs on one fabric and judges them: for measuring this machine, where no experiment is at hand."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from emulator.meters.capture import Which
from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine
from experiments.judge.fidelity import Run as Evidence
from experiments.judge.rows import FAIL, PASS, judge
from experiments.runs import messages as measurement
from experiments.theory.bound import bound_s
from experiments.theory.prediction import predict_run
from traffic.collectives import build_schedule
from traffic.placement import place
from traffic.plan import plan_traffic
from traffic.schedule import Schedule
from traffic.schemes import scheme_of
from traffic.transport import Transport

_SILENCE_S = 60.0
_SHAPES = {16: (4, 4, 4), 32: (8, 4, 4), 64: (8, 8, 8), 128: (8, 8, 16)}
HOST_COUNTS = tuple(_SHAPES)
_STEADY_RATE_BPS = 20_000_000  # below it, a frame's way over four links is no small part of a second


@dataclass(frozen=True)
class Traffic:
    """One run: what is sent, under which scheme, and what is captured of it."""

    schedule: Schedule
    scheme: str = "ethereal"
    seed: int = 1
    captures: Which = "none"
    placement: str = "packed"


def fabric_of(hosts: int, rate_bps: int, burst_frames: int = 1) -> LeafSpine:
    """A fabric of HOST_COUNTS hosts, not oversubscribed, whose host links have this rate."""
    leaves, spines, hosts_per_leaf = _SHAPES[hosts]
    fabric_rate_bps = rate_bps * hosts_per_leaf // spines
    return LeafSpine(leaves, spines, hosts_per_leaf, rate_bps, fabric_rate_bps, burst_frames=burst_frames)


def bytes_in(fabric: LeafSpine, seconds: float = 1.0) -> int:
    """What one host's link carries in `seconds`, as payload; longer where a single frame takes long."""
    seconds *= max(1.0, _STEADY_RATE_BPS / fabric.host_rate_bps)
    return max(1, int(seconds * fabric.host_rate_bps / 8 / fabric.wire_bytes(1.0)))


def permutation(fabric: LeafSpine, seconds: float = 1.0, channels: int = 4) -> Schedule:
    """Every host sends to its counterpart in the next leaf: all links are busy for `seconds`."""
    return build_schedule(
        "permutation",
        ranks=fabric.hosts,
        size_bytes=bytes_in(fabric, seconds),
        channels=channels,
        shift=fabric.hosts_per_leaf,
    )


def alltoall(fabric: LeafSpine, seconds: float = 1.0, channels: int = 1) -> Schedule:
    """Every host sends to every other, for about `seconds`."""
    return build_schedule("alltoall", ranks=fabric.hosts, size_bytes=bytes_in(fabric, seconds), channels=channels)


def rows(
    fabric: LeafSpine,
    dataplane: str,
    traffic: Sequence[Traffic],
    transport: Transport | None = None,
    *,
    predicted: bool = False,
) -> Iterator[dict[str, Any]]:
    """The row of `runs.csv` of each run in turn, and what building the fabric took as `setup_s`.

    A run that does not finish has a row too: its fidelity is "fail", and there is no `cct_s`. With `predicted`, theory
    is asked what each run should take, before anything is built. Needs root. Raises EmulatorError where the fabric
    cannot be built.
    """
    from experiments.runs.inside import perform  # imports Mininet, which only a machine that emulates has

    transport = transport or Transport()
    hosts = [place(each.placement, fabric, each.schedule.ranks) for each in traffic]
    plans = [
        plan_traffic(each.schedule, fabric, on, scheme_of(each.scheme)) for each, on in zip(traffic, hosts, strict=True)
    ]
    expected = [
        predict_run(plan, fabric, each.seed) if predicted else None for plan, each in zip(plans, traffic, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder, Sandbox(Path(folder) / "run.log") as sandbox:
        jobs = [
            measurement.Job(str(n), plan, each.seed, captures=each.captures, capture_directory=Path(folder) / str(n))
            for n, (plan, each) in enumerate(zip(plans, traffic, strict=True))
        ]
        silence_s = transport.stall_timeout_s + _SILENCE_S
        built: measurement.Built | None = None
        for event in sandbox.stream(perform, fabric, transport, jobs, dataplane, timeout_s=silence_s):
            match event:
                case measurement.Built():
                    built = event
                case measurement.Failed(run_id, reason) if built:
                    identity = _identity(traffic[int(run_id)], fabric, built)
                    yield identity | {"fidelity": FAIL, "fidelity_reasons": reason}
                case measurement.Measured(run_id) if built:
                    number = int(run_id)
                    run = traffic[number]
                    bound = bound_s(run.schedule, fabric, hosts[number])
                    evidence = Evidence(event, plans[number], built.ports, bound, fabric, run.seed)
                    yield dict(judge(evidence, fabric, _identity(run, fabric, built), expected[number]).row)


def medians(
    fabric: LeafSpine,
    dataplane: str,
    schedules: Sequence[Schedule],
    schemes: Sequence[str],
    seeds: Sequence[int],
    numbers: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """A row a schedule and scheme, all on one fabric: the medians of `numbers` over the seeds that finished (None if
    none did), how many seeds had fidelity "pass", and why the others had not. Otherwise as `rows`."""
    traffic = [Traffic(schedule, scheme, seed) for schedule in schedules for scheme in schemes for seed in seeds]
    done = list(rows(fabric, dataplane, traffic))
    for first in range(0, len(done), len(seeds)):
        same = done[first : first + len(seeds)]
        finished = [row for row in same if "cct_s" in row]
        yield {
            **{name: same[0][name] for name in ("dataplane", "collective", "scheme")},
            **{name: median(row[name] for row in finished) if finished else None for name in numbers},
            "pass": f"{sum(row['fidelity'] == PASS for row in same)}/{len(same)}",
            "reasons": "; ".join(sorted({row["fidelity_reasons"] for row in same if row["fidelity_reasons"]})),
        }


def faithful(row: dict[str, Any], most_over_bound: float) -> bool:
    """Whether a run's number can be trusted and is within `most_over_bound` of its bound."""
    return row["fidelity"] == PASS and bool(row["cct_over_bound"] <= most_over_bound)


def available(dataplanes: Sequence[str] = ("ovs", "linux")) -> list[str]:
    """Those of `dataplanes` that are installed here."""
    return [name for name in dataplanes if name == "linux" or shutil.which("ovs-vswitchd")]


def _identity(traffic: Traffic, fabric: LeafSpine, built: measurement.Built) -> dict[str, Any]:
    return {
        "dataplane": built.dataplane,
        "hosts": fabric.hosts,
        "host_rate_bps": fabric.host_rate_bps,
        "collective": traffic.schedule.collective,
        "algorithm": traffic.schedule.algorithm,
        "scheme": traffic.scheme,
        "setup_s": built.setup_s["ready"],
    }
