"""Forwarding tables as a Linux router holds them: routes, permanent neighbours and, on leaves, an nftables ruleset.

A leaf's ruleset turns a path tag, or a hash, into a mark, spine + 1; a routing rule sends each mark to the routing
table of that number, whose one route leads to that spine. What has no mark is for this leaf: the main table has its
hosts.

The kernel has no hash that equals Open vSwitch's. So that a seed means the same paths on either, the ruleset lists the
connections of a run, each with the spine that Open vSwitch would pick; what else needs hashing (ping, say) gets jhash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.hashing import hashed_spines
from controllers.rounds import FiveTuple
from controllers.tables import Deliver, Downlink, Drop, Hash, Place, Redraw, Rotate, Rule, Uplink
from emulator.dataplane import Endpoints
from emulator.netlink import MAIN_TABLE
from emulator.topology import LeafSpine

EVERYWHERE = "0.0.0.0/0"

SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",  # answers may come another way
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.ip_early_demux": "0",  # no packet is for the router itself: do not look for its socket
}

_MOST_ALIVE = 1 << 17  # connections of one leaf: those that have not paused, or that it counts
COUNTED, PLACED = "counted", "placed"  # a set of what connections have sent, a map of where some were placed
_FIVE_TUPLE = "ipv4_addr . ipv4_addr . inet_service . inet_service"


@dataclass(frozen=True, slots=True)
class Route:
    """A route in the routing table `table`: to `prefix` by switch port `port`, through neighbour `via` or straight.

    Without a port, packets are discarded.
    """

    table: int
    prefix: str
    port: int | None = None
    via: str | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour of a switch: the address `ip`, behind switch port `port`, has this MAC."""

    port: int
    ip: str
    mac: str


def mark_of(spine: int) -> int:
    """Return the mark of packets that go up to `spine`, which is the number of their routing table too."""
    return spine + 1


def spine_ip(spine: int) -> str:
    return f"169.254.0.{spine + 1}"


def spine_mac(spine: int) -> str:
    return f"02:02:00:00:00:{spine:02x}"


def leaf_neighbours(fabric: LeafSpine, leaf: int) -> list[Neighbour]:
    hosts = [
        Neighbour(fabric.leaf_port_to_host(host), fabric.host_ip(host), fabric.host_mac(host))
        for host in fabric.hosts_of(leaf)
    ]
    spines = range(fabric.spines)
    return hosts + [Neighbour(fabric.leaf_port_to_spine(spine), spine_ip(spine), spine_mac(spine)) for spine in spines]


def spine_neighbours(fabric: LeafSpine) -> list[Neighbour]:
    return [
        Neighbour(fabric.spine_port_to_leaf(leaf), fabric.gateway_ip(leaf), fabric.gateway_mac(leaf))
        for leaf in range(fabric.leaves)
    ]


def routes(fabric: LeafSpine, rules: Iterable[Rule]) -> set[Route]:
    """Return the routes of a switch that has these rules.

    A longer prefix wins, as among `rules` the one listed first.
    """
    found = {Route(MAIN_TABLE, EVERYWHERE)}
    for rule in rules:
        match rule.action:
            case Deliver(host):
                assert rule.destination
                found.add(Route(MAIN_TABLE, rule.destination, fabric.leaf_port_to_host(host)))
            case Downlink(leaf):
                assert rule.destination
                via = fabric.gateway_ip(leaf)
                found.add(Route(MAIN_TABLE, rule.destination, fabric.spine_port_to_leaf(leaf), via))
            case Uplink(spine):
                found.add(Route(mark_of(spine), EVERYWHERE, fabric.leaf_port_to_spine(spine), spine_ip(spine)))
            case Hash() | Rotate() | Redraw() | Place() | Drop():
                pass  # a choice among uplinks that have rules of their own; the main table discards the rest
    return found


