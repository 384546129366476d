"""Which data plane `auto` takes, and what it says about it."""

from __future__ import annotations

import shutil

import pytest

from controllers import dataplane
from controllers.dataplane import USERSPACE_LIMIT_BPS, choose
from emulator.errors import EmulatorError
from emulator.topology import LeafSpine

SLOW = LeafSpine(4, 4, 4, host_rate_bps=USERSPACE_LIMIT_BPS // 16)
FAST = LeafSpine(4, 4, 4, host_rate_bps=USERSPACE_LIMIT_BPS // 16 + 1)

BURSTS = LeafSpine(4, 4, 4, host_rate_bps=USERSPACE_LIMIT_BPS // 16, burst_frames=4)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    installed, module = request.param
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/usr/sbin/{name}" if installed else None)
    monkeypatch.setattr(dataplane, "kernel_datapath", lambda: module)


WITH_MODULE, USERSPACE_ONLY, NO_SWITCH = (True, True), (True, False), (False, False)


@pytest.mark.parametrize(
    ("machine", "asked", "fabric", "name", "why"),
    [
        (WITH_MODULE, "auto", FAST, "ovs-kernel", "openvswitch module"),
        (WITH_MODULE, "ovs", SLOW, "ovs-kernel", "openvswitch module"),
        (WITH_MODULE, "linux", SLOW, "linux", "as asked"),
        (USERSPACE_ONLY, "auto", SLOW, "ovs-user", "within the 0.35 Gb/s"),
        (USERSPACE_ONLY, "auto", FAST, "linux", "above the 0.35 Gb/s"),
        (USERSPACE_ONLY, "ovs", FAST, "ovs-user", "as asked"),
        (USERSPACE_ONLY, "linux", SLOW, "linux", "as asked"),
        (NO_SWITCH, "auto", SLOW, "linux", "not installed"),
        (USERSPACE_ONLY, "auto", BURSTS, "linux", "single frames only"),
        (WITH_MODULE, "auto", BURSTS, "ovs-kernel", "openvswitch module"),
        (NO_SWITCH, "linux", SLOW, "linux", "as asked"),
    ],
    indirect=["machine"],
)
def test_the_choice_and_its_reason(machine: None, asked: str, fabric: LeafSpine, name: str, why: str) -> None:
    choice = choose(asked, fabric)
    assert choice.name == name
    assert why in choice.why


@pytest.mark.parametrize("machine", [NO_SWITCH], indirect=True)
def test_what_is_asked_for_but_not_installed_is_said(machine: None) -> None:
    with pytest.raises(EmulatorError, match=r"fabric\.dataplane.*not installed.*linux"):
        choose("ovs", SLOW)


@pytest.mark.parametrize("machine", [USERSPACE_ONLY], indirect=True)
def test_bursts_cannot_be_had_of_a_switch_in_user_space(machine: None) -> None:
    with pytest.raises(EmulatorError, match=r"fabric\.burst.*single frames only.*write 1"):
        choose("ovs", BURSTS)


@pytest.mark.parametrize("machine", [USERSPACE_ONLY], indirect=True)
def test_a_limit_that_was_measured_counts(machine: None) -> None:
    assert choose("auto", FAST, 2 * USERSPACE_LIMIT_BPS).name == "ovs-user"
    assert choose("auto", SLOW, USERSPACE_LIMIT_BPS - 16).name == "linux"
