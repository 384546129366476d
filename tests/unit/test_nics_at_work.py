"""NICs at work: what hosts are told meanwhile, and that nothing of it stays."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from emulator import nic
from emulator.nic import PerConnection, PerPacket, SingleFrames, Unstamped, at_work
from emulator.topology import LeafSpine
from traffic.schemes import scheme_of


class Wires:
    """A fabric that only remembers what its NICs and ports were told."""

    def __init__(self, topology: LeafSpine) -> None:
        self.topology = topology
        self.host_pids = [100 + host for host in range(topology.hosts)]
        self.told: list[object] = []

    def burst(self, frames: int) -> None:
        self.told.append(frames)


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> Wires:
    fabric = Wires(LeafSpine(2, 2, 2, burst_frames=4))
    monkeypatch.setattr(nic, "load", fabric.told.append)
    return fabric


@pytest.mark.parametrize(("kind", "table"), [(PerPacket("random"), "spray"), (PerConnection(), "connections")])
def test_rules_are_there_meanwhile_and_gone_however_it_ends(wires: Wires, kind: Any, table: str) -> None:
    def interrupted() -> None:
        with at_work(kind, wires, seed=7):  # type: ignore[arg-type]
            [loaded] = [told for told in wires.told if isinstance(told, dict)]
            assert list(loaded) == wires.host_pids and len(set(loaded.values())) > 1
            assert all(f"table ip {table} {{" in ruleset for ruleset in loaded.values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    *_, gone = [told for told in wires.told if isinstance(told, dict)]
    assert list(gone) == wires.host_pids
    assert set(gone.values()) == {f"table ip {table}\ndelete table ip {table}\n"}


def test_frames_travel_alone_only_while_packets_are_sprayed(wires: Wires) -> None:
    for spraying in (PerPacket("round-robin"), SingleFrames()):
        wires.told.clear()
        with at_work(spraying, wires, seed=7):  # type: ignore[arg-type]
            assert [told for told in wires.told if isinstance(told, int)] == [1]
        assert [told for told in wires.told if isinstance(told, int)] == [1, 4]
    with at_work(PerConnection(), wires, seed=7):  # type: ignore[arg-type]
        pass
    assert [told for told in wires.told if isinstance(told, int)] == [1, 4], (
        "connections keep their path: no reordering"
    )


@pytest.mark.parametrize("inner", [None, SingleFrames()])
def test_timestamps_are_off_meanwhile_and_on_again_however_it_ends(
    wires: Wires, monkeypatch: pytest.MonkeyPatch, inner: Any
) -> None:
    told: list[tuple[int, str]] = []
    monkeypatch.setattr(nic, "inside", nullcontext)
    monkeypatch.setattr(nic, "set_sysctls", lambda sysctls: told.append((len(told) % 4, sysctls[nic.TIMESTAMPS])))

    def interrupted() -> None:
        with at_work(Unstamped(inner), wires, seed=7):  # type: ignore[arg-type]
            assert told == [(host, "0") for host in range(4)]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert told[4:] == [(host, "1") for host in range(4)]
    assert wires.told == ([1, 4] if inner else [])


@pytest.mark.parametrize("name", ["switch-spray", "presto-64KB", "flowlet-100ms", "hedera-500ms"])
def test_schemes_that_move_connections_have_no_timestamps(name: str) -> None:
    scheme = scheme_of(name)
    assert isinstance(scheme.nic, Unstamped) and isinstance(scheme.program_nic, Unstamped)


def test_without_a_nic_nothing_is_touched(wires: Wires) -> None:
    with at_work(None, wires, seed=7):  # type: ignore[arg-type]
        pass
    assert wires.told == []
