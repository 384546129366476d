"""The tables as a packet meets them: a switch that looks it up, and a fabric of them that it crosses."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from operator import itemgetter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.tables import Action, Deliver, Downlink, Drop, Hash, Rule, Uplink, leaf_table, spine_table
from emulator.topology import MAX_HOSTS_PER_LEAF, MAX_LEAVES, MAX_SPINES, LeafSpine, Link

quick = settings(max_examples=60, deadline=None, derandomize=True)
FABRIC = LeafSpine(leaves=4, spines=4, hosts_per_leaf=3)

Choose = Callable[[tuple[int, ...]], int]
Links = frozenset[Link]


def look_up(table: list[Rule], destination: str, path_tag: int) -> Action:
    """The action of the first rule that matches; a switch drops what none does."""
    address = ip_address(destination)
    for rule in table:
        fits = rule.destination is None or address in ip_network(rule.destination)
        if fits and rule.path_tag in (None, path_tag):
            return rule.action
    return Drop()


class FakeFabric:
    """Every switch with its table. `walk` returns the nodes a packet meets, its host or "dropped" the last of them."""

    def __init__(self, fabric: LeafSpine, choose: Choose = min) -> None:
        self._fabric, self._failed, self._choose = fabric, fabric.failed, choose
        self._leaves = [leaf_table(fabric, leaf) for leaf in range(fabric.leaves)]
        self._spine = spine_table(fabric)

    def walk(self, src: int, destination: str, path_tag: int = 0) -> list[tuple[str, int]]:
        place, number = "leaf", self._fabric.leaf_of(src)
        path = [(place, number)]
        while len(path) < 20:
            table = self._leaves[number] if place == "leaf" else self._spine
            before = number
            match look_up(table, destination, path_tag):
                case Deliver(host) if place == "leaf":
                    assert host in self._fabric.hosts_of(number), "a leaf delivers to hosts of its own alone"
                    return [*path, ("host", host)]
                case Uplink(spine) if place == "leaf":
                    place, number, link = "spine", spine, (before, spine)
                case Hash(spines) if place == "leaf":
                    number = self._choose(spines)
                    place, link = "spine", (before, number)
                case Downlink(leaf) if place == "spine":
                    place, number, link = "leaf", leaf, (leaf, before)
                case Drop():
                    return [*path, ("dropped", 0)]
                case action:
                    raise AssertionError(f"a {place} has no {action}")
            assert link not in self._failed, f"{link} is down"
            path.append((place, number))
        raise AssertionError(f"a packet to {destination} goes round: {path}")


@st.composite
def fabrics(draw: st.DrawFn) -> LeafSpine:
    return LeafSpine(draw(st.integers(2, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 4)))


@st.composite
def failures(draw: st.DrawFn, fabric: LeafSpine, spare_one: bool) -> Links:
    """Any set of failed links; with `spare_one`, one that leaves all links of some spine."""
    spared = draw(st.integers(0, fabric.spines - 1)) if spare_one else None
    links = [link for link in fabric.links() if link[1] != spared]
    return frozenset(draw(st.sets(st.sampled_from(links)))) if links else frozenset()


@pytest.mark.parametrize("src", range(FABRIC.hosts))
def test_every_packet_arrives_by_the_shortest_way_whatever_its_tag(src: int) -> None:
    network = FakeFabric(FABRIC)
    for dst in range(FABRIC.hosts):
        for tag in range(64):
            path = network.walk(src, FABRIC.host_ip(dst), tag)
            assert path[-1] == ("host", dst)
            assert len(path) == (2 if FABRIC.leaf_of(src) == FABRIC.leaf_of(dst) else 4)


def test_tag_crosses_exactly_its_spine_and_back() -> None:
    network = FakeFabric(FABRIC)
    for src, dst in ((0, 11), (11, 0), (4, 7)):
        for spine in range(FABRIC.spines):
            assert ("spine", spine) == network.walk(src, FABRIC.host_ip(dst), spine + 1)[1]


def test_without_a_tag_or_with_one_of_no_spine_the_hash_decides() -> None:
    for chosen in range(FABRIC.spines):
        network = FakeFabric(FABRIC, choose=itemgetter(chosen))
        for tag in (0, FABRIC.spines + 1, 63):
            assert network.walk(0, FABRIC.host_ip(11), tag)[1] == ("spine", chosen)


@quick
@given(st.data(), fabrics())
def test_unknown_address_is_dropped(data: st.DataObject, fabric: LeafSpine) -> None:
    """Of a leaf that is there, of one that is not, of another network: none goes round for ever."""
    fabric = fabric.without(data.draw(failures(fabric, spare_one=False)))
    network = FakeFabric(fabric, choose=max)
    src, tag = data.draw(st.integers(0, fabric.hosts - 1)), data.draw(st.integers(0, 63))
    unknown = [f"10.{leaf}.0.{fabric.hosts_per_leaf + 1}" for leaf in range(fabric.leaves)]
    gateways = [fabric.gateway_ip(leaf) for leaf in range(fabric.leaves)]
    for destination in (*unknown, *gateways, f"10.{fabric.leaves}.0.1", "10.255.255.255", "192.168.0.1", "224.0.0.1"):
        assert network.walk(src, destination, tag)[-1] == ("dropped", 0)


@quick
@given(st.data(), fabrics())
def test_with_failed_links_all_arrives_over_live_ones(data: st.DataObject, fabric: LeafSpine) -> None:
    fabric = fabric.without(data.draw(failures(fabric, spare_one=True)))
    network = FakeFabric(fabric, choose=data.draw(st.sampled_from([min, max])))
    for src in range(0, fabric.hosts, fabric.hosts_per_leaf):
        for dst in range(fabric.hosts):
            live = fabric.live_spines(fabric.leaf_of(src), fabric.leaf_of(dst))
            for tag in range(fabric.spines + 2):
                path = network.walk(src, fabric.host_ip(dst), tag)
                assert path[-1] == ("host", dst) and len(path) <= 4
                if len(path) == 4 and tag - 1 in live:
                    assert path[1] == ("spine", tag - 1), "a live spine is not left aside"


@quick
@given(st.data(), fabrics())
def test_what_cannot_arrive_is_dropped_at_once(data: st.DataObject, fabric: LeafSpine) -> None:
    fabric = fabric.without(data.draw(failures(fabric, spare_one=False)))
    network = FakeFabric(fabric)
    for source in range(fabric.leaves):
        for destination in range(fabric.leaves):
            src, dst = fabric.hosts_of(source)[0], fabric.hosts_of(destination)[-1]
            reachable = source == destination or fabric.live_spines(source, destination)
            path = network.walk(src, fabric.host_ip(dst))
            assert path[-1] == (("host", dst) if reachable else ("dropped", 0))
            assert reachable or len(path) == 2, "its own leaf knows"


@quick
@given(st.data(), fabrics())
def test_no_rule_uses_a_failed_link_and_the_hash_covers_the_live_spines(data: st.DataObject, fabric: LeafSpine) -> None:
    failed = data.draw(failures(fabric, spare_one=False))
    fabric = fabric.without(failed)
    for leaf in range(fabric.leaves):
        table = leaf_table(fabric, leaf)
        for rule in table:
            match rule.action:
                case Uplink(spine):
                    assert (leaf, spine) not in failed and rule.path_tag == spine + 1
                case Hash(spines):
                    assert not {(leaf, spine) for spine in spines} & failed
        for other in set(range(fabric.leaves)) - {leaf}:
            action = look_up(table, fabric.host_ip(fabric.hosts_of(other)[0]), 0)
            live = fabric.live_spines(leaf, other)
            assert action == (Hash(tuple(live)) if live else Drop())
    reached = {rule.action.leaf for rule in spine_table(fabric) if isinstance(rule.action, Downlink)}
    assert reached == set(range(fabric.leaves)), "what was under way as links failed is lost on them, where it counts"


def test_spines_look_at_no_tag() -> None:
    """A tag chosen for one spine may, once that link is lost, cross another."""
    assert all(rule.path_tag is None for rule in spine_table(FABRIC))


@pytest.mark.parametrize("fabric", [FABRIC, LeafSpine(MAX_LEAVES, MAX_SPINES, MAX_HOSTS_PER_LEAF)])
def test_names_and_numbers_of_the_largest_fabric_fit(fabric: LeafSpine) -> None:
    """Addresses are of their leaf, apart from its gateway; Linux takes interface names of 15 characters."""
    hosts = [0, fabric.hosts_per_leaf - 1, fabric.hosts - 1]
    for host in hosts:
        leaf = fabric.leaf_of(host)
        assert ip_address(fabric.host_ip(host)) in ip_network(fabric.leaf_prefix(leaf))
        assert fabric.host_ip(host) != fabric.gateway_ip(leaf)
        assert host in fabric.hosts_of(leaf)
    assert len({fabric.host_ip(host) for host in range(fabric.hosts)}) == fabric.hosts
    macs = {fabric.host_mac(host) for host in range(fabric.hosts)} | {
        fabric.gateway_mac(leaf) for leaf in range(fabric.leaves)
    }
    assert len(macs) == fabric.hosts + fabric.leaves
    names = [
        f"{fabric.leaf_name(fabric.leaves - 1)}-eth{fabric.leaf_port_to_spine(fabric.spines - 1)}",
        f"{fabric.spine_name(fabric.spines - 1)}-eth{fabric.spine_port_to_leaf(fabric.leaves - 1)}",
        f"{fabric.host_name(fabric.hosts - 1)}-eth0",
    ]
    assert max(map(len, names)) <= 15
    ports = [fabric.leaf_port_to_host(host) for host in fabric.hosts_of(1)]
    ports += [fabric.leaf_port_to_spine(spine) for spine in range(fabric.spines)]
    assert sorted(ports) == list(range(1, len(ports) + 1)), "a port each, none left out"
