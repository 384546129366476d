"""A replay on a fabric: the data it carries, and what it says when it cannot go on."""

from __future__ import annotations

import inside
import pytest

from controllers.dataplane import PLANES
from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine
from traffic.collectives import build_schedule

SMALL = LeafSpine(2, 2, 2)
TIMEOUT_S = 60


def test_a_run_without_progress_ends_and_names_the_stuck_flow(sandbox: Sandbox) -> None:
    said = sandbox.call(inside.cut_off, SMALL, timeout_s=TIMEOUT_S)
    assert "no byte has arrived for 1 s" in said
    assert "flow 0 h1 -> h4" in said


def test_an_unknown_congestion_control_is_named(sandbox: Sandbox) -> None:
    said = sandbox.call(inside.no_such_congestion_control, SMALL, timeout_s=TIMEOUT_S)
    assert said == "transport.congestion_control: this kernel has no nosuch"


@pytest.mark.parametrize("scheme", ["ecmp", "ethereal"])
@pytest.mark.parametrize("plane", PLANES)
def test_a_ring_allreduce_ends_with_its_sums(sandbox: Sandbox, plane: str, scheme: str) -> None:
    """Every step reduces what the one before brought: one flow too early, or lost, and the sums are wrong."""
    schedule = build_schedule("allreduce", "ring", ranks=SMALL.hosts, size_bytes=400_000, channels=2)
    problems, early, waits = sandbox.call(inside.verified, SMALL, plane, schedule, scheme, timeout_s=TIMEOUT_S)
    assert problems == []
    assert early == 0
    assert waits >= 2 * (2 * SMALL.hosts - 3) * SMALL.hosts  # a flow of each channel, step and rank, but the first step
