"""What a host's NIC can do to the packets that leave it, for senders that know nothing of paths: tag them with one.

`PerPacket` gives each packet that leaves for another leaf a tag of its own; `SingleFrames` leaves that to the leaf, and
sees to it that packets are single. `PerConnection` gives one to each connection, round-robin over the paths to each
leaf, which keeps it; what answers a connection takes the path it came by, as under Ethereal (arXiv 2407.00550), but no
connection is split. `PerCell` has each connection go on to the next path after so many bytes.

Written in nftables, in the sending host's own network namespace. Data and bare acknowledgements are sprayed
by counters of their own: if one served both, a host that alternates between them would send all its data over half of
the paths. What is `weighted` has paths come as often as the rates of their links say: see `emulator.weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from emulator.namespaces import inside, set_sysctls
from emulator.nft import load
from emulator.topology import IP_TCP_HEADER_BYTES, LeafSpine

if TYPE_CHECKING:
    from emulator.fabric import Fabric

_DATA_BYTES = 200  # an IP packet longer than this carries data

LATE_IS_VALID = {"net.netfilter.nf_conntrack_tcp_be_liberal": "1"}
"""What is late, as packets on paths of their own are, still belongs to its connection. There once a ruleset tracks."""

TIMESTAMPS = "net.ipv4.tcp_timestamps"

Order = Literal["round-robin", "random"]
"""How a packet's path is chosen among those to its leaf."""


class Nic(Protocol):
    """What hosts' NICs do to packets, for as long as the context lasts."""

    def at_work(self, fabric: Fabric, seed: int) -> AbstractContextManager[None]:
        """Set every host's NIC to work. Raises EmulatorError."""


def at_work(nic: Nic | None, fabric: Fabric, seed: int) -> AbstractContextManager[None]:
    """Meanwhile, every host's NIC does what `nic` does; None: packets leave as they are. Raises EmulatorError."""
    return nic.at_work(fabric, seed) if nic else nullcontext()


@dataclass(frozen=True)
class SingleFrames:
    """Every frame travels alone, and has no tag: for switches that give each a path of its own."""

    @contextmanager
    def at_work(self, fabric: Fabric, seed: int) -> Iterator[None]:
        fabric.burst(1)
        try:
            yield
        finally:
            fabric.burst(fabric.topology.burst_frames)


@dataclass(frozen=True)
class Unstamped:
    """Hosts' TCP has no timestamps (RFC 7323), besides what `nic` does: for connections that change paths.

    A receiver discards what is over a tick, 1 ms, older than what it has in order. A segment sent again by a quicker
    way makes that of all that is still under way on a slower one once queues differ by milliseconds, as they do at a
    thousandth of a data centre's rates and not at those; where that meets the last segments, only a time-out helps.
    Connections here carry too little for sequence numbers to come round.
    """

    nic: Nic | None = None

    @contextmanager
    def at_work(self, fabric: Fabric, seed: int) -> Iterator[None]:
        _tell_hosts(fabric, {TIMESTAMPS: "0"})
        try:
            with at_work(self.nic, fabric, seed):
                yield
        finally:
            _tell_hosts(fabric, {TIMESTAMPS: "1"})  # as a new namespace has it


@dataclass(frozen=True)
class PerPacket:
    """Every frame that leaves a host for another leaf takes a path of its own, and so travels alone.

    `but_tagged`: those that have a path keep it.
    """

    order: Order
    but_tagged: bool = False
    weighted: bool = False

    @contextmanager
    def at_work(self, fabric: Fabric, seed: int) -> Iterator[None]:
        def ruleset(host: int) -> str:
            how = {"but_tagged": self.but_tagged, "weighted": self.weighted}
            return spray_ruleset(fabric.topology, host, self.order, seed, **how)

        with SingleFrames().at_work(fabric, seed), _loaded(fabric, "spray", ruleset):
            yield


@dataclass(frozen=True)
class PerConnection:
    """Every connection that a host begins takes the next path in turn.

    Those from each of `ports`, ranges of a first and a last source port, take turns of their own, each of which begins
    a path further than that of the range before: subflows that differ in it then differ in path.
    """

    ports: tuple[tuple[int, int], ...] = ()
    weighted: bool = False

    @contextmanager
    def at_work(self, fabric: Fabric, seed: int) -> Iterator[None]:
        def ruleset(host: int) -> str:
            return connection_ruleset(fabric.topology, host, seed, self.ports, weighted=self.weighted)

        with _loaded(fabric, "connections", ruleset):
            yield


