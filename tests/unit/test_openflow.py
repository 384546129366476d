"""The messages, as they go over the wire: packed, unpacked again, and looked up as Open vSwitch would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from itertools import pairwise, product
from typing import Any

import pytest
from os_ken.ofproto import nicira_ext, ofproto_v1_3, ofproto_v1_3_parser
from os_ken.ofproto.ofproto_parser import msg as unpack

from controllers.ovs.openflow import (
    CHECK_PKT_LARGER,
    COUNTED_TABLE,
    Table,
    flow_count,
    placement,
    program,
    question,
    signal_port,
    switch_table,
)
from controllers.tables import Hash, Rule, leaf_table, spine_table
from emulator.forwarding import Flowlets, Forwarding, Scheduling, Spraying, as_json, restored
from emulator.topology import MAX_EMULATED_LEAVES, MAX_SPINES, LeafSpine, Link

FABRIC = LeafSpine(leaves=3, spines=4, hosts_per_leaf=2)
FAILED: frozenset[Link] = frozenset({(0, 1), (1, 2), (2, 2), (2, 3)})
SEED = 4711
MAIN_TABLE = 0
NO_TABLE, COMMIT = 0xFF, 1  # of the connection tracker's action
SENDER = {"ip_proto": 6, "ipv4_src": FABRIC.host_ip(0), "tcp_src": 10_000, "tcp_dst": 5000}  # of every packet here


class Datapath:
    """As much of a connection to a switch as it takes to write and read messages."""

    id = 1

    ofproto = ofproto_v1_3
    ofproto_parser = ofproto_v1_3_parser


def over_the_wire(messages: Sequence[Any]) -> list[Any]:
    """What a switch reads: rules, out of their bundle and unpacked again; os-ken reads nothing else."""
    received = []
    for number, message in enumerate(messages):
        message.set_xid(number + 1)
        message.serialize()
        if not isinstance(message, ofproto_v1_3_parser.ONFBundleAddMsg):
            received.append(message)
            continue
        rule = message.message
        assert bytes(message.buf).endswith(bytes(rule.buf))
        header = (rule.version, rule.msg_type, len(rule.buf), rule.xid)
        received.append(unpack(Datapath(), *header, bytes(rule.buf)))
    return received


def programmed(rules: Sequence[Rule], fabric: LeafSpine = FABRIC, seed: int = SEED) -> list[Any]:
    return over_the_wire(program(Datapath(), fabric, Table(rules, seed)))


def flows(messages: Sequence[Any]) -> list[Any]:
    """The rules that are added."""
    mods = [message for message in messages if message.msg_type == ofproto_v1_3.OFPT_FLOW_MOD]
    return [mod for mod in mods if mod.command == ofproto_v1_3.OFPFC_ADD]


def actions(flow: Any) -> list[Any]:
    return [action for instruction in flow.instructions for action in getattr(instruction, "actions", [])]


@dataclass(frozen=True)
class Sent:
    """`mark` is what the packet's connection is remembered by from then on; `counted`: by a rule of its own."""

    port: int
    eth_dst: str | None = None
    mark: int | None = None
    counted: bool = False


