"""Failures are counted by what did not hold, each with something to try."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.judge.invariants import INVARIANTS, summary
from experiments.results.failures import failures_of

NAMES = [invariant.name for invariant in INVARIANTS]


def runs_of(*reasons: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"run_id": f"r{number}", "fidelity": "fail" if reason else "pass", "fidelity_reasons": reason}
        for number, reason in enumerate(reasons)
    )


def manifest(**fabric: Any) -> dict[str, Any]:
    return {"experiment": {"fabric": fabric}}


def test_runs_that_are_busy_by_different_amounts_are_one_failure() -> None:
    busy = [f"machine: the machine was {share}% busy for a second: at most 98% is trusted" for share in (99, 100)]
    [failure] = failures_of(runs_of(busy[0], "", busy[1], busy[0]), manifest(host_rate="20mbit"))
    assert (failure.runs, failure.broken, failure.remedy) == (3, "machine busy", "host_rate: 10mbit")
    assert failure.reasons == {busy[0]: ["r0", "r3"], busy[1]: ["r2"]}


@given(st.lists(st.lists(st.sampled_from(NAMES), unique=True), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_every_failure_of_every_run_is_counted_once(failed: list[list[str]]) -> None:
    """Reasons may hold what looks like a separator: they are read by the names that judges have."""
    runs = runs_of(*(summary({name: [f"odd; it: was {name}", "more"] for name in names}) for names in failed))
    found = failures_of(runs, {})
    broken = {invariant.broken: invariant.name for invariant in INVARIANTS}
    assert {broken[failure.broken]: failure.runs for failure in found} == {
        name: sum(name in names for names in failed) for name in {name for names in failed for name in names}
    }
    assert [failure.runs for failure in found] == sorted((failure.runs for failure in found), reverse=True)


@pytest.mark.parametrize(
    ("fabric", "slower"),
    [
        ({"host_rate": "20mbit", "fabric_rate": "5mbit"}, "host_rate: 10mbit, fabric_rate: 2.5mbit"),
        ({"host_rate": "400gbit", "scale": 40_000}, "scale: 80000"),
        ({"host_rate": "auto", "scale": 1}, "a lower host_rate and fabric_rate"),
        ({"host_rate": 7}, "a lower host_rate and fabric_rate"),
    ],
)
def test_a_slower_fabric_is_half_as_fast(fabric: dict[str, Any], slower: str) -> None:
    assert failures_of(runs_of("machine: busy"), manifest(**fabric))[0].remedy == slower


@pytest.mark.parametrize("reason", ["humidity: it rained", "no colon"])
def test_what_another_version_says_is_shown_as_it_is(reason: str) -> None:
    [failure] = failures_of(runs_of(reason), {})
    assert failure.remedy == "" and failure.reasons == {reason: ["r0"]}


def test_nothing_failed() -> None:
    assert failures_of(runs_of("", ""), {}) == failures_of(pd.DataFrame(), {}) == []
