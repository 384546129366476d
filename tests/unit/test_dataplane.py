"""Which data plane `auto` takes, and what it says about it."""

from __future__ import annotations

import shutil
from typing import TextIO

import pytest

from controllers import dataplane
from controllers.dataplane import choose
from controllers.linux.plane import LINUX
from controllers.ovs import plane as ovs
from controllers.ovs.plane import OVS, USERSPACE_LIMIT_BPS
from controllers.plane import Offer, Plane
from emulator.dataplane import Dataplane
from emulator.errors import EmulatorError
from emulator.topology import LeafSpine

SLOW = LeafSpine(4, 4, 4, host_rate_bps=USERSPACE_LIMIT_BPS // 16)
FAST = LeafSpine(4, 4, 4, host_rate_bps=USERSPACE_LIMIT_BPS // 16 + 1)

BURSTS = LeafSpine(4, 4, 4, host_rate_bps=USERSPACE_LIMIT_BPS // 16, burst_frames=4)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    installed, module = request.param
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/usr/sbin/{name}" if installed else None)
    monkeypatch.setattr(ovs, "kernel_datapath", lambda: module)


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


# A data plane that is registered


def toy(**offered: str) -> Plane:
    def made(_topology: LeafSpine, _name: str, _why: str, _log: TextIO) -> Dataplane:
        raise NotImplementedError

    return Plane("toy", "a toy", lambda _topology, _limit_bps: Offer("toy-1", **offered), made)


@pytest.mark.parametrize("machine", [NO_SWITCH], indirect=True)
def test_auto_takes_the_first_that_fits_and_says_what_it_passed_over(
    machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataplane, "PLANES", {"ovs": OVS, "toy": toy(passed_over="toys are slow"), "linux": LINUX})
    assert choose("auto", SLOW)[1:] == ("linux", "Open vSwitch is not installed; toys are slow")
    assert choose("toy", SLOW)[1:] == ("toy-1", "as asked"), "who asks for what is slow gets it"
    monkeypatch.setattr(dataplane, "PLANES", {"toy": toy(fits="it is fun"), "linux": LINUX})
    assert choose("auto", SLOW)[1:] == ("toy-1", "it is fun")


@pytest.mark.parametrize("machine", [NO_SWITCH], indirect=True)
def test_a_machine_on_which_none_fits_is_told_why(machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "PLANES", {"ovs": OVS, "toy": toy(passed_over="toys are slow")})
    with pytest.raises(EmulatorError, match=r"no data plane fits .*: Open vSwitch is not installed; toys are slow"):
        choose("auto", SLOW)