@dataclass(frozen=True)
class PerCell:
    """Every connection takes the next path in turn after `cell_bytes`, counted in full frames, which travel alone.

    Connections to a leaf begin on one path after the other. `but_tagged`: what has a path keeps it.
    """

    cell_bytes: int
    but_tagged: bool = False

    def frames(self, fabric: LeafSpine) -> int:
        """Return how many frames a cell has."""
        return max(1, round(self.cell_bytes / (fabric.mtu_bytes - IP_TCP_HEADER_BYTES)))

    @contextmanager
    def at_work(self, fabric: Fabric, seed: int) -> Iterator[None]:
        topology, frames = fabric.topology, self.frames(fabric.topology)
        with (
            SingleFrames().at_work(fabric, seed),
            _loaded(
                fabric,
                "cells",
                lambda host: cell_ruleset(topology, host, frames, seed, but_tagged=self.but_tagged),
            ),
        ):
            _tell_hosts(fabric, LATE_IS_VALID)
            yield


def _tell_hosts(fabric: Fabric, sysctls: Mapping[str, str]) -> None:
    """Set these in every host's namespace."""
    for pid in fabric.host_pids:
        with inside(pid):
            set_sysctls(sysctls)


@contextmanager
def _loaded(fabric: Fabric, table: str, ruleset: Callable[[int], str]) -> Iterator[None]:
    """Meanwhile, every host has its ruleset, which makes that table."""
    pids = fabric.host_pids
    load({pid: ruleset(host) for host, pid in enumerate(pids)})
    try:
        yield
    finally:
        load(dict.fromkeys(pids, f"table ip {table}\ndelete table ip {table}\n"))


def spray_ruleset(
    fabric: LeafSpine, host: int, order: Order, seed: int, *, but_tagged: bool = False, weighted: bool = False
) -> str:
    """The nftables ruleset of one host. Round-robin starts at a place that host and seed decide."""
    leaf = fabric.leaf_of(host)
    tags = [f"  chain tag{spine + 1} {{ ip dscp set {spine + 1}; }}" for spine in range(fabric.spines)]
    chains, entries = [], []
    for other in range(fabric.leaves):
        spines = fabric.live_spines(leaf, other)
        if other == leaf or not spines:
            continue
        entries.append(f"{fabric.leaf_prefix(other)} : goto leaf{other + 1}")
        chains.append(f"  chain leaf{other + 1} {{")
        places = fabric.turn(spines) if weighted else spines
        for condition in (f"meta length > {_DATA_BYTES} ", ""):
            chains.append(f"    {condition}{_choice(places, order, seed + host)}")
        chains.append("  }")
    choose_leaf = [f"    ip daddr vmap {{ {', '.join(entries)} }}"] if entries else []
    return "\n".join(
        [
            "table ip spray",
            "delete table ip spray",
            "table ip spray {",
            *tags,
            *chains,
            "  chain out {",
            "    type filter hook postrouting priority 0; policy accept;",
            *(["    ip dscp != 0 accept"] if but_tagged else []),
            *choose_leaf,
            "  }",
            "}",
            "",
        ]
    )


def _choice(spines: Sequence[int], order: Order, start: int) -> str:
    """(A `dscp set` that takes its value from a map is refused by nftables 1.0.6; a verdict map is not.)"""
    number = "inc" if order == "round-robin" else "random"
    turn = [spines[(start + step) % len(spines)] for step in range(len(spines))]
    verdicts = ", ".join(f"{step} : goto tag{spine + 1}" for step, spine in enumerate(turn))
    return f"numgen {number} mod {len(spines)} vmap {{ {verdicts} }}"


def _deal(spines: Sequence[int], start: int) -> str:
    """(A connection is new until it is answered, and its first packet may be sent again.)"""
    turn = [spines[(start + step) % len(spines)] for step in range(len(spines))]
    marks = ", ".join(f"{step} : {spine + 1}" for step, spine in enumerate(turn))
    return f"ct state new ct mark 0 ct mark set numgen inc mod {len(spines)} map {{ {marks} }}"


