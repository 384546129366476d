"""A controller's rounds: what they make of counters, and how Open vSwitch's are asked for."""

from __future__ import annotations

import time
from typing import Any

import pytest
from os_ken.ofproto import ofproto_v1_3, ofproto_v1_3_parser

from controllers.ovs import scheduler
from controllers.ovs.openflow import COUNTED_TABLE
from controllers.ovs.scheduler import Scheduler
from controllers.rounds import Change, FiveTuple, Rounds
from emulator.topology import LeafSpine

FABRIC = LeafSpine(2, 2, 2)
MUCH_BYTES = 10_000_000


def connection(src: int, dst: int, port: int = 10_000) -> FiveTuple:
    return FABRIC.host_ip(src), FABRIC.host_ip(dst), port, 5000


ONE, OTHER, BACK = connection(0, 2), connection(1, 3), connection(2, 0)


def test_the_leaf_of_each_sender_hears_what_changed_and_of_nothing_else() -> None:
    rounds = Rounds(FABRIC)
    rounds.begin()
    first = rounds.decide({ONE: MUCH_BYTES, OTHER: MUCH_BYTES, BACK: MUCH_BYTES})
    assert first == {0: Change({}, {ONE: 0, OTHER: 1}), 1: Change({}, {BACK: 0})}
    rounds.begin()
    assert rounds.decide(dict.fromkeys((ONE, OTHER, BACK), 2 * MUCH_BYTES)) == {}


def test_what_has_sent_next_to_nothing_since_the_last_round_is_placed_no_more() -> None:
    rounds = Rounds(FABRIC)
    rounds.begin()
    rounds.decide({ONE: MUCH_BYTES, OTHER: MUCH_BYTES})
    time.sleep(0.05)  # in which a hundredth of a host's rate is 1250 bytes
    rounds.begin()
    changed = rounds.decide({ONE: MUCH_BYTES + 100, OTHER: 2 * MUCH_BYTES})
    assert changed == {0: Change({ONE: 0, OTHER: 1}, {OTHER: 1})}


def test_who_is_no_host_of_the_fabric_is_left_alone() -> None:
    rounds = Rounds(FABRIC)
    rounds.begin()
    assert rounds.decide({(FABRIC.host_ip(0), "192.0.2.1", 1, 2): MUCH_BYTES}) == {}


class Leaf:
    """A switch's connection: it remembers rules, and answers for its counters at once if it `answers`."""

    ofproto, ofproto_parser = ofproto_v1_3, ofproto_v1_3_parser

    def __init__(self, number: int, to: Scheduler, counts: dict[FiveTuple, int], *, answers: bool = True) -> None:
        self.id, self._to, self._counts, self._answers = number + 1, to, counts, answers
        self.rules: list[Any] = []

    def set_xid(self, message: Any) -> None:
        message.set_xid(self.id)

    def send_msg(self, message: Any) -> None:
        if isinstance(message, ofproto_v1_3_parser.OFPFlowMod):
            self.rules.append(message)
        elif self._answers:
            assert message.table_id == COUNTED_TABLE
            parts = [{flow: count} for flow, count in self._counts.items()] or [{}]
            for number, part in enumerate(parts, 1):
                self._to.take(self._reply(part, more=number < len(parts)))

    def _reply(self, counts: dict[FiveTuple, int], *, more: bool) -> Any:
        parser = self.ofproto_parser
        names = ("ipv4_src", "ipv4_dst", "tcp_src", "tcp_dst")
        matches = [parser.OFPMatch(eth_type=0x0800, ip_proto=6)]
        matches += [parser.OFPMatch(eth_type=0x0800, **dict(zip(names, flow, strict=True))) for flow in counts]
        rules = [
            parser.OFPFlowStats(match=match, byte_count=count)
            for match, count in zip(matches, [77, *counts.values()], strict=True)
        ]
        reply = parser.OFPFlowStatsReply(self, body=rules, flags=ofproto_v1_3.OFPMPF_REPLY_MORE if more else 0)
        reply.set_xid(self.id)
        return reply


def until(happened: Any) -> None:
    deadline_s = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_counters_come_in_parts_and_placements_go_out_as_exact_rules() -> None:
    polling = Scheduler()
    leaves = {0: Leaf(0, polling, {ONE: MUCH_BYTES, OTHER: MUCH_BYTES}), 1: Leaf(1, polling, {BACK: MUCH_BYTES})}
    polling.schedule(FABRIC, leaves, 0.02)
    until(lambda: len(leaves[0].rules) >= 2 and leaves[1].rules)
    assert polling.rest() is None
    placed = leaves[1].rules[0]
    assert (placed.match["ipv4_src"], placed.match["tcp_src"]) == (FABRIC.host_ip(2), 10_000)
    assert placed.instructions[0].actions[-1].port == FABRIC.leaf_port_to_spine(0)
    assert {rule.match["ipv4_src"] for rule in leaves[0].rules[:2]} == {FABRIC.host_ip(0), FABRIC.host_ip(1)}


def test_a_switch_that_does_not_answer_is_named_when_scheduling_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_REPLY_TIMEOUT_S", 0.05)
    polling = Scheduler()
    leaves = {0: Leaf(0, polling, {}), 1: Leaf(1, polling, {}, answers=False)}
    polling.schedule(FABRIC, leaves, 0.01)
    until(lambda: not polling.polls)
    assert polling.rest() == "no flow counters from leaf2 in 0.05 s"
    assert polling.rest() is None


def test_rest_does_not_wait_for_an_answer() -> None:
    polling = Scheduler()
    polling.schedule(FABRIC, {0: Leaf(0, polling, {}, answers=False)}, 0.01)
    time.sleep(0.05)
    begun_s = time.monotonic()
    assert polling.rest() is None
    assert time.monotonic() - begun_s < 2.5, "half of what it waits for a silent switch"