def detoured(fabric: LeafSpine, usual: Iterable[Route], dead: Collection[int]) -> set[Route]:
    """Return the `usual` routes of a leaf whose uplinks to spines `dead` are down: the next one is taken instead.

    A last uplink is not given up.
    """
    usual = set(usual)
    uplinks = sorted(route.table - 1 for route in usual if route.table != MAIN_TABLE)
    instead: dict[int, int] = {}
    for place, spine in enumerate(uplinks):
        alive = [each for each in (*uplinks[place:], *uplinks[:place]) if each not in dead]
        if alive and alive[0] != spine:
            instead[mark_of(spine)] = alive[0]
    there = {table: (fabric.leaf_port_to_spine(spine), spine_ip(spine)) for table, spine in instead.items()}
    return {Route(route.table, route.prefix, *there[route.table]) if route.table in there else route for route in usual}


def ruleset(rules: Sequence[Rule], seed: int, known: Iterable[str]) -> str:
    """Write the nftables ruleset that marks a leaf's packets; `known` are its lines of `connection_marks`."""
    tagged: dict[str | None, list[int]] = {}
    verdicts: dict[str, str] = {}
    chains: list[str] = []
    last: list[str] = []
    for rule in rules:
        match rule.action:
            case Uplink(spine):
                tagged.setdefault(rule.destination, []).append(spine)
            case Hash() | Rotate() | Redraw() | Place():
                lines = _choice(tagged[rule.destination], rule.action, seed)
                if rule.destination is None:
                    last = lines
                else:
                    name = f"to{len(chains) + 1}"
                    chains.append("\n".join([f"  chain {name} {{", *lines, "  }"]))
                    verdicts[rule.destination] = f"goto {name}"
            case Drop() if rule.destination is not None:
                verdicts[rule.destination] = "accept"
            case _:
                pass
    elements = ",\n".join(known)
    return "\n".join(
        [
            "table ip fabric",
            "delete table ip fabric",
            "table ip fabric {",
            "  map connections {",
            f"    type {_FIVE_TUPLE} : mark",
            *([f"    elements = {{\n{elements}\n    }}"] if elements else []),
            "  }",
            *_alive(rule.action.gap_s for rule in rules if isinstance(rule.action, Redraw)),
            *_counted(rules),
            *chains,
            "  chain in {",
            "    type filter hook prerouting priority mangle; policy accept;",
            *_by_destination(verdicts),
            *last,
            "  }",
            "}",
            "",
        ]
    )


def _by_destination(verdicts: dict[str, str]) -> list[str]:
    if len(verdicts) == 1:  # the usual case, and a comparison is quicker than a look-up
        return [f"    ip daddr {prefix} {verdict}" for prefix, verdict in verdicts.items()]
    entries = ", ".join(f"{prefix} : {verdict}" for prefix, verdict in verdicts.items())
    return [f"    ip daddr vmap {{ {entries} }}"]


def _alive(gaps_s: Iterable[float]) -> list[str]:
    """The connections that have not paused, where leaves ask for that."""
    gap_s = next(iter(gaps_s), None)
    if gap_s is None:
        return []
    return [
        "  set alive {",
        f"    type {_FIVE_TUPLE}",
        f"    size {_MOST_ALIVE}",
        "    flags dynamic,timeout",
        f"    timeout {round(1000 * gap_s)}ms",
        "  }",
    ]


def _counted(rules: Sequence[Rule]) -> list[str]:
    """What the leaf's own hosts have sent by connection, and where connections were placed, where that is asked for."""
    if not any(isinstance(rule.action, Place) for rule in rules):
        return []
    hosts = ", ".join(str(rule.destination) for rule in rules if isinstance(rule.action, Deliver))
    return [
        f"  map {PLACED} {{ type {_FIVE_TUPLE} : mark; }}",
        f"  set {COUNTED} {{ type {_FIVE_TUPLE}; size {_MOST_ALIVE}; flags dynamic; counter; }}",
        "  chain count {",
        "    type filter hook prerouting priority mangle - 1; policy accept;",
        f"    ip saddr {{ {hosts} }} update @{COUNTED} {{ ip saddr . ip daddr . tcp sport . tcp dport }}",
        "  }",
    ]