def forward(messages: Sequence[Any], destination: str, dscp: int, choice: int = 0, mark: int = 0) -> Sent | None:
    """Where a packet goes whose hash, modulo the links there are, is `choice`; None if it is dropped.

    `mark` is its connection's, which only those rules see that asked the connection tracker before.
    """
    seen = {"reg0": 0, "reg1": 0, "ct_mark": 0}
    table, eth_dst, kept, alone, counted = MAIN_TABLE, None, None, False, False
    while True:
        rules = [flow for flow in flows(messages) if flow.table_id == table]
        fitting = [rule for rule in rules if _fits(rule, destination, dscp, seen)]
        if not fitting:
            return None
        best = max(fitting, key=lambda flow: flow.priority)
        assert sum(flow.priority == best.priority for flow in fitting) == 1, "OpenFlow leaves a tie undefined"
        following = None
        for instruction in best.instructions:
            if instruction.type == ofproto_v1_3.OFPIT_GOTO_TABLE:
                following = instruction.table_id
                assert following > table, "OpenFlow goes to later tables only"
        for action in actions(best):
            match action:
                case ofproto_v1_3_parser.OFPActionSetField(key="eth_dst"):
                    eth_dst = action.value
                case ofproto_v1_3_parser.OFPActionSetField():
                    seen[action.key] = action.value
                case ofproto_v1_3_parser.OFPActionOutput():
                    return Sent(action.port, eth_dst, kept, counted)
                case ofproto_v1_3_parser.NXActionCT():
                    assert action.zone_ofs_nbits == Datapath.id, "leaves that share a datapath tell theirs apart"
                    if action.recirc_table == NO_TABLE:
                        assert action.flags == COMMIT
                        kept = next((change.value for change in action.actions), kept)
                    else:
                        assert alone, "or Open vSwitch in user space would read the marks of several packets first"
                        following, seen["ct_mark"] = action.recirc_table, mark
                case ofproto_v1_3_parser.NXActionResubmitTable(table_id=resubmitted) if resubmitted == COUNTED_TABLE:
                    counted = True
                case ofproto_v1_3_parser.NXActionResubmitTable():
                    following = action.table_id
                case ofproto_v1_3_parser.NXActionUnknown(subtype=subtype):
                    assert subtype == CHECK_PKT_LARGER
                    alone = True
                case _:
                    seen["reg0"] = choice % (action.max_link + 1)
        if following is None:
            return None
        table = following


def _fits(flow: Any, destination: str, dscp: int, seen: dict[str, int]) -> bool:
    match = dict(flow.match.items())
    asks_for_ipv4 = match.pop("eth_type", None) == 0x0800
    tracks = any(isinstance(action, ofproto_v1_3_parser.NXActionCT) for action in actions(flow))
    assert asks_for_ipv4 or not (tracks or flow.table_id == MAIN_TABLE), "what only IPv4 has is asked of IPv4 only"
    wanted = match.pop("ipv4_dst", ("0.0.0.0", "0.0.0.0"))
    wanted, mask = (wanted, "255.255.255.255") if isinstance(wanted, str) else wanted
    fits = int(ip_address(destination)) & int(IPv4Address(mask)) == int(IPv4Address(wanted))
    fits &= {field: match.pop(field, value) for field, value in SENDER.items()} == SENDER
    fits &= match.pop("ip_dscp", dscp) == dscp
    fits &= {field: match.pop(field, value) for field, value in seen.items()} == seen
    assert not match, f"unknown match {match}"
    return fits


def leaf(number: int, failed: frozenset[Link] = frozenset()) -> list[Any]:
    return programmed(leaf_table(FABRIC.without(failed), number))


def spraying_leaf(number: int, failed: frozenset[Link] = frozenset()) -> list[Any]:
    return programmed(leaf_table(FABRIC.without(failed), number, Spraying()))


every_table = pytest.mark.parametrize(
    "rules",
    [
        leaf_table(FABRIC, 0),
        leaf_table(FABRIC.without(FAILED), 0),
        leaf_table(FABRIC.without(FAILED), 0, Spraying()),
        leaf_table(FABRIC.without(FAILED), 0, Scheduling(0.5)),
        spine_table(FABRIC),
    ],
    ids=["leaf", "leaf-failed", "leaf-spraying", "leaf-scheduling", "spine"],
)


@every_table
def test_replaces_all_at_once_and_ends_with_a_barrier(rules: list[Rule]) -> None:
    """What the switch held before is gone, in one transaction, and one reply confirms it all."""
    opened, first, *between, committed, last = programmed(rules)
    asked = (ofproto_v1_3.ONF_BCT_OPEN_REQUEST, ofproto_v1_3.ONF_BCT_COMMIT_REQUEST)
    assert (opened.type, committed.type) == asked
    assert opened.flags == committed.flags == ofproto_v1_3.ONF_BF_ATOMIC | ofproto_v1_3.ONF_BF_ORDERED
    assert bytes(last.buf[:2]) == bytes([ofproto_v1_3.OFP_VERSION, ofproto_v1_3.OFPT_BARRIER_REQUEST])
    assert first.command == ofproto_v1_3.OFPFC_DELETE and first.table_id == ofproto_v1_3.OFPTT_ALL
    assert (first.out_port, first.out_group) == (ofproto_v1_3.OFPP_ANY, ofproto_v1_3.OFPG_ANY), "whatever it outputs to"
    assert not list(first.match.items())
    assert {message.msg_type for message in between} == {ofproto_v1_3.OFPT_FLOW_MOD}
    assert flows(between) == between


