"""What would make a number wrong is noticed, by the right invariant; what is healthy is believed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import inside_sabotage
import pytest

from emulator.dataplane import Asked
from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine
from experiments.bound import bound_s
from experiments.calibrate import busy_part
from experiments.fidelity import Run, failures
from experiments.measurement import Built, Event, Failed, Job, Measured
from experiments.perform import perform
from traffic.collectives import build_schedule
from traffic.schemes import plan_traffic
from traffic.transport import Transport

SMALL = LeafSpine(2, 2, 2, host_rate_bps=10_000_000, fabric_rate_bps=10_000_000)
HOSTS = range(SMALL.hosts)
UNPACED = Transport(pacing="none")
TIMEOUT_S = 60.0
QUIET_WAIT_S = 10.0

Verdicts = list[dict[str, list[str]] | str]


def verdicts(
    sandbox: Sandbox,
    sabotage: Callable[..., Iterator[Event]],
    *arguments: Any,
    seconds: float = 1.5,
    seeds: tuple[int, ...] = (1,),
    transport: Transport = UNPACED,
) -> Verdicts:
    """Of every run in turn: the invariants that fail with their reasons, or why it did not finish."""
    schedule = build_schedule(
        "permutation", ranks=SMALL.hosts, size_bytes=int(seconds * SMALL.host_rate_bps / 8), channels=2, shift=2
    )
    plan = plan_traffic(schedule, SMALL, HOSTS, "ethereal")
    jobs = [Job(str(seed), plan, seed) for seed in seeds]
    found: Verdicts = []
    built: Built | None = None
    for event in sandbox.stream(sabotage, SMALL, transport, jobs, *arguments, timeout_s=TIMEOUT_S):
        if isinstance(event, Built):
            built = event
        elif isinstance(event, Failed):
            found.append(event.reason)
        elif isinstance(event, Measured):
            assert built
            found.append(failures(Run(event, plan, built.ports, bound_s(schedule, SMALL, HOSTS))))
    return found


def when_quiet() -> None:
    """A test of what a busy machine would spoil waits for others to be done, and is skipped if they never are."""
    deadline = time.monotonic() + QUIET_WAIT_S
    while busy_part(0.5) > 0.6:
        if time.monotonic() > deadline:
            pytest.skip(f"others have kept this machine busy for {QUIET_WAIT_S:g} s")


@pytest.fixture(params=["ovs", "linux"])
def plane(request: pytest.FixtureRequest) -> Asked:
    asked: Asked = request.param
    return asked


def test_undisturbed_runs_pass(sandbox: Sandbox, plane: Asked) -> None:
    when_quiet()
    found = verdicts(sandbox, perform, plane, seeds=(1, 2, 3, 4, 5), seconds=0.8, transport=Transport())
    assert found == [{}] * 5


def test_a_hog_beside_the_run(sandbox: Sandbox) -> None:
    [failed] = verdicts(sandbox, inside_sabotage.hogged, "linux")
    assert list(failed) == ["machine"], failed


def test_a_switch_starved_of_buffer(sandbox: Sandbox) -> None:
    when_quiet()
    [failed] = verdicts(sandbox, inside_sabotage.starved, "ovs", 1)
    assert list(failed) == ["conservation"], failed


PORT = "leaf1-eth3"


@pytest.mark.parametrize(("plane", "factor"), [("ovs", 2.0), ("linux", 0.5)])
def test_a_port_shaped_to_another_rate_behind_its_back(sandbox: Sandbox, plane: Asked, factor: float) -> None:
    when_quiet()
    [failed] = verdicts(sandbox, inside_sabotage.reshaped, plane, PORT, factor, False)
    assert list(failed) == ["shaping"], failed
    assert failed["shaping"] == [f"{PORT}: shaped to {10 * factor:g} Mb/s, 10 Mb/s was asked"]


def test_a_port_that_was_slow_for_a_while(sandbox: Sandbox) -> None:
    """Its shaping is as asked when it is read back."""
    when_quiet()
    [failed] = verdicts(sandbox, inside_sabotage.reshaped, "linux", PORT, 0.5, True, seconds=2.0)
    assert list(failed) == ["work conservation"], failed
    assert all(reason.startswith(f"{PORT} stayed below its rate") for reason in failed["work conservation"])


def test_a_paused_controller(sandbox: Sandbox) -> None:
    when_quiet()
    first, second, third = verdicts(
        sandbox, inside_sabotage.paused, seeds=(1, 2, 3), seconds=0.5, transport=Transport()
    )
    assert (first, third) == ({}, {})
    assert second == "the OpenFlow controller does not answer: timed out"
