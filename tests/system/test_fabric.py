"""The rules of wire: what the emulated links carry, and where. They hold on every data plane."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import inside
import numpy as np
import pytest

from controllers.dataplane import PLANES
from emulator.sandbox import Sandbox
from emulator.topology import ETHERNET_HEADER_BYTES, LeafSpine
from experiments.theory.loads import choose_spines

SMALL = LeafSpine(2, 4, 2)
WIDE = LeafSpine(2, 4, 6)
FLOW_BYTES = 240_000
TIMEOUT_S = 60


@pytest.fixture(params=PLANES)
def plane(request: pytest.FixtureRequest) -> str:
    asked: str = request.param
    return asked


def test_every_port_is_shaped_as_asked(sandbox: Sandbox, plane: str) -> None:
    fabric = LeafSpine(4, 4, 4, host_rate_bps=20_000_000, fabric_rate_bps=35_000_000, queue_bytes=1_000_000)
    found = sandbox.call(inside.shaping_found, fabric, plane, timeout_s=TIMEOUT_S)
    assert found["dataplane"].startswith(plane)
    assert found["ports"] == 2 * (16 + 16)
    assert (found["unshaped"], found["wrong_rate"], found["wrong_queue"]) == ([], [], [])
    assert found["buffer_bytes"] is None or found["buffer_bytes"] >= 64_000_000


def test_a_link_carries_its_rate_of_wire_bytes(sandbox: Sandbox, plane: str) -> None:
    rates = sandbox.call(inside.saturate_one_link, SMALL, plane, 3.0, timeout_s=TIMEOUT_S)
    assert len(rates) >= 2, "the link was never saturated"
    # Not the median: a machine that is busy with other things may leave a link idle now and then.
    assert max(rates) == pytest.approx(SMALL.host_rate_bps, rel=0.03)


def test_a_tagged_connection_crosses_its_spine_and_no_other(sandbox: Sandbox, plane: str) -> None:
    size_bytes = 300_000
    for spine, load in sandbox.call(inside.tagged_paths, SMALL, plane, size_bytes, timeout_s=TIMEOUT_S):
        assert load[0, spine] >= SMALL.wire_bytes(size_bytes)
        assert load[1, spine] > 0, "acknowledgements take the same spine"
        assert np.delete(load, spine, axis=1).sum() == 0


def test_round_robin_spraying_loads_all_spines_alike(sandbox: Sandbox, plane: str) -> None:
    load = sandbox.call(inside.sprayed, SMALL, plane, 2_000_000, timeout_s=TIMEOUT_S)
    assert load.sum() > 4 * SMALL.wire_bytes(2_000_000) * 0.99
    assert load.max() / load.mean(axis=1, keepdims=True).min() <= 1.05
    assert load.min() / load.mean(axis=1, keepdims=True).max() >= 0.95


def test_leaves_spray_each_connection_over_all_uplinks_alike(sandbox: Sandbox, plane: str) -> None:
    """To within one packet a connection and direction, the handshake and the last acknowledgement included."""
    one, _ = sandbox.call(inside.on_uplinks, SMALL, plane, "switch-spray", [(0, 2)], 2_000_000, timeout_s=TIMEOUT_S)
    assert one[0].sum() >= 2_000_000 / SMALL.mtu_bytes and one[1].sum() > 40
    assert (one.max(axis=1) - one.min(axis=1) <= 1).all(), one


def test_leaves_spray_many_connections_alike(sandbox: Sandbox, plane: str) -> None:
    pairs = [(host, (host + 2) % 4) for host in range(4) for _ in range(2)]
    packets, sent_bytes = sandbox.call(
        inside.on_uplinks, SMALL, plane, "switch-spray", pairs, 500_000, timeout_s=TIMEOUT_S
    )
    assert (packets.max(axis=1) - packets.min(axis=1) <= 2 * len(pairs)).all(), packets
    assert sent_bytes.sum() >= 0.998 * SMALL.wire_bytes(500_000) * len(pairs)
    assert sent_bytes.max() <= 1.1 * sent_bytes.mean()


def test_flowcells_load_all_uplinks_alike_to_within_a_cell(sandbox: Sandbox) -> None:
    size_bytes, cell_bytes = 2_000_000, 7 * (SMALL.mtu_bytes + ETHERNET_HEADER_BYTES)
    _, load = sandbox.call(inside.on_uplinks, SMALL, "linux", "presto-64KB", [(0, 2)], size_bytes, timeout_s=TIMEOUT_S)
    # Its frames have no timestamps, 12 bytes each.
    assert 0.998 * SMALL.wire_bytes(size_bytes) <= load[0].sum() <= 1.1 * SMALL.wire_bytes(size_bytes)
    assert load[0].max() - load[0].min() <= 1.1 * cell_bytes, load


def test_the_kernels_subflows_are_on_spines_of_their_own(sandbox: Sandbox, plane: str) -> None:
    """All four spines see one open; the kernel's scheduler may leave some idle, but not all but one."""
    size_bytes = 1_000_000
    _, load = sandbox.call(inside.on_uplinks, SMALL, plane, "mptcp-4", [(0, 2)], size_bytes, timeout_s=TIMEOUT_S)
    assert SMALL.wire_bytes(size_bytes) <= load[0].sum() <= 1.1 * SMALL.wire_bytes(size_bytes)
    assert load[0].min() > 0, load
    assert (load[0] > 0.05 * load[0].sum()).sum() >= 2, load
    assert load[1].min() > 0, "acknowledgements come back by the spines of their subflows"