@every_table
def test_priorities_fall_strictly_in_the_order_of_the_rules(rules: list[Rule]) -> None:
    priorities = [flow.priority for flow in flows(programmed(rules)) if flow.table_id == MAIN_TABLE]
    assert len(priorities) == len(rules)
    assert all(higher > lower for higher, lower in pairwise(priorities))
    assert min(priorities) > 0


def test_dscp_is_spine_plus_one() -> None:
    for flow in flows(leaf(0)):
        match = dict(flow.match.items())
        if "ip_dscp" in match:
            [output] = actions(flow)
            assert output.port == FABRIC.leaf_port_to_spine(match["ip_dscp"] - 1)
    tags = [dict(flow.match.items()).get("ip_dscp") for flow in flows(leaf(0))]
    assert sorted(tag for tag in tags if tag) == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", [0, 1, 2, 0xFFFF])
def test_hash_is_seeded_and_covers_every_live_spine(seed: int) -> None:
    """Seed and packet decide, whatever the switch: a basis, and as many links as there are spines."""
    for failed in (frozenset[Link](), FAILED):
        rules = leaf_table(FABRIC.without(failed), 0)
        found = [a for flow in flows(programmed(rules, seed=seed)) for a in actions(flow) if hasattr(a, "basis")]
        hashes = [rule.action.spines for rule in rules if isinstance(rule.action, Hash)]
        assert len(found) == len(hashes) > 0
        for action, spines in zip(found, hashes, strict=True):
            assert action.basis == seed
            assert action.max_link == len(spines) - 1
            assert action.algorithm == nicira_ext.NX_MP_ALG_MODULO_N
            assert action.fields == nicira_ext.NX_HASH_FIELDS_SYMMETRIC_L4
            assert action.dst == "reg0" and action.ofs_nbits == nicira_ext.ofs_nbits(0, 31)


def test_seed_that_does_not_fit_the_basis_is_refused() -> None:
    with pytest.raises(Exception, match=r"format requires|out of range"):
        programmed(leaf_table(FABRIC, 0), seed=0x10000)


@pytest.mark.parametrize("failed", [frozenset[Link](), FAILED], ids=["whole", "failed"])
@pytest.mark.parametrize("number", range(FABRIC.leaves))
def test_leaf_sends_every_packet_to_its_port(number: int, failed: frozenset[Link]) -> None:
    messages = leaf(number, failed)
    for host in range(FABRIC.hosts):
        other = FABRIC.leaf_of(host)
        live = FABRIC.without(failed).live_spines(number, other)
        for dscp in (0, 1, 2, 3, 4, 5, 63):
            for choice in range(4):
                sent = forward(messages, FABRIC.host_ip(host), dscp, choice)
                if other == number:
                    assert sent == Sent(FABRIC.leaf_port_to_host(host), FABRIC.host_mac(host))
                elif not live:
                    assert sent is None
                else:
                    spine = dscp - 1 if dscp - 1 in live else live[choice % len(live)]
                    assert sent == Sent(FABRIC.leaf_port_to_spine(spine))