def connection_ruleset(
    fabric: LeafSpine, host: int, seed: int, ports: Sequence[tuple[int, int]] = (), *, weighted: bool = False
) -> str:
    """The nftables ruleset of one host; round-robin over the paths to each leaf, from where host and seed decide.

    The tag is kept as the connection's mark. A connection that comes in has its tag from whoever began it.
    """
    leaf, spines = fabric.leaf_of(host), range(fabric.spines)
    tags = [f"  chain tag{spine + 1} {{ ip dscp set {spine + 1}; }}" for spine in spines]
    chains, entries = [], []
    for other in range(fabric.leaves):
        live = fabric.live_spines(leaf, other)
        if other == leaf or not live:
            continue
        entries.append(f"{fabric.leaf_prefix(other)} : goto leaf{other + 1}")
        places = fabric.turn(live) if weighted else live
        chains += [
            f"  chain leaf{other + 1} {{",
            *(
                f"    tcp sport {first}-{last} {_deal(places, seed + host + further)}"
                for further, (first, last) in enumerate(ports)
            ),
            f"    {_deal(places, seed + host)}",
            f"    ct mark vmap {{ {', '.join(f'{spine + 1} : goto tag{spine + 1}' for spine in live)} }}",
            "  }",
        ]
    choose_leaf = [f"    ip daddr vmap {{ {', '.join(entries)} }}"] if entries else []
    kept = ", ".join(f"{spine + 1} : {spine + 1}" for spine in spines)
    return "\n".join(
        [
            "table ip connections",
            "delete table ip connections",
            "table ip connections {",
            *tags,
            *chains,
            "  chain in {",
            "    type filter hook input priority 0; policy accept;",
            f"    ct state new ct mark 0 ct mark set ip dscp map {{ {kept} }}",
            "  }",
            "  chain out {",
            "    type filter hook postrouting priority 0; policy accept;",
            *choose_leaf,
            "  }",
            "}",
            "",
        ]
    )


def cell_ruleset(fabric: LeafSpine, host: int, frames: int, seed: int, *, but_tagged: bool = False) -> str:
    """The nftables ruleset of one host. A connection's mark counts its packets round, from 1 to `frames` a live path.

    Leaves that the same paths lead to have a chain in common.
    """
    leaf = fabric.leaf_of(host)
    tags = [f"  chain tag{spine + 1} {{ ip dscp set {spine + 1}; }}" for spine in range(fabric.spines)]
    live = {other: tuple(fabric.live_spines(leaf, other)) for other in range(fabric.leaves) if other != leaf}
    names = {spines: f"over{number + 1}" for number, spines in enumerate(dict.fromkeys(filter(None, live.values())))}
    chains = []
    for spines, name in names.items():
        last = frames * len(spines)
        begin = ", ".join(
            f"{step} : {frames * ((seed + host + step) % len(spines)) + 1}" for step in range(len(spines))
        )
        onward = ", ".join(f"{mark} : {mark % last + 1}" for mark in range(1, last + 1))
        cells = ", ".join(
            f"{frames * place + 1}-{frames * (place + 1)} : goto tag{spine + 1}" for place, spine in enumerate(spines)
        )
        chains += [
            f"  chain {name} {{",
            f"    ct mark 0 ct mark set numgen inc mod {len(spines)} map {{ {begin} }}",
            f"    ct mark set ct mark map {{ {onward} }}",
            f"    ct mark vmap {{ {cells} }}",
            "  }",
        ]
    entries = ", ".join(
        f"{fabric.leaf_prefix(other)} : goto {names[spines]}" for other, spines in live.items() if spines
    )
    return "\n".join(
        [
            "table ip cells",
            "delete table ip cells",
            "table ip cells {",
            *tags,
            *chains,
            "  chain out {",
            "    type filter hook postrouting priority 0; policy accept;",
            *(["    ip dscp != 0 accept"] if but_tagged else []),
            *([f"    ip daddr vmap {{ {entries} }}"] if entries else []),
            "  }",
            "}",
            "",
        ]
    )
