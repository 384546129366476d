"""What a NIC does for programs that know nothing of paths: a tag in every packet that leaves a host for another leaf.

Under spraying, each packet gets a fresh one; under single path, each connection gets one, round-robin over the paths to
each leaf, and keeps it; what answers a connection takes the path it came by, as under Ethereal (arXiv 2407.00550), but
no connection is split.

Written in nftables, in the sending host's own network namespace. Data and bare acknowledgements are sprayed
by counters of their own: if one served both, a host that alternates between them would send all its data over half of
the paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from emulator.nft import load
from emulator.topology import LeafSpine
from traffic.schemes import SPRAY_MODES, SprayMode

if TYPE_CHECKING:
    from emulator.fabric import Fabric

_DATA_BYTES = 200  # an IP packet longer than this carries data


def spray_ruleset(fabric: LeafSpine, host: int, mode: SprayMode, seed: int) -> str:
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
        for condition in (f"meta length > {_DATA_BYTES} ", ""):
            chains.append(f"    {condition}{_choice(spines, mode, seed + host)}")
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
            *choose_leaf,
            "  }",
            "}",
            "",
        ]
    )


def _choice(spines: Sequence[int], mode: SprayMode, start: int) -> str:
    """(A `dscp set` that takes its value from a map is refused by nftables 1.0.6; a verdict map is not.)"""
    number = "inc" if mode == "round-robin" else "random"
    turn = [spines[(start + step) % len(spines)] for step in range(len(spines))]
    verdicts = ", ".join(f"{step} : goto tag{spine + 1}" for step, spine in enumerate(turn))
    return f"numgen {number} mod {len(spines)} vmap {{ {verdicts} }}"


@contextmanager
def spraying(fabric: Fabric, mode: SprayMode | None, seed: int) -> Iterator[None]:
    """Meanwhile, every frame that leaves a host for another leaf takes a path of its own; without a mode, none does."""
    if mode is None:
        yield
        return
    topology, pids = fabric.topology, fabric.host_pids
    fabric.burst(1)
    load({pid: spray_ruleset(topology, host, mode, seed) for host, pid in enumerate(pids)})
    try:
        yield
    finally:
        load(dict.fromkeys(pids, "table ip spray\ndelete table ip spray\n"))
        fabric.burst(topology.burst_frames)


@contextmanager
def path_per_connection(fabric: Fabric, seed: int) -> Iterator[None]:
    """Meanwhile, every connection that a host begins takes the next path in turn."""
    topology, pids = fabric.topology, fabric.host_pids
    load({pid: connection_ruleset(topology, host, seed) for host, pid in enumerate(pids)})
    try:
        yield
    finally:
        load(dict.fromkeys(pids, "table ip connections\ndelete table ip connections\n"))


def connection_ruleset(fabric: LeafSpine, host: int, seed: int) -> str:
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
        turn = [live[(seed + host + step) % len(live)] for step in range(len(live))]
        marks = ", ".join(f"{step} : {spine + 1}" for step, spine in enumerate(turn))
        chains += [
            f"  chain leaf{other + 1} {{",
            # A connection is new until it is answered, and its first packet may be sent again.
            f"    ct state new ct mark 0 ct mark set numgen inc mod {len(live)} map {{ {marks} }}",
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


def nic_scheme(fabric: Fabric, scheme: str, seed: int) -> AbstractContextManager[None]:
    """Meanwhile, the hosts' NICs do to unmodified programs what `scheme` does: nothing under ecmp."""
    if scheme in SPRAY_MODES:
        return spraying(fabric, SPRAY_MODES[scheme], seed)
    if scheme == "ethereal":
        return path_per_connection(fabric, seed)
    return nullcontext()