@pytest.mark.parametrize("failed", [frozenset[Link](), FAILED], ids=["whole", "failed"])
@pytest.mark.parametrize("number", range(FABRIC.leaves))
def test_spraying_leaf_sends_every_packet_to_the_spine_after_the_last(number: int, failed: frozenset[Link]) -> None:
    """Begun at the hash, whatever its choice, and anew when the last spine is lost. Tags, and hosts here, as ever."""
    messages = spraying_leaf(number, failed)
    for host in range(FABRIC.hosts):
        other = FABRIC.leaf_of(host)
        live = FABRIC.without(failed).live_spines(number, other)
        for mark, choice in product(range(FABRIC.spines + 1), range(4)):
            sent = forward(messages, FABRIC.host_ip(host), 0, choice, mark)
            if other == number:
                assert sent == Sent(FABRIC.leaf_port_to_host(host), FABRIC.host_mac(host))
                continue
            if not live:
                assert sent is None
                continue
            last = mark - 1
            spine = live[(live.index(last) + 1) % len(live)] if last in live else live[choice % len(live)]
            assert sent == Sent(FABRIC.leaf_port_to_spine(spine), mark=spine + 1)
        if other != number and live:
            tagged = forward(messages, FABRIC.host_ip(host), live[0] + 1, 3, live[-1] + 1)
            assert tagged == Sent(FABRIC.leaf_port_to_spine(live[0]))


def scheduling_leaf(number: int, failed: frozenset[Link] = frozenset()) -> list[Any]:
    return programmed(leaf_table(FABRIC.without(failed), number, Scheduling(0.5)))


@pytest.mark.parametrize("failed", [frozenset(), FAILED])
@pytest.mark.parametrize("number", range(FABRIC.leaves))
def test_a_leaf_that_is_polled_hashes_as_ever_and_counts_what_it_hashes(number: int, failed: frozenset[Link]) -> None:
    plain, polled = leaf(number, failed), scheduling_leaf(number, failed)
    for host, dscp, choice in product(range(FABRIC.hosts), (0, 2), range(FABRIC.spines)):
        sent = forward(polled, FABRIC.host_ip(host), dscp, choice)
        expected = forward(plain, FABRIC.host_ip(host), dscp, choice)
        assert sent and expected and (sent.port, sent.eth_dst) == (expected.port, expected.eth_dst)
        up = FABRIC.leaf_of(host) != number
        assert sent.counted == (
            up and not (dscp and dscp - 1 in FABRIC.without(failed).live_spines(number, FABRIC.leaf_of(host)))
        )


def test_a_polled_leaf_learns_each_connection_by_its_addresses_and_ports() -> None:
    (learning,) = (flow for flow in flows(scheduling_leaf(0)) if flow.table_id == COUNTED_TABLE)
    (learn,) = actions(learning)
    assert learn.table_id == COUNTED_TABLE and learn.priority > learning.priority
    copied = {spec.dst[0] for spec in learn.specs}
    assert copied >= {"ipv4_src_nxm", "ipv4_dst_nxm", "tcp_src_nxm", "tcp_dst_nxm"}


def test_a_placed_connection_takes_its_spine_and_is_counted_until_it_is_released() -> None:
    destination, held = FABRIC.host_ip(5), scheduling_leaf(0)
    ends = (str(SENDER["ipv4_src"]), destination, int(str(SENDER["tcp_src"])), int(str(SENDER["tcp_dst"])))
    place, release = over_the_wire([placement(Datapath(), FABRIC, ends, spine) for spine in (3, None)])
    assert place.priority > max(flow.priority for flow in flows(held))
    for choice in range(FABRIC.spines):
        sent = Sent(FABRIC.leaf_port_to_spine(3), counted=True)
        assert forward([*held, place], destination, 0, choice) == sent
        assert forward([*held, place], FABRIC.host_ip(4), 0, choice) == forward(held, FABRIC.host_ip(4), 0, choice)
    assert forward([*held, place], destination, 2) == Sent(FABRIC.leaf_port_to_spine(1)), "a path tag goes before"
    assert release.command == ofproto_v1_3.OFPFC_DELETE_STRICT
    same = ("table_id", "priority")
    assert [getattr(release, key) for key in same] == [getattr(place, key) for key in same]
    assert dict(release.match.items()) == dict(place.match.items())


@pytest.mark.parametrize("forwarding", [None, Spraying(), Flowlets(0.1), Scheduling(0.5)])
def test_what_the_controller_is_told_arrives(forwarding: Forwarding | None) -> None:
    assert restored(json.loads(json.dumps(as_json(forwarding)))) == forwarding


