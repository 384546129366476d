"""What is made of what was found of a machine: warnings, rates of auto, and that it stays with its machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.machine.calibration import (
    Calibration,
    calibration_file,
    load,
    save,
    userspace_limit_bps,
    warning,
    with_rates,
)
from experiments.results.manifest import machine
from experiments.spec.experiment import Experiment, load_experiment, restore_experiment
from experiments.spec.fields import Auto
from experiments.spec.messages import SpecError


def row(dataplane: str, hosts: int, rate_bps: int, measured: str = "2026-01-01", burst: int = 1) -> dict[str, Any]:
    return {
        "dataplane": dataplane, "hosts": hosts, "rate_bps": rate_bps, "total_bps": hosts * rate_bps,
        "burst_frames": burst, "measured": measured,
    }  # fmt: skip


ROWS = [row("ovs-user", 16, 20_000_000), row("linux", 16, 100_000_000), row("linux", 64, 20_000_000, "2026-02-02")]


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def quick(**fabric: Any) -> Experiment:
    """The catalog's 16 hosts with other keys of `fabric`."""
    return load_experiment("quick", [f"fabric.{key}={value}" for key, value in fabric.items()])


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
    assert load() is None
    path = save(ROWS[:2])
    save([row("linux", 16, 120_000_000), ROWS[2]])
    found = load()
    assert found and path == calibration_file()
    assert [found.faithful_rate_bps(name, 16) for name in ("ovs-user", "linux")] == [20_000_000, 120_000_000]
    assert len(found.rows) == 3


@pytest.mark.parametrize("key", ["kernel", "cores", "cpu"])
def test_another_machines_file_is_not_used(key: str) -> None:
    path = save(ROWS)
    content = json.loads(path.read_text())
    content["machine"][key] = "another"
    path.write_text(json.dumps(content))
    assert load() is None


def damages() -> Iterator[bytes]:
    """What a crash, an editor or another program may leave."""
    good = {"machine": machine(), "rows": ROWS}
    yield from (b"", b"[]", b"{", b"null", b"3", b"\xff\xfe", b"[" * 100_000, b"[" * 2_000_000)
    yield json.dumps(good).encode()[:-9]
    rows: object
    value: object
    for rows in (None, 3, {}, [3], [None], [[]], [{}], "rows"):
        yield json.dumps(good | {"rows": rows} if rows != {} else {"machine": machine()}).encode()
    for key in ROWS[0]:
        yield json.dumps(good | {"rows": [{name: value for name, value in ROWS[0].items() if name != key}]}).encode()
        for value in (None, "x", -1, [], 10**40, float("nan"), True, "[/red]"):
            yield json.dumps(good | {"rows": [ROWS[0] | {key: value}]}).encode()


@pytest.mark.parametrize("content", list(damages()))
def test_damaged_file_is_no_calibration_and_one_warning(content: bytes) -> None:
    path = save(ROWS)
    path.write_bytes(content)
    assert load() is None
    said = warning(quick())
    assert said and said.startswith(f"{path} is ") and said.count("\n") == 0 and "`spraylab calibrate`" in said
    assert userspace_limit_bps(16) is None
    with pytest.raises(SpecError, match="`spraylab calibrate` finds out"):
        with_rates(quick(host_rate="auto"))
    save(ROWS)
    assert load() == Calibration(ROWS)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_no_calibration_and_holds_nobody_up(make: Callable[[Path], None]) -> None:
    path = save(ROWS)
    path.unlink()
    make(path)
    began = time.monotonic()
    assert load() is None
    assert "not a regular file" in (warning(quick()) or "")
    assert time.monotonic() - began < 1


def test_rates_of_auto_are_what_the_machine_carries_with_room_to_spare() -> None:
    save([*ROWS, row("linux", 16, 300_000_000, burst=4)])
    fabric = with_rates(quick(host_rate="auto", fabric_rate="auto", dataplane="linux")).fabric
    assert fabric.host_rate_bps == fabric.fabric_rate_bps == 80_000_000
    fabric = with_rates(quick(fabric_rate="auto", dataplane="linux", burst=4)).fabric
    assert (fabric.host_rate_bps, fabric.fabric_rate_bps) == (10_000_000, 240_000_000)
    assert with_rates(quick(host_rate="auto", dataplane="ovs")).fabric.host_rate_bps == 16_000_000
    assert with_rates(quick()) == quick()


def test_auto_that_is_not_known_says_what_to_do() -> None:
    with pytest.raises(SpecError, match=r"16 hosts on auto, and `spraylab calibrate` finds out; or write a rate"):
        with_rates(quick(host_rate="auto"))
    save([*ROWS, row("ovs-user", 16, 0)])
    with pytest.raises(SpecError, match=r"`spraylab calibrate --burst 4` finds out"):
        with_rates(quick(host_rate="auto", burst=4))
    with pytest.raises(SpecError, match=r"16 hosts on ovs, and it carries none faithfully"):
        with_rates(quick(host_rate="auto", dataplane="ovs"))


def test_auto_is_written_as_it_is_read() -> None:
    experiment = quick(host_rate="auto")
    assert experiment.fabric.host_rate_bps is Auto.RATE
    assert restore_experiment(experiment.as_json(), "manifest.json") == experiment


@pytest.mark.parametrize("key", ["host_rate", "fabric_rate"])
def test_nothing_is_computed_with_a_rate_that_is_not_settled(key: str) -> None:
    experiment = quick(**{key: "auto"})
    with pytest.raises(SpecError, match=r"auto has not been settled .*; write a rate such as 20mbit"):
        experiment.fabric.topology()
    with pytest.raises(TypeError):
        getattr(experiment.fabric, f"{key}_bps") / 8
    assert len(experiment.schedule(0, 1).flows) == 64, "who sends to whom hangs on no rate"


def test_an_experiment_beyond_the_machine_is_warned_of() -> None:
    assert warning(quick(host_rate="1gbit")) is None, "nothing is known"
    save(ROWS)
    assert warning(quick(dataplane="ovs", host_rate="20mbit")) is None
    assert "on ovs-user: 20mbit" in (warning(quick(dataplane="ovs", host_rate="21mbit")) or "")
    assert warning(quick(dataplane="linux", fabric_rate="101mbit")) is not None


def test_what_userspace_switching_carries_is_what_was_measured() -> None:
    assert userspace_limit_bps(16) is None
    save(ROWS)
    assert userspace_limit_bps(16) == 16 * 20_000_000
