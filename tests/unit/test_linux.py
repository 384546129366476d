"""A Linux router does what the table says: its ruleset and routes, read as the kernel reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.linux.rules import (
    Route,
    connection_marks,
    detoured,
    leaf_neighbours,
    routes,
    ruleset,
    spine_neighbours,
)
from controllers.tables import (
    Action,
    Deliver,
    Downlink,
    Drop,
    Hash,
    Place,
    Redraw,
    Rotate,
    Rule,
    Uplink,
    leaf_table,
    spine_table,
)
from emulator.dataplane import Endpoints
from emulator.forwarding import Flowlets, Forwarding, Scheduling, Spraying
from emulator.netlink import MAIN_TABLE
from emulator.topology import LeafSpine
from experiments.theory.loads import choose_spines
from traffic.plan import LISTEN_PORT, plan_traffic
from traffic.schedule import Flow, Schedule
from traffic.schemes import scheme_of

quick = settings(max_examples=40, deadline=None, derandomize=True)


class Packet(NamedTuple):
    src: str
    dst: str
    sport: int
    dport: int
    tag: int


def decided(rules: Iterable[Rule], packet: Packet) -> Action:
    """By the table: the first rule that matches."""
    for rule in rules:
        here = rule.destination is None or ip_address(packet.dst) in ip_network(rule.destination)
        if here and rule.path_tag in (None, packet.tag):
            return rule.action
    return Drop()


def verdict_on(line: str, destination: str) -> str:
    """What a line that looks at destinations has done with this one; nothing where it is none of its own."""
    found = re.findall(r"(\d[\d./]+) (?:: )?(accept|goto \w+)", line)
    return next((verdict for prefix, verdict in found if ip_address(destination) in ip_network(prefix)), "")


def marks(text: str, packet: Packet, last: int = 0) -> set[int]:
    """By the ruleset: the marks a packet may leave it with; more than one where a hash decides.

    `last` is the mark of its connection, which must be given that of the packet.
    """
    known = dict(re.findall(r"^      (\S+ \. \S+ \. \d+ \. \d+) : (\d+)", text, re.MULTILINE))
    chains = {name: body.splitlines() for name, body in re.findall(r"  chain (\w+) \{\n(.*?)\n  \}", text, re.DOTALL)}
    todo = list(chains["in"])
    while todo:
        line = todo.pop(0).strip()
        if line.startswith("type filter hook prerouting"):
            assert line.endswith("policy accept;")
        elif line.startswith("ip daddr "):
            if (verdict := verdict_on(line, packet.dst)) == "accept":
                return {0}
            if verdict:
                todo = list(chains[verdict.removeprefix("goto ")])
        elif line.startswith("meta mark set ip dscp map"):
            tags = dict(re.findall(r"(\d+) : (\d+)", line))
            if str(packet.tag) in tags:
                return {int(tags[str(packet.tag)])}
        elif "map @placed" in line:
            assert "map placed" in text and "update @counted" in text  # nobody has been placed yet
        elif "map @connections" in line:
            ends = f"{packet.src} . {packet.dst} . {packet.sport} . {packet.dport}"
            if ends in known:
                return {int(known[ends])}
        elif line.startswith("ct mark set ct mark map"):
            assert line.endswith("meta mark set ct mark accept")
            turns = dict(re.findall(r"(\d+) : (\d+)", line))
            if str(last) in turns:
                return {int(turns[str(last)])}
        elif "!= @alive ct mark set numgen random" in line:
            drawn = {int(mark) for _, mark in re.findall(r"(\d+) : (\d+)", line)}
            assert "timeout 100ms" in text
        elif line.startswith("update @alive"):
            assert line.count(" . ") == 3
        elif line.startswith("meta mark set ct mark map"):
            assert {int(mark) for _, mark in re.findall(r"(\d+) : (\d+)", line)} == drawn
            return drawn  # where it is of TCP
        elif "jhash" in line:
            assert line.removesuffix(" accept").endswith(" ct mark set meta mark") == ("ct mark" in text)
            places = re.findall(r"(\d+) : (\d+)", line)
            (modulus,) = re.findall(r"mod (\d+)", line)
            assert [int(place) for place, _ in places] == list(range(int(modulus)))
            return {int(mark) for _, mark in places}
        else:
            raise AssertionError(f"no such rule is known: {line}")
    return {0}


def sent(table: set[Route], packet: Packet, mark: int) -> int | None:
    """By the routes: the port that a packet with `mark` leaves by; None: discarded."""
    found = [
        route
        for route in table
        if route.table == (mark or MAIN_TABLE) and ip_address(packet.dst) in ip_network(route.prefix)
    ]
    assert found, "a router without a route would complain to the sender"
    return max(found, key=lambda route: ip_network(route.prefix).prefixlen).port


def ports_of(fabric: LeafSpine, action: Action) -> set[int | None]:
    match action:
        case Deliver(host):
            return {fabric.leaf_port_to_host(host)}
        case Uplink(spine):
            return {fabric.leaf_port_to_spine(spine)}
        case Hash(spines) | Rotate(spines) | Redraw(spines) | Place(spines):
            return {fabric.leaf_port_to_spine(spine) for spine in spines}
        case Downlink(leaf):
            return {fabric.spine_port_to_leaf(leaf)}
        case Drop():
            return {None}


@st.composite
def fabrics(draw: st.DrawFn) -> LeafSpine:
    fabric = LeafSpine(draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 3)))
    return fabric.without(draw(st.sets(st.sampled_from(list(fabric.links())), max_size=6)))


def packets(fabric: LeafSpine) -> st.SearchStrategy[Packet]:
    hosts = [fabric.host_ip(host) for host in range(fabric.hosts)]
    nobody = ["10.0.0.250", "10.3.9.9", "10.0.255.254"]
    ports = st.integers(1, 65535)
    return st.builds(Packet, st.sampled_from(hosts), st.sampled_from(hosts + nobody), ports, ports, st.integers(0, 63))


@quick
@given(fabrics(), st.integers(0, 65535), st.sampled_from([None, Spraying(), Flowlets(0.1), Scheduling(0.5)]), st.data())
def test_a_leaf_does_what_its_table_says(
    fabric: LeafSpine, seed: int, forwarding: Forwarding | None, data: st.DataObject
) -> None:
    leaf = data.draw(st.integers(0, fabric.leaves - 1))
    rules = leaf_table(fabric, leaf, forwarding)
    text, table = ruleset(rules, seed, []), routes(fabric, rules)
    for packet in data.draw(st.lists(packets(fabric), min_size=1, max_size=20)):
        ports = {sent(table, packet, mark) for mark in marks(text, packet)}
        assert ports == ports_of(fabric, decided(rules, packet)), packet


@quick
@given(fabrics(), st.integers(0, 63), st.data())
def test_a_spraying_leaf_takes_live_spines_in_turn(fabric: LeafSpine, last: int, data: st.DataObject) -> None:
    """Also when the spine of a connection's last packet has failed since: then the hash begins anew."""
    leaf = data.draw(st.integers(0, fabric.leaves - 1))
    text = ruleset(leaf_table(fabric, leaf, Spraying()), 7, [])
    packet = data.draw(packets(fabric))._replace(tag=0)
    other = next((host for host in range(fabric.hosts) if fabric.host_ip(host) == packet.dst), None)
    live = fabric.live_spines(leaf, fabric.leaf_of(other)) if other is not None else []
    if other is None or fabric.leaf_of(other) == leaf or not live:
        return
    if last - 1 not in live:
        assert marks(text, packet, last) == {spine + 1 for spine in live}
        return
    went = [last]
    for _ in range(2 * len(live)):
        [mark] = marks(text, packet, went[-1])
        went.append(mark)
    assert went[: len(live)] == went[len(live) : 2 * len(live)] and sorted(went[: len(live)]) == [s + 1 for s in live]


