"""Tree algorithms: chunks flow through binary trees, one behind the other.

The trees are NCCL's: ranks 1 .. n-1 in order in a binary tree that hangs from rank 0. A second tree, mirrored (n even)
or shifted by one rank (n odd), makes the inner ranks of one the leaves of the other, so that together they use the
bandwidth of all (Sanders, Speck and Träff, Parallel Computing 35(12), 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from traffic.collectives.collective import Chunks, algorithm
from traffic.collectives.draft import PIPELINE_CHUNKS, Draft
from traffic.collectives.kinds import ALLREDUCE, BROADCAST


@dataclass(frozen=True)
class Tree:
    """`parents[rank]`, None for the root."""

    parents: tuple[int | None, ...]

    @cached_property
    def edges_down(self) -> list[tuple[int, int, int]]:
        """Return (parent, child, hops from the root to the parent), nearest the root first."""
        children: list[list[int]] = [[] for _ in self.parents]
        for rank, parent in enumerate(self.parents):
            if parent is not None:
                children[parent].append(rank)
        edges: list[tuple[int, int, int]] = []
        level, depth = [self.parents.index(None)], 0
        while level:
            edges += [(parent, child, depth) for parent in level for child in children[parent]]
            level, depth = [child for parent in level for child in children[parent]], depth + 1
        return edges

    @cached_property
    def heights(self) -> list[int]:
        """Return hops from each rank to the furthest leaf below it."""
        heights = [0] * len(self.parents)
        for parent, child, _ in reversed(self.edges_down):
            heights[parent] = max(heights[parent], heights[child] + 1)
        return heights


def binary_tree(ranks: int) -> Tree:
    """Ranks 1 .. n-1 in order in a binary tree as full as it can be from the left, hung from rank 0."""
    parents: list[int | None] = [None] * ranks

    def hang(below: range, parent: int) -> None:
        if below:
            root = below.start + (1 << (len(below).bit_length() - 1)) - 1
            parents[root] = parent
            hang(range(below.start, root), root)
            hang(range(root + 1, below.stop), root)

    hang(range(1, ranks), 0)
    return Tree(tuple(parents))


def double_binary_tree(ranks: int) -> tuple[Tree, Tree]:
    """Return the binary tree, and the one whose inner ranks are the first one's leaves."""
    first = binary_tree(ranks)
    new_rank = [(rank + 1) % ranks for rank in range(ranks)] if ranks % 2 else list(reversed(range(ranks)))
    parents: list[int | None] = [None] * ranks
    for rank, parent in enumerate(first.parents):
        parents[new_rank[rank]] = None if parent is None else new_rank[parent]
    return first, Tree(tuple(parents))


@algorithm(ALLREDUCE, "double-binary-tree", flows=lambda n, chunks: 4 * (n - 1) * chunks)
def allreduce(draft: Draft, *, chunks: Chunks = PIPELINE_CHUNKS) -> None:
    """Half the message up and down each of the two trees: 2(n-1) times the message in all."""
    draft.require_pieces(channels=draft.channels, trees=2, chunks=chunks)
    trees = double_binary_tree(draft.ranks)
    for channel, part in enumerate(draft.divide(draft.message, draft.channels)):
        for tree, half in zip(trees, draft.divide(part, 2), strict=True):
            for place, chunk in enumerate(draft.divide(half, chunks)):
                for parent, child, depth in tree.edges_down:
                    up = place + tree.heights[child]
                    down = place + max(tree.heights) + depth
                    draft.send(up, child, parent, chunk, channel=channel, reduce=True)
                    draft.send(down, parent, child, chunk, channel=channel)


@algorithm(BROADCAST, "tree", flows=lambda n, chunks: (n - 1) * chunks)
def broadcast(draft: Draft, *, chunks: Chunks = PIPELINE_CHUNKS) -> None:
    """From rank 0 down the binary tree: at most twice the message from any rank."""
    draft.require_pieces(channels=draft.channels, chunks=chunks)
    tree = binary_tree(draft.ranks)
    for channel, part in enumerate(draft.divide(draft.message, draft.channels)):
        for place, chunk in enumerate(draft.divide(part, chunks)):
            for parent, child, depth in tree.edges_down:
                draft.send(place + depth, parent, child, chunk, channel=channel)