def placement(marks: Mapping[FiveTuple, int]) -> str:
    """Write what has a leaf hold these placements and no others, in one transaction."""
    elements = ", ".join(
        f"{src} . {dst} . {sport} . {dport} : {mark}" for (src, dst, sport, dport), mark in marks.items()
    )
    added = f"add element ip fabric {PLACED} {{ {elements} }}\n" if elements else ""
    return f"flush map ip fabric {PLACED}\n{added}"


def _choice(tagged: Sequence[int], action: Hash | Rotate | Redraw | Place, seed: int) -> list[str]:
    """A tag names its spine; else something is known of the connection; else a hash decides.

    (A failed look-up ends its rule.)
    """
    spines = action.spines
    tags = ", ".join(f"{spine + 1} : {mark_of(spine)}" for spine in tagged)
    places = ", ".join(f"{place} : {mark_of(spine)}" for place, spine in enumerate(spines))
    spine = f"mod {len(spines)} seed {seed:#x} map {{ {places} }}"
    if isinstance(action, Redraw):
        draw = f"ct mark set numgen random mod {len(spines)} map {{ {places} }}"
        live = ", ".join(f"{mark_of(spine)} : {mark_of(spine)}" for spine in spines)
        known = [
            f"    ip saddr . ip daddr . tcp sport . tcp dport != @alive {draw}",
            "    update @alive { ip saddr . ip daddr . tcp sport . tcp dport }",
            f"    meta mark set ct mark map {{ {live} }} accept",
            f"    meta l4proto tcp {draw} meta mark set ct mark accept",
        ]
        kept = ""
    elif isinstance(action, Rotate):  # where its last packet went is the connection's own mark
        turns = ", ".join(f"{mark_of(last)} : {mark_of(spine)}" for last, spine in action.turns)
        known, kept = (
            [f"    ct mark set ct mark map {{ {turns} }} meta mark set ct mark accept"],
            " ct mark set meta mark",
        )
    else:
        known, kept = ["    meta mark set ip saddr . ip daddr . tcp sport . tcp dport map @connections accept"], ""
        if isinstance(action, Place):
            known.insert(0, f"    meta mark set ip saddr . ip daddr . tcp sport . tcp dport map @{PLACED} accept")
    ends = "ip saddr . ip daddr . th sport . th dport"
    return [
        f"    meta mark set ip dscp map {{ {tags} }} accept",
        *known,
        f"    meta l4proto {{ tcp, udp }} meta mark set jhash {ends} {spine}{kept} accept",
        f"    meta mark set jhash ip saddr . ip daddr {spine}{kept}",
    ]


def connection_marks(fabric: LeafSpine, connections: Sequence[Endpoints], seed: int) -> list[list[str]]:
    """Write, for each leaf, a line for each connection that crosses it upwards, either way: its mark under hashing."""
    lines: list[list[str]] = [[] for _ in range(fabric.leaves)]
    if not connections:
        return lines
    there = np.array(connections, dtype=np.intp)
    both_ways = np.concatenate([there, there[:, [1, 0, 3, 2]]])
    src, dst, src_port, dst_port = both_ways.T
    spines = hashed_spines(fabric, src, dst, src_port, dst_port, seed)
    address = [fabric.host_ip(host) for host in range(fabric.hosts)]
    for (sender, receiver, from_port, to_port), spine in zip(both_ways.tolist(), spines.tolist(), strict=True):
        leaf = fabric.leaf_of(sender)
        if leaf != fabric.leaf_of(receiver):
            ends = f"{address[sender]} . {address[receiver]} . {from_port} . {to_port}"
            lines[leaf].append(f"      {ends} : {mark_of(spine)}")
    return lines
