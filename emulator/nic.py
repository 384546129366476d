"""Packet spraying as a NIC does it: a fresh path tag in every packet that leaves a host for another leaf.

Written in nftables, in the sending host's own network namespace. Data and bare acknowledgements are counted apart: if
one counter served both, a host that alternates between them would send all its data over half of the paths.
"""

from __future__ import annotations

from collections.abc import Sequence

from emulator.nft import load
from emulator.topology import LeafSpine, Link
from traffic.schemes import SprayMode

_DATA_BYTES = 200  # an IP packet longer than this carries data


def spray_ruleset(
    fabric: LeafSpine, host: int, mode: SprayMode, seed: int, failed: frozenset[Link] = frozenset()
) -> str:
    """The nftables ruleset of one host. Round-robin starts at a place that host and seed decide."""
    leaf = fabric.leaf_of(host)
    tags = [f"  chain tag{spine + 1} {{ ip dscp set {spine + 1}; }}" for spine in range(fabric.spines)]
    chains, entries = [], []
    for other in range(fabric.leaves):
        spines = fabric.live_spines(leaf, other, failed)
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


def start_spraying(
    fabric: LeafSpine, host_pids: Sequence[int], mode: SprayMode, seed: int, failed: frozenset[Link] = frozenset()
) -> None:
    load({pid: spray_ruleset(fabric, host, mode, seed, failed) for host, pid in enumerate(host_pids)})


def stop_spraying(host_pids: Sequence[int]) -> None:
    load(dict.fromkeys(host_pids, "table ip spray\ndelete table ip spray\n"))
