"""Which host each rank lives on."""

from __future__ import annotations

from random import Random

from emulator.topology import LeafSpine

PLACEMENTS = ("packed", "interleaved", "random")


class PlacementError(ValueError):
    """An unknown placement, or more ranks than hosts; the message says what would be right."""


def place(kind: str, fabric: LeafSpine, ranks: int, seed: int = 0) -> list[int]:
    """Return the host of each rank, one rank a host.

    `packed`: rank r on host r. `interleaved`: consecutive ranks on different leaves, so that a ring crosses the fabric
    at every hop (the placement of arXiv 2407.00550); with two leaves and an odd number of ranks, one hop cannot.
    `random`: drawn from `seed`.
    """
    if kind not in PLACEMENTS:
        raise PlacementError(f"unknown placement '{kind}': use one of {', '.join(PLACEMENTS)}")
    if not 1 <= ranks <= fabric.hosts:
        raise PlacementError(
            f"{ranks} ranks do not fit on {fabric.hosts} hosts ({fabric.leaves} leaves x {fabric.hosts_per_leaf}): "
            f"use 1 to {fabric.hosts} ranks or a larger fabric"
        )
    if kind == "packed":
        return list(range(ranks))
    if kind == "random":
        return Random(seed).sample(range(fabric.hosts), ranks)
    leaves = [rank % fabric.leaves for rank in range(ranks)]
    if fabric.leaves > 2 and ranks > 1 and leaves[-1] == leaves[0]:
        leaves[-1] = 1  # else the last rank would close the ring inside the first one's leaf
    return [fabric.hosts_of(leaf)[rank // fabric.leaves] for rank, leaf in enumerate(leaves)]
