"""The search for the highest faithful rate. No fabric is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.errors import EmulatorError
from emulator.files import Folder
from experiments.machine import calibrate
from experiments.machine.calibrate import GRAIN, highest
from experiments.machine.probe import HOST_COUNTS, Traffic, Trials, bytes_in, fabric_of, permutation

FIRST_BPS, LEAST_BPS = 16_000_000, 2_000_000


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(LEAST_BPS, 9_000_000_000))
def test_search_finds_what_is_carried(most_bps: int) -> None:
    probes: list[int] = []

    def carried(rate_bps: int) -> bool:
        probes.append(rate_bps)
        return rate_bps <= most_bps

    found = highest(carried, FIRST_BPS)
    assert found <= most_bps < found * GRAIN * 1.01
    assert len(probes) <= 18 and len(set(probes)) == len(probes), "no rate is probed twice"


def test_search_says_when_nothing_is_carried() -> None:
    assert highest(lambda rate_bps: False, FIRST_BPS) == 0


def test_search_survives_one_bad_moment() -> None:
    """A step that fails while the next does not was a moment's trouble."""
    failed: list[int] = []

    def carried(rate_bps: int) -> bool:
        if rate_bps == 2 * FIRST_BPS and not failed:
            failed.append(rate_bps)
            return False
        return rate_bps <= 100_000_000

    assert 100_000_000 / GRAIN / 1.01 < highest(carried, FIRST_BPS) <= 100_000_000
    assert failed


def test_search_ends_on_a_machine_without_limits() -> None:
    assert highest(lambda rate_bps: True, FIRST_BPS) > 5_000_000_000


@pytest.mark.parametrize("hosts", HOST_COUNTS)
def test_probe_keeps_all_links_busy(hosts: int) -> None:
    fabric = fabric_of(hosts, 20_000_000)
    assert fabric.hosts == hosts
    assert fabric.hosts_per_leaf * fabric.host_rate_bps == fabric.spines * fabric.fabric_rate_bps
    flows = permutation(fabric).flows
    assert all(fabric.leaf_of(flow.src) != fabric.leaf_of(flow.dst) for flow in flows)
    sent = {src: sum(flow.size_bytes for flow in flows if flow.src == src) for src in range(hosts)}
    assert set(sent.values()) == {bytes_in(fabric)}
    assert fabric.wire_bytes(bytes_in(fabric)) * 8 == pytest.approx(fabric.host_rate_bps, rel=1e-3), "a second's worth"


def test_unknown_number_of_hosts() -> None:
    with pytest.raises(EmulatorError, match="17 hosts cannot be calibrated: use some of 16, 32, 64, 128"):
        calibrate.calibrate((17,), ["linux"])


def test_table_has_a_line_a_row() -> None:
    row = {"dataplane": "linux", "hosts": 16, "burst_frames": 1, "rate_bps": 10**8, "total_bps": 16 * 10**8}
    row["measured"] = "2026-01-01"
    assert calibrate.table([row, row | {"rate_bps": 0}]).row_count == 2


def test_trials_are_jobs_without_any_experiment_file() -> None:
    topology = fabric_of(16, 10_000_000)
    trials = Trials(topology, [Traffic(permutation(topology), "spray", 1)], "linux", predicted=False)
    [run] = trials.runs
    trials.prepare(run)
    assert trials.job(run, Folder(Path())).seed == 1
