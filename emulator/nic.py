"""What a host's NIC can do to the packets that leave it, for senders that know nothing of paths: tag them with one.

`PerPacket` gives each packet that leaves for another leaf a tag of its own; `SingleFrames` leaves that to the leaf, and
sees to it that packets are single. `PerConnection` gives one to each connection, round-robin over the paths to each
leaf, which keeps it; what answers a connection takes the path it came by, as under Ethereal (arXiv 2407.00550), but no
connection is split.

Written in nftables, in the sending host's own network namespace. Data and bare acknowledgements are sprayed
by counters of their own: if one served both, a host that alternates between them would send all its data over half of
the paths. What is `weighted` has paths come as often as the rates of their links say: see `emulator.weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from emulator.nft import load
from emulator.topology import LeafSpine

if TYPE_CHECKING:
    from emulator.fabric import Fabric

_DATA_BYTES = 200  # an IP packet longer than this carries data

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
