"""Switches that come late, or leave and return, end up with the table in force."""

from __future__ import annotations

import inside

from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine

SMALL = LeafSpine(2, 2, 2)
TIMEOUT_S = 60


def test_a_switch_that_returns_is_programmed_again(sandbox: Sandbox) -> None:
    before, forgotten, after = sandbox.call(inside.switch_comes_back, SMALL, timeout_s=TIMEOUT_S)
    assert before > 0
    assert forgotten == 0
    assert after == before


def test_a_switch_that_connects_late_is_programmed(sandbox: Sandbox) -> None:
    assert sandbox.call(inside.late_switch, SMALL, timeout_s=TIMEOUT_S) == SMALL.leaves