def test_leaf_drops_addresses_of_its_own_that_no_host_has() -> None:
    assert forward(leaf(1), "10.1.0.77", 0) is None
    assert forward(leaf(1), FABRIC.gateway_ip(1), 3) is None


def test_spine_sends_down_to_the_leaf_of_the_address() -> None:
    messages = programmed(spine_table(FABRIC))
    for host in range(FABRIC.hosts):
        assert forward(messages, FABRIC.host_ip(host), 2) == Sent(FABRIC.spine_port_to_leaf(FABRIC.leaf_of(host)))


def test_datapath_ids_name_their_switch() -> None:
    large = LeafSpine(MAX_EMULATED_LEAVES, MAX_SPINES, 1)
    ids = [*map(large.leaf_dpid, range(large.leaves)), *map(large.spine_dpid, range(large.spines))]
    assert len(set(ids)) == len(ids) and min(ids) > 0
    left = FABRIC.without(FAILED)
    assert switch_table(left, left.leaf_dpid(2)) == leaf_table(left, 2)
    assert switch_table(left, left.spine_dpid(3)) == spine_table(left)


def test_most_tables_that_failures_can_ask_for_fit_openflow() -> None:
    """A table a set of live spines: at worst one for every other leaf, and OpenFlow numbers 255 of them."""
    large = LeafSpine(MAX_EMULATED_LEAVES, 8, 1)
    failed = frozenset((number, spine) for number in range(1, 250) for spine in range(8) if number >> spine & 1)
    messages = program(Datapath(), large, Table(leaf_table(large.without(failed), 0), SEED))
    added = flows(over_the_wire(messages))
    assert len({flow.table_id for flow in added}) == 250
    assert max(flow.table_id for flow in added) <= ofproto_v1_3.OFPTT_MAX
    assert max(flow.priority for flow in added) <= 0xFFFF


def test_a_protected_leaf_sends_up_by_groups_that_fall_back_to_the_next_spine() -> None:
    """Each group begins with its own spine and has every other once; no rule sends up past them."""
    table = Table(leaf_table(FABRIC.without([(0, 1)]), 0), SEED, protected=True)
    changes = [each.message for each in program(Datapath(), FABRIC, table) if hasattr(each, "message")]
    groups = [each for each in changes if isinstance(each, ofproto_v1_3_parser.OFPGroupMod)]
    added = {group.group_id: group for group in groups if group.command == ofproto_v1_3.OFPGC_ADD}
    live = [0, 2, 3]
    assert list(added) == [spine + 1 for spine in live]
    for place, spine in enumerate(live):
        buckets = added[spine + 1].buckets
        order = [*live[place:], *live[:place]]
        assert [bucket.watch_port for bucket in buckets] == [signal_port(each) for each in order]
        assert [bucket.actions[0].port for bucket in buckets] == [FABRIC.leaf_port_to_spine(each) for each in order]
    up = {FABRIC.leaf_port_to_spine(spine) for spine in range(FABRIC.spines)}
    mods = [each for each in changes if isinstance(each, ofproto_v1_3_parser.OFPFlowMod) and each.command == 0]
    outputs = [action for mod in mods for action in actions(mod)]
    assert not {each.port for each in outputs if isinstance(each, ofproto_v1_3_parser.OFPActionOutput)} & up
    assert {each.group_id for each in outputs if isinstance(each, ofproto_v1_3_parser.OFPActionGroup)} == set(added)


def test_every_flow_of_a_table_bears_its_cookie_and_other_tables_have_others() -> None:
    rules = leaf_table(FABRIC, 0)
    tables = [Table(rules, SEED), Table(rules, SEED + 1), Table(rules, SEED, protected=True), Table(rules[:-1], SEED)]
    assert len({table.cookie for table in tables}) == len(tables)
    for table in tables[:2]:
        found = flows(over_the_wire(program(Datapath(), FABRIC, table)))
        assert {flow.cookie for flow in found} == {table.cookie}
        assert len(found) == flow_count(Datapath(), FABRIC, table)
        asked = question(Datapath(), table)
        assert (asked.cookie, asked.cookie_mask) == (table.cookie, 2**64 - 1)
