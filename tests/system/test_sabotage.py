"""What would make a number wrong is noticed, by the right invariant; what is healthy is believed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import inside_sabotage
import pytest
from neighbours import Neighbours

from controllers.dataplane import PLANES
from controllers.ovs.plane import kernel_datapath
from emulator.files import Folder
from emulator.meters.capture import Which, capture_points
from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine
from experiments.captures.summary import analyse
from experiments.judge.evidence import Built, Measured, ReplayEvidence
from experiments.judge.invariants import failures
from experiments.judge.machine import MAX_SAMPLER_LATE_S
from experiments.judge.windows import samples_within
from experiments.runs.inside import perform
from experiments.runs.loads.replays import ReplayLoad
from experiments.runs.messages import Event, Failed, Job
from experiments.theory.bound import bound_s
from traffic.collectives import build_schedule
from traffic.plan import plan_traffic
from traffic.schemes import scheme_of
from traffic.transport import Transport

# Links so slow that their buckets make up for the milliseconds that a busy machine is late: whatever runs beside a
# test, only one invariant can tell, the one that judges the machine.
SMALL = LeafSpine(2, 2, 2, host_rate_bps=5_000_000, fabric_rate_bps=5_000_000)
HOSTS = range(SMALL.hosts)
PORT = "leaf1-eth3"
DEFAULT = Transport()
TIMEOUT_S = 60.0

Verdict = dict[str, list[str]] | str
"""The invariants that fail with their reasons, or why the run did not finish."""


def verdicts(
    folder: Path,
    sabotage: Callable[..., Iterator[Event]],
    dataplane: str,
    *arguments: Any,
    seconds: float = 1.5,
    seeds: tuple[int, ...] = (1,),
    transport: Transport = DEFAULT,
    captures: Which = "none",
    excusing: bool = True,
) -> list[Verdict]:
    """Of every run in turn. That the machine did not keep up is excused where others kept it from doing so."""
    schedule = build_schedule(
        "permutation", ranks=SMALL.hosts, size_bytes=int(seconds * SMALL.host_rate_bps / 8), channels=2, shift=2
    )
    plan, least_s = plan_traffic(schedule, SMALL, HOSTS, scheme_of("ethereal")), bound_s(schedule, SMALL, HOSTS)
    load = ReplayLoad(plan, transport)
    jobs = [Job(str(seed), seed, load, captures, Folder(folder) / str(seed)) for seed in seeds]
    order = transport.order(SMALL, dataplane)
    found: list[Verdict] = []
    built: Built | None = None
    with Neighbours() as neighbours, (folder / "run.log").open("a+b") as log, Sandbox(log) as sandbox:
        for event in sandbox.stream(sabotage, order, jobs, *arguments, timeout_s=TIMEOUT_S):
            if isinstance(event, Built):
                built = event
            elif isinstance(event, Failed):
                found.append(event.reason)
            elif isinstance(event, Measured):
                assert built
                points = capture_points(built.ports, captures)
                seen = analyse(Folder(folder) / event.run_id, points, SMALL) if points else None
                run = ReplayEvidence.of(
                    event, plan=plan, ports=built.ports, bound_s=least_s, topology=SMALL, seed=int(event.run_id),
                    captured=seen, asked=captures,
                )  # fmt: skip
                failed = failures(run)
                if excusing:
                    excuse_machine(failed, run, neighbours)
                found.append(failed)
    return found


def excuse_machine(failed: dict[str, list[str]], run: ReplayEvidence, neighbours: Neighbours) -> None:
    """Leave out what `machine` and `replay` say of a run beside which others used the machine, and say so.

    They did if, while it was judged, they took more of the CPU than is enough to make one sample come too late.
    """
    judged = samples_within(run).time_s
    others_s = neighbours.took_s(judged.min(), judged.max())
    for name in ("machine", "replay"):
        if name in failed and others_s > MAX_SAMPLER_LATE_S:
            reasons = "; ".join(failed.pop(name))
            beside = f"for others took {others_s:.1f} s of CPU in {judged.max() - judged.min():.1f} s"
            warnings.warn(f"run {run.measured.run_id}: {name} is not judged, {beside}: {reasons}", stacklevel=3)


@pytest.fixture(params=PLANES)
def plane(request: pytest.FixtureRequest) -> str:
    asked: str = request.param
    return asked


def test_undisturbed_runs_pass(tmp_path: Path, plane: str) -> None:
    seeds = tuple(range(1, 11))
    assert verdicts(tmp_path, perform, plane, seeds=seeds, seconds=0.8) == [{}] * len(seeds)


def test_a_hog_beside_the_run(tmp_path: Path) -> None:
    """It is ours; but whosever it is, here nothing is excused."""
    [failed] = verdicts(tmp_path, inside_sabotage.hogged, "linux", excusing=False)
    assert "machine" in failed and set(failed) <= {"machine", "replay"}, failed


def test_what_a_test_does_to_the_machine_is_no_excuse() -> None:
    """Hogs of ours on every core: there is no more for others to have taken than the hogs have left."""
    cores, hogs_before_s, began_s = os.cpu_count() or 1, os.times().children_user, time.monotonic()
    with Neighbours() as neighbours:
        hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
        time.sleep(1.0)
        others_s = neighbours.took_s(began_s, time.monotonic())
    for hog in hogs:
        hog.kill()
        hog.wait()
    hogs_s = os.times().children_user - hogs_before_s
    assert hogs_s > MAX_SAMPLER_LATE_S
    assert others_s + hogs_s < cores * (time.monotonic() - began_s) + MAX_SAMPLER_LATE_S


def test_a_switch_starved_of_buffer(tmp_path: Path, sandbox: Sandbox) -> None:
    if sandbox.call(kernel_datapath, timeout_s=TIMEOUT_S):
        pytest.skip("this kernel's own Open vSwitch sends through no socket that could be starved")
    patient = Transport(stall_timeout_s=45.0)  # losses that TCP is not told of can take it several time-outs
    [failed] = verdicts(tmp_path, inside_sabotage.starved, "ovs", 1, transport=patient)
    assert list(failed) == ["conservation"], failed


@pytest.mark.parametrize(("plane", "factor"), [("ovs", 2.0), ("linux", 0.5)])
def test_a_port_shaped_to_another_rate_behind_its_back(tmp_path: Path, plane: str, factor: float) -> None:
    [failed] = verdicts(tmp_path, inside_sabotage.reshaped, plane, PORT, factor, False)
    assert failed == {"shaping": [f"{PORT}: shaped to {5 * factor:g} Mb/s, 5 Mb/s was asked"]}


def test_a_port_that_was_slow_for_a_while(tmp_path: Path) -> None:
    """Its shaping is as asked when it is read back."""
    [failed] = verdicts(tmp_path, inside_sabotage.reshaped, "linux", PORT, 0.5, True, seconds=2.0)
    assert isinstance(failed, dict) and list(failed) == ["work conservation"], failed
    assert all(reason.startswith(f"{PORT} stayed below its rate") for reason in failed["work conservation"])


def test_senders_that_hold_themselves_back(tmp_path: Path, plane: str) -> None:
    """All their bytes arrive, and no port is above its rate: only that no link on the way was full tells."""
    [failed] = verdicts(tmp_path, inside_sabotage.paced, plane)
    assert isinstance(failed, dict) and list(failed) == ["senders"], failed


def test_a_run_too_short_to_be_judged(tmp_path: Path) -> None:
    [failed] = verdicts(tmp_path, perform, "linux", seconds=0.05)
    assert isinstance(failed, dict) and list(failed) == ["length"], failed
    assert "at least" in failed["length"][0]


def test_a_dropped_capture(tmp_path: Path) -> None:
    """The loss is told, and seen in the file as well; the next run's capture is whole."""
    missed, whole = verdicts(tmp_path, inside_sabotage.missed, "linux", seeds=(1, 2), captures="uplinks")
    assert isinstance(missed, dict) and list(missed) == ["captures"], missed
    for evidence in ("packets were not captured", "bytes were captured, the interface counted"):
        assert any(PORT in reason and evidence in reason for reason in missed["captures"]), missed
    assert whole == {}


def test_a_paused_controller(tmp_path: Path) -> None:
    """The run says so, and the next goes on."""
    first, second, third = verdicts(tmp_path, inside_sabotage.paused, "ovs", seeds=(1, 2, 3), seconds=0.5)
    assert (first, third) == ({}, {})
    assert second == "the OpenFlow controller does not answer: timed out"
