"""The search for the highest faithful rate, and what is made of what was found. No fabric is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.sandbox import EmulatorError
from experiments import calibrate
from experiments.calibrate import GRAIN, Calibration, highest
from experiments.probe import HOST_COUNTS, bytes_in, fabric_of, permutation

FIRST_BPS, LEAST_BPS = 16_000_000, 2_000_000


def row(dataplane: str, hosts: int, rate_bps: int, measured: str = "2026-01-01") -> dict[str, Any]:
    return {
        "dataplane": dataplane, "hosts": hosts, "rate_bps": rate_bps, "total_bps": hosts * rate_bps,
        "measured": measured,
    }  # fmt: skip


ROWS = [row("ovs-user", 16, 20_000_000), row("linux", 16, 100_000_000), row("linux", 64, 20_000_000, "2026-02-02")]


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


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


def test_between_and_beyond_what_was_measured() -> None:
    found = Calibration(ROWS)
    assert found.faithful_rate_bps("linux", 16) == 100_000_000
    assert found.faithful_rate_bps("linux", 64) == 20_000_000
    total_bps = (found.faithful_rate_bps("linux", 32) or 0) * 32
    assert total_bps == pytest.approx((1_600_000_000 + 1_280_000_000) / 2, rel=1e-6)
    assert found.faithful_rate_bps("linux", 8) == 200_000_000
    assert found.faithful_rate_bps("linux", 128) == 10_000_000
    assert found.faithful_rate_bps("ovs-kernel", 16) is None


def test_which_data_plane_is_meant() -> None:
    found = Calibration(ROWS)
    assert [found.dataplane(asked, 16) for asked in ("ovs", "linux", "auto")] == ["ovs-user", "linux", "linux"]
    assert Calibration([]).dataplane("auto", 16) is None


def test_warning_above_and_none_within() -> None:
    found = Calibration(ROWS)
    assert found.warning("linux", 16, 100_000_000) is None
    assert found.warning("ovs-kernel", 16, 10**12) is None, "nothing is known of it"
    assert found.warning("linux", 64, 25_000_000) == (
        "64 hosts x 25mbit is above what this machine carries faithfully on linux: 20mbit, measured 2026-02-02"
    )


def test_saved_is_loaded_and_added_to() -> None:
    assert calibrate.load() is None
    path = calibrate.save(ROWS[:2])
    calibrate.save([row("linux", 16, 120_000_000), ROWS[2]])
    found = calibrate.load()
    assert found and path == calibrate.calibration_file()
    assert [found.faithful_rate_bps(name, 16) for name in ("ovs-user", "linux")] == [20_000_000, 120_000_000]
    assert len(found.rows) == 3


@pytest.mark.parametrize("key", ["kernel", "cores", "cpu"])
def test_another_machines_file_is_not_used(key: str) -> None:
    path = calibrate.save(ROWS)
    content = json.loads(path.read_text())
    content["machine"][key] = "another"
    path.write_text(json.dumps(content))
    assert calibrate.load() is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"machine": {}}'])
def test_damaged_file_is_no_calibration(text: str) -> None:
    path = calibrate.save(ROWS)
    path.write_text(text)
    assert calibrate.load() is None


def test_table_has_a_line_a_row() -> None:
    assert calibrate.table([*ROWS, row("ovs-user", 64, 0)]).row_count == 4