@quick
@given(fabrics(), st.data())
def test_a_spine_does_what_its_table_says(fabric: LeafSpine, data: st.DataObject) -> None:
    rules = spine_table(fabric)
    for packet in data.draw(st.lists(packets(fabric), min_size=1, max_size=20)):
        assert {sent(routes(fabric, rules), packet, 0)} == ports_of(fabric, decided(rules, packet)), packet


@quick
@given(fabrics(), st.integers(0, 65535))
def test_known_connections_take_the_spine_that_open_vswitch_picks(fabric: LeafSpine, seed: int) -> None:
    pairs = [(src, dst) for src in range(fabric.hosts) for dst in range(fabric.hosts) if src != dst]
    schedule = Schedule("x", "x", fabric.hosts, 1, 1, [Flow(n, src, dst, 1) for n, (src, dst) in enumerate(pairs)])
    plan = plan_traffic(schedule, fabric, range(fabric.hosts), scheme_of("ecmp"))
    connections = [Endpoints(s.src_host, s.dst_host, s.src_port, LISTEN_PORT) for s in plan.connections]
    known = connection_marks(fabric, connections, seed)
    texts = [ruleset(leaf_table(fabric, leaf), seed, known[leaf]) for leaf in range(fabric.leaves)]
    spines = choose_spines(plan, fabric, seed)
    for (src, dst, port, _), spine in zip(connections, spines, strict=True):
        leaves = fabric.leaf_of(src), fabric.leaf_of(dst)
        if leaves[0] == leaves[1] or not fabric.live_spines(*leaves):
            continue
        there = Packet(fabric.host_ip(src), fabric.host_ip(dst), port, LISTEN_PORT, 0)
        assert marks(texts[leaves[0]], there) == {spine + 1}
        back = Packet(there.dst, there.src, there.dport, there.sport, 0)
        assert len(marks(texts[leaves[1]], back)) == 1, "answers are known too"


@quick
@given(fabrics())
def test_every_neighbour_a_route_needs_is_known(fabric: LeafSpine) -> None:
    routers = [
        (routes(fabric, leaf_table(fabric, leaf)), leaf_neighbours(fabric, leaf)) for leaf in range(fabric.leaves)
    ]
    routers.append((routes(fabric, spine_table(fabric)), spine_neighbours(fabric)))
    for table, neighbours in routers:
        known = {(neighbour.port, neighbour.ip) for neighbour in neighbours}
        for route in table:
            if route.port is not None:
                assert (route.port, route.via or route.prefix.removesuffix("/32")) in known


@quick
@given(st.integers(1, 6), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_a_leaf_takes_the_next_uplink_that_is_not_dead(spines: int, failed: set[int], dead: set[int]) -> None:
    """All else stays as it is; and everything does, where none is left."""
    fabric = LeafSpine(2, spines, 1)
    left = fabric.without((0, spine) for spine in failed if spine < spines)
    usual = routes(left, leaf_table(left, 0))
    found = detoured(left, usual, dead)
    alive = [spine for spine in left.live_spines(0, 1) if spine not in dead]
    ups = {route.table - 1: route for route in found if route.table != MAIN_TABLE}
    assert {(each.table, each.prefix) for each in found} == {(each.table, each.prefix) for each in usual}
    assert found - set(ups.values()) == {route for route in usual if route.table == MAIN_TABLE}
    for spine, route in ups.items():
        taken = min(alive, key=lambda each: (each - spine) % spines, default=spine)
        assert (route.port, route.via) == (fabric.leaf_port_to_spine(taken), f"169.254.0.{taken + 1}")
