"""What reacts to links that go down: nobody's packets are lost to a reprogramming, and every run ends."""

from __future__ import annotations

from pathlib import Path

import inside
import pytest
from test_faults import changes, performed

from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine

DOWN = {"at": "20%", "for": "60%", "link": "leaf1-spine1", "kind": "down"}


@pytest.fixture(params=["ovs", "linux"])
def plane(request: pytest.FixtureRequest) -> str:
    asked: str = request.param
    return asked


def test_reprogramming_loses_no_packet(sandbox: Sandbox, plane: str) -> None:
    """While a connection plays on a path that stays, leaves avoid another link and use it again, over and over."""
    topology = LeafSpine(2, 2, 2, host_rate_bps=20_000_000, fabric_rate_bps=20_000_000)
    times, astray, retransmitted = sandbox.call(inside.reprogrammed, topology, plane, timeout_s=60)
    assert times >= 6
    assert (astray, retransmitted) == (0, 0)


def test_a_controller_has_leaves_avoid_a_link_that_is_down(tmp_path: Path, plane: str) -> None:
    """Also what is tagged with its spine; what is lost is what was on its way, and it is counted."""
    for scheme, judged in performed(tmp_path, plane, [DOWN], reaction={"network": "controller"}).items():
        begun, ended = changes(judged, "begin"), changes(judged, "end")
        told_s = float(begun.reacted_s.iloc[0])
        assert 0.01 <= told_s - begun.confirmed_s.max() < 0.4, scheme
        assert ended.reacted_s.isna().all() or (ended.reacted_s >= ended.confirmed_s).all()
        queues = judged.frames["queues"]
        for port in begun.port:
            peer = {"leaf1-eth3": "spine1-eth1", "spine1-eth1": "leaf1-eth3"}[port]
            sent = queues[(queues.port == peer) & queues.time_s.between(told_s + 0.35, ended.asked_s.min())]
            assert sent.sent_bytes.max() - sent.sent_bytes.min() == 0, (scheme, peer, "once its queue is empty")


def test_a_leaf_takes_another_uplink_by_itself(tmp_path: Path, plane: str) -> None:
    """Within 50 ms nothing is given to a dead uplink any more; what is lost is what waited there, and it is counted."""
    up = {**DOWN, "direction": "up"}
    asked = {"reaction": {"network": "local"}, "schemes": ["ethereal"]}
    for scheme, judged in performed(tmp_path, plane, [up], **asked).items():
        begun, ended = changes(judged, "begin"), changes(judged, "end")
        assert list(begun.port) == ["spine1-eth1"], "where what leaf1 sends arrives"
        queues = judged.frames["queues"]
        within = queues.time_s.between(begun.confirmed_s.max() + 0.05, ended.asked_s.min())
        given = queues[(queues.port == "leaf1-eth3") & within].eval("sent_bytes + backlog_bytes")
        assert len(given) > 2 and given.nunique() == 1, scheme
        assert 0 < judged.row["destroyed_packets"] * 9014 < 4_000_000, "one queue at most"


def test_without_a_controller_packets_go_on_and_are_not_rerouted(tmp_path: Path, plane: str) -> None:
    """What fails meanwhile, it hears of when it is back: with every scheme, and where it schedules flows."""
    dead = {"at": "10%", "for": "60%", "kind": "controller_down"}
    schemes = ["ecmp", "ethereal"] if plane == "ovs" else ["ethereal", "hedera-100ms"]
    for scheme, judged in performed(tmp_path, plane, [dead], schemes=schemes).items():
        row = judged.row
        assert (row["destroyed_packets"], row["drops_packets"], row["timeouts"]) == (0, 0, 0), scheme
        assert set(judged.frames["faults"].port) == {"controller"}


def test_a_controller_that_comes_back_touches_no_rule(sandbox: Sandbox) -> None:
    """All rules are older than its death, and no packet was lost to it."""
    topology = LeafSpine(2, 2, 2, host_rate_bps=20_000_000, fabric_rate_bps=20_000_000)
    youngest_s, killed_s, retransmitted = sandbox.call(inside.controller_returns, topology, timeout_s=60)
    assert youngest_s > killed_s + 0.5
    assert retransmitted == 0
