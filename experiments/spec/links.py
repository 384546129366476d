"""How an experiment names links of its fabric: one as `leaf1-spine2`, all of a spine as `spine2`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

from emulator.topology import LeafSpine, Link
from experiments.spec.messages import meant, shown


def link_named(name: str, fabric: LeafSpine) -> Link | None:
    """Return the link of that name; None where this fabric has none such."""
    match = re.fullmatch(r"leaf([1-9][0-9]{0,5})-spine([1-9][0-9]{0,5})", name)
    if not match:
        return None
    leaf, spine = int(match[1]) - 1, int(match[2]) - 1
    return (leaf, spine) if leaf < fabric.leaves and spine < fabric.spines else None


def no_link(name: str, fabric: LeafSpine) -> str:
    """Return a sentence on a name that no link has."""
    links = f"leaf1-spine1 to leaf{fabric.leaves}-spine{fabric.spines}"
    names = [f"{fabric.leaf_name(leaf)}-{fabric.spine_name(spine)}" for leaf, spine in fabric.links()]
    return f"{shown(name)} is no link of this fabric, which has {links}{meant(name, names)}"


def rates_by_spine(rates: object, fabric: LeafSpine) -> dict[str, object]:
    """Return rates by the names of spines, of a list of one for each or of a mapping. Raises ValueError."""
    if isinstance(rates, list | tuple):
        if len(rates) != fabric.spines:
            raise ValueError(
                f"{len(rates)} rates are not one for each of {fabric.spines} spines; write as many, or a mapping "
                "such as {spine1: 50%} of those that differ"
            )
        return {fabric.spine_name(spine): rate for spine, rate in enumerate(rates)}
    if not isinstance(rates, Mapping) or not rates:
        raise ValueError(f"{shown(rates)} is not a rate a spine: a list, or a mapping such as {{spine1: 50%}}")
    found: dict[str, object] = {}
    for given, rate in rates.items():
        spine = _spine_named(str(given), fabric)
        if spine is None:
            raise ValueError(_no_spine(given, fabric))
        if (name := fabric.spine_name(spine)) in found:
            raise ValueError(f"{name} is there twice; keep one")
        found[name] = rate
    return found


def links_failed(names: Sequence[str], fabric: LeafSpine) -> frozenset[Link]:
    """Return the links of `names`. Raises ValueError for one that is not there, and if two leaves are left no path."""
    failed: set[Link] = set()
    for name in names:
        if name.startswith("spine"):
            spine = _spine_named(name, fabric)
            if spine is None:
                raise ValueError(_no_spine(name, fabric))
            links = [(leaf, spine) for leaf in range(fabric.leaves)]
        else:
            link = link_named(name, fabric)
            if link is None:
                raise ValueError(no_link(name, fabric))
            links = [link]
        failed.update(links)
    left = fabric.without(failed)
    for leaf, other in combinations(range(fabric.leaves) if failed else (), 2):
        if not left.live_spines(leaf, other):
            raise ValueError(
                f"no spine is left between {fabric.leaf_name(leaf)} and {fabric.leaf_name(other)}; name fewer"
            )
    return frozenset(failed)


def _spine_named(name: str, fabric: LeafSpine) -> int | None:
    """Return the spine of a name such as spine2, or of its number alone; None where there is none."""
    match = re.fullmatch(r"(?:spine)?([1-9][0-9]{0,5})", name)
    return int(match[1]) - 1 if match and int(match[1]) <= fabric.spines else None


def _no_spine(name: object, fabric: LeafSpine) -> str:
    return f"{shown(name)} is no spine of this fabric, which has spine1 to spine{fabric.spines}"
