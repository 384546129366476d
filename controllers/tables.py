"""Forwarding tables of leaves and spines: pure functions of the fabric, failed links and all, for any data plane.

A leaf's table: own hosts first; else a path tag sends the packet to that spine; else hash the 5-tuple over the spines,
or do what a scheme asks for instead.
A spine's table: one prefix a leaf, whatever has failed: no leaf sends it what it cannot pass on, and what was on its
way before they knew is lost on the link, where it is counted.
Rules are listed in falling priority: the first that matches decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from emulator.forwarding import Flowlets, Forwarding, Scheduling, Spraying
from emulator.topology import LeafSpine


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send to a host of this leaf, as a router does: with the host's MAC as destination."""

    host: int


@dataclass(frozen=True, slots=True)
class Uplink:
    """Send up to a spine."""

    spine: int


@dataclass(frozen=True, slots=True)
class Hash:
    """Send up to one of `spines`, chosen by a seeded hash of the 5-tuple."""

    spines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rotate:
    """Send each packet of a connection up to the next of `spines` in turn, beginning with the one that a hash picks."""

    spines: tuple[int, ...]

    @property
    def turns(self) -> list[tuple[int, int]]:
        """Return pairs of a spine and the one after it."""
        return list(zip(self.spines, (*self.spines[1:], *self.spines[:1]), strict=True))


@dataclass(frozen=True, slots=True)
class Redraw:
    """Send a connection up to a random one of `spines`, and to another draw whenever it has paused for `gap_s`."""

    spines: tuple[int, ...]
    gap_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """Send a connection up to the one of `spines` that it was placed on meanwhile, or else that a hash picks."""

    spines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Downlink:
    """Send down to a leaf."""

    leaf: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Discard."""


Action = Deliver | Uplink | Hash | Rotate | Redraw | Place | Downlink | Drop


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a table: IPv4 packets to `destination` (None: any) with DSCP `path_tag` (None: any) get `action`."""

    destination: str | None
    path_tag: int | None
    action: Action


def leaf_table(fabric: LeafSpine, leaf: int, forwarding: Forwarding | None = None) -> list[Rule]:
    """Return what a leaf does with packets; of the rules that fit one, the first counts.

    `forwarding` takes the place of the hash.
    """
    rules = [Rule(f"{fabric.host_ip(host)}/32", None, Deliver(host)) for host in fabric.hosts_of(leaf)]
    # Without this, a packet to an address nobody has would go round between leaf and spine for ever.
    rules.append(Rule(fabric.leaf_prefix(leaf), None, Drop()))
    if not fabric.failed:
        return rules + _upward(None, range(fabric.spines), forwarding)
    for other in range(fabric.leaves):
        if other != leaf:
            rules += _upward(fabric.leaf_prefix(other), fabric.live_spines(leaf, other), forwarding)
    return rules


def spine_table(fabric: LeafSpine) -> list[Rule]:
    """Return what every spine does with packets."""
    return [Rule(fabric.leaf_prefix(leaf), None, Downlink(leaf)) for leaf in range(fabric.leaves)]


def _upward(destination: str | None, spines: range | list[int], forwarding: Forwarding | None) -> list[Rule]:
    """A tag names its spine; without one, or when that spine is lost, the leaf decides among the live ones."""
    tagged = [Rule(destination, spine + 1, Uplink(spine)) for spine in spines]
    return [*tagged, Rule(destination, None, _untagged(tuple(spines), forwarding))]


def _untagged(spines: tuple[int, ...], forwarding: Forwarding | None) -> Action:
    if not spines:
        return Drop()
    match forwarding:
        case None:
            return Hash(spines)
        case Spraying():
            return Rotate(spines)
        case Flowlets(gap_s):
            return Redraw(spines, gap_s)
        case Scheduling():
            return Place(spines)
