"""The rules of wire: what the emulated links carry, and where."""

from __future__ import annotations

import inside
import numpy as np
import pytest

from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine

SMALL = LeafSpine(2, 4, 2)
TIMEOUT_S = 60


def test_every_port_is_shaped_as_asked(sandbox: Sandbox) -> None:
    fabric = LeafSpine(4, 4, 4, host_rate_bps=20_000_000, fabric_rate_bps=35_000_000, queue_bytes=1_000_000)
    found = sandbox.call(inside.setup_time, fabric, timeout_s=TIMEOUT_S)
    assert found["ports"] == 2 * (16 + 16)
    assert (found["unshaped"], found["wrong_rate"], found["wrong_queue"]) == ([], [], [])
    assert found["buffer_bytes"] is None or found["buffer_bytes"] >= 64_000_000


def test_a_link_carries_its_rate_of_wire_bytes(sandbox: Sandbox) -> None:
    rates = sandbox.call(inside.saturate_one_link, SMALL, 3.0, timeout_s=TIMEOUT_S)
    assert len(rates) >= 2, "the link was never saturated"
    assert np.median(rates) == pytest.approx(SMALL.host_rate_bps, rel=0.03)


def test_a_tagged_connection_crosses_its_spine_and_no_other(sandbox: Sandbox) -> None:
    size_bytes = 300_000
    for spine, load in sandbox.call(inside.tagged_paths, SMALL, size_bytes, timeout_s=TIMEOUT_S):
        assert load[0, spine] >= SMALL.wire_bytes(size_bytes)
        assert load[1, spine] > 0, "acknowledgements take the same spine"
        assert np.delete(load, spine, axis=1).sum() == 0


def test_round_robin_spraying_loads_all_spines_alike(sandbox: Sandbox) -> None:
    load = sandbox.call(inside.sprayed, SMALL, 2_000_000, timeout_s=TIMEOUT_S)
    assert load.sum() > 4 * SMALL.wire_bytes(2_000_000) * 0.99
    assert load.max() / load.mean(axis=1, keepdims=True).min() <= 1.05
    assert load.min() / load.mean(axis=1, keepdims=True).max() >= 0.95


def test_a_seed_fixes_every_path(sandbox: Sandbox) -> None:
    wide = LeafSpine(2, 4, 6)
    first, second, other, third = sandbox.call(inside.hashed, wide, [1, 1, 2, 1], 60_000, timeout_s=TIMEOUT_S)
    assert first.sum() == wide.hosts
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    assert (first != other).any(), "another seed should choose other paths"


def test_a_seed_fixes_every_path_in_another_world(sandbox: Sandbox, tmp_path: object) -> None:
    wide = LeafSpine(2, 4, 6)
    [here] = sandbox.call(inside.hashed, wide, [7], 60_000, timeout_s=TIMEOUT_S)
    with Sandbox(tmp_path / "other.log") as other:  # type: ignore[operator]
        [there] = other.call(inside.hashed, wide, [7], 60_000, timeout_s=TIMEOUT_S)
    np.testing.assert_array_equal(here, there)


def test_an_idle_fabric_is_silent(sandbox: Sandbox) -> None:
    assert sandbox.call(inside.stray_packets, SMALL, 2.0, timeout_s=TIMEOUT_S) == 0


def test_a_packet_to_nobody_does_not_go_round(sandbox: Sandbox) -> None:
    sent = sandbox.call(inside.unknown_address, SMALL, timeout_s=TIMEOUT_S)
    assert 1000 < sent < 2000


def test_a_fabric_of_63_spines(sandbox: Sandbox) -> None:
    many = LeafSpine(2, 63, 1)
    loads = sandbox.call(inside.sprayed, many, 63 * 8948, timeout_s=TIMEOUT_S)
    assert (loads > 0).all()