def test_a_controller_places_large_connections_where_the_hash_had_put_none(sandbox: Sandbox, plane: str) -> None:
    """Hashed, they are on the last, first and third spine; the first two have room for them all."""
    size_bytes, pairs = 2_000_000, [(0, 2), (0, 2), (1, 3), (1, 3)]
    _, load = sandbox.call(inside.on_uplinks, SMALL, plane, "hedera-200ms", pairs, size_bytes, timeout_s=TIMEOUT_S)
    assert load[0, 1] > 0.25 * load[0].sum() and load[0, 2:].sum() < 0.5 * load[0].sum(), load
    assert load[0].sum() <= 1.1 * SMALL.wire_bytes(size_bytes) * len(pairs)


def test_two_subflows_take_two_spines(sandbox: Sandbox) -> None:
    _, load = sandbox.call(inside.on_uplinks, SMALL, "linux", "mptcp-2", [(0, 2)], 500_000, timeout_s=TIMEOUT_S)
    assert (load[0] > 0).sum() == 2, load


def test_a_connection_that_never_pauses_is_one_flowlet(sandbox: Sandbox) -> None:
    _, load = sandbox.call(inside.on_uplinks, SMALL, "linux", "flowlet-100ms", [(0, 2)], 1_000_000, timeout_s=TIMEOUT_S)
    assert load[0].max() >= SMALL.wire_bytes(1_000_000) * 0.9, "its handshake may have been another"


def test_open_vswitch_says_that_it_has_no_flowlets(sandbox: Sandbox) -> None:
    said = sandbox.call(inside.refused_flowlets, SMALL, timeout_s=TIMEOUT_S)
    assert "no flowlets" in said and said.endswith("write fabric.dataplane: linux")


def test_acknowledgements_do_not_wait_behind_a_hosts_data(sandbox: Sandbox, plane: str) -> None:
    """But for what the bucket had already let pass."""
    assert sandbox.call(inside.overtaken, SMALL, plane, 12, timeout_s=TIMEOUT_S) >= 8


def test_bursts_travel_as_one_but_under_spraying_and_count_in_full(sandbox: Sandbox) -> None:
    size_bytes, bursts = 1_000_000, replace(SMALL, burst_frames=4)
    found = sandbox.call(inside.sent_by_hosts, bursts, "linux", size_bytes, timeout_s=TIMEOUT_S)
    frame_bytes = SMALL.mtu_bytes + ETHERNET_HEADER_BYTES
    for sent_bytes, _ in found.values():
        assert SMALL.wire_bytes(size_bytes) <= sent_bytes <= SMALL.wire_bytes(size_bytes) * 1.02
    assert found["ethereal"][1] > frame_bytes > found["spray"][1]


def predicted(fabric: LeafSpine, scheme: str, seed: int) -> np.ndarray:
    """Subflows on every uplink."""
    plan = inside.shifted(fabric, scheme, FLOW_BYTES)
    loads = np.zeros((fabric.leaves, fabric.spines))
    for connection, spine in zip(plan.connections, choose_spines(plan, fabric, seed), strict=True):
        loads[fabric.leaf_of(connection.src_host), spine] += 1
    return loads


@pytest.mark.parametrize("failed", [frozenset(), frozenset({(0, 2)})], ids=["all links", "a link down"])
def test_a_seed_fixes_every_path_whatever_the_data_plane(
    sandbox: Sandbox, plane: str, failed: frozenset[tuple[int, int]]
) -> None:
    runs = [("ecmp", 1), ("ethereal", 1), ("ecmp", 2), ("ecmp", 1), ("subflow-2", 1)]
    loads = sandbox.call(inside.subflows_by_uplink, WIDE, plane, runs, FLOW_BYTES, failed, timeout_s=TIMEOUT_S)
    for (scheme, seed), load in zip(runs, loads, strict=True):
        np.testing.assert_array_equal(load, predicted(WIDE.without(failed), scheme, seed), f"{scheme}, seed {seed}")
    assert (loads[0] != loads[2]).any(), "another seed should choose other paths"


def test_an_idle_fabric_is_silent(sandbox: Sandbox, plane: str) -> None:
    assert sandbox.call(inside.stray_packets, SMALL, plane, 2.0, timeout_s=TIMEOUT_S) == 0


def test_a_packet_to_nobody_does_not_go_round(sandbox: Sandbox, plane: str) -> None:
    sent = sandbox.call(inside.unknown_address, SMALL, plane, timeout_s=TIMEOUT_S)
    assert 1000 < sent < 2000


def test_a_fabric_of_63_spines(sandbox: Sandbox, plane: str) -> None:
    many = LeafSpine(2, 63, 1)
    loads = sandbox.call(inside.sprayed, many, plane, 63 * 8948, timeout_s=TIMEOUT_S)
    assert (loads > 0).all()


def test_a_hundred_hosts_are_built(tmp_path: Path, plane: str) -> None:
    with (tmp_path / "run.log").open("a+b") as log, Sandbox(log) as sandbox:
        found = sandbox.call(inside.shaping_found, LeafSpine(8, 8, 16), plane, timeout_s=TIMEOUT_S)
    assert found["ports"] == 2 * (128 + 64)
    assert (found["unshaped"], found["wrong_rate"]) == ([], [])


def test_mininets_own_commands_work(sandbox: Sandbox, plane: str) -> None:
    address, port, links = sandbox.call(inside.by_command_line, SMALL, plane, timeout_s=TIMEOUT_S)
    assert SMALL.host_ip(0) in address
    assert "leaf2-eth6" in port and "UP" in port
    assert links == {"(OK OK)"}
