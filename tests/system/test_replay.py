"""What a replay says when it cannot go on."""

from __future__ import annotations

import inside

from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine

SMALL = LeafSpine(2, 2, 2)
TIMEOUT_S = 60


def test_a_run_without_progress_ends_and_names_the_stuck_flow(sandbox: Sandbox) -> None:
    said = sandbox.call(inside.cut_off, SMALL, timeout_s=TIMEOUT_S)
    assert "no byte has arrived for 1 s" in said
    assert "flow 0 h1 -> h4" in said


def test_an_unknown_congestion_control_is_named(sandbox: Sandbox) -> None:
    said = sandbox.call(inside.no_such_congestion_control, SMALL, timeout_s=TIMEOUT_S)
    assert said == "transport.congestion_control: this kernel has no nosuch"
