"""Ethereal: a single path per connection and minimal splitting, by the senders alone.

It splits per step, sender and destination leaf, without coordination, over the s spines that are alive.

- **Equal flows** are dealt by the rule of arXiv 2407.00550 (Ethereal). Of n flows the first n - (n mod s) go whole,
  round-robin over the spines; each of the r = n mod s left is cut into s / gcd(r, s) equal pieces that continue the
  round-robin. Every spine then carries n/s flows' worth of bytes, as under ideal packet spraying. No split that does so
  cuts fewer flows, and none that cuts them all alike makes fewer pieces; of unequal sizes, n + s - gcd(n, s) would do.
  Flows that differ by an element at most, as a collective's do whose message does not divide, count as equal: spines
  then differ by as much for each of their flows, but to level that would take pieces of a few bytes.
- **Flows of other sizes** are our addition: dealt by number, they would give the spine of the largest more than its
  share. They are laid end to end, in the schedule's order, and cut where a spine has its share: s - 1 cuts at most,
  each less than a byte from a multiple of total/s, so that every spine is within two bytes of its share. Fewer pieces
  would do only where some of the flows add up to whole shares. A cut that may fall on a flow's end does.

No piece is empty, a flow of no bytes has none, and no flow has two on one spine.

**Weighted**, for spines of rates that differ, is our addition too. Spine i, of weight w(i) out of W, is to carry its
share w(i)/W. Of n equal flows, floor(n w(i) / W) go whole to it, dealt in a turn of all spines by weight. The others,
fewer than s, are the first: laid end to end and cut where a spine has what is left of its share, as flows of other
sizes all are. That is s - 1 cuts at most, and every spine has its share to a byte or two. With equal weights, it is as
above.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, pairwise

from emulator.nic import PerConnection
from emulator.topology import LeafSpine
from emulator.weights import turn
from traffic.collectives.layout import ELEMENT_BYTES
from traffic.schedule import Schedule
from traffic.schemes.scheme import ForPrograms, Look, Scheme, Split, equal_pieces


@dataclass(frozen=True, eq=False, kw_only=True)
class Ethereal(Scheme):
    """Senders deal their flows to each leaf round-robin over the spines, and cut the few that are left over."""

    def assign(self, schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]) -> list[Split]:
        assigned = super().assign(schedule, fabric, hosts)
        for (_, src, leaf), flow_ids in _to_other_leaves(schedule, fabric, hosts).items():
            spines = fabric.live_spines(fabric.leaf_of(hosts[src]), leaf)
            if not spines:
                raise ValueError(
                    f"no spine is left between {fabric.leaf_name(fabric.leaf_of(hosts[src]))} and "
                    f"{fabric.leaf_name(leaf)}: fail fewer links"
                )
            # Senders begin at different spines: they start together, and would all send their first packet to the same.
            first = hosts[src] % len(spines)
            order = [*spines[first:], *spines[:first]]
            sizes_bytes = [schedule.flows[flow_id].size_bytes for flow_id in flow_ids]
            splits = split(sizes_bytes, order, fabric.weights(order) if self.weighted else None)
            for flow_id, pieces in zip(flow_ids, splits, strict=True):
                assigned[flow_id] = [(spine + 1, size_bytes) for spine, size_bytes in pieces]
        return assigned

    def tags(self, flows: int, spines: Sequence[int]) -> list[list[int]]:
        return [[spine + 1 for spine in path] for path in deal(flows, spines)]

    def most_pieces(self, schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]) -> int:
        # Of n flows to s spines, n + s - gcd(n, s) are pieces where sizes differ; of equal ones, r = n mod s are cut.
        s = fabric.spines
        groups = Counter(map(len, _to_other_leaves(schedule, fabric, hosts).values())).items()
        cuts = sum(alike * max(s - 1, n % s * (s // math.gcd(n, s) - 1)) for n, alike in groups)
        return len(schedule.flows) + cuts


ETHEREAL = Ethereal(
    name="ethereal",
    says="each connection stays on the spine its sender chose; few flows are split, all spines carry alike",
    look=Look("#009E73", "^", "solid"),
    role="splitting",
    acts="in senders, which split and tag connections",
    source="arXiv 2407.00550 (Ethereal)",
    for_programs=ForPrograms("each connection gets the next path to its leaf in turn", PerConnection()),
)


ETHEREAL_WEIGHTED = Ethereal(
    name="ethereal-weighted",
    says="as ethereal, with spines dealt and filled as the rates of their links say",
    look=Look("#5B8C2A", "<", (0, (8, 3))),
    role="splitting",
    acts="in senders, which split and tag connections, and know the fabric's rates",
    source="this project; by the rule of arXiv 2407.00550 (Ethereal)",
    for_programs=ForPrograms("each connection gets a path in turn, by weight", PerConnection(weighted=True)),
    weighted=True,
)


def _to_other_leaves(
    schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]
) -> dict[tuple[int, int, int], list[int]]:
    """The flows that are split together: those of each step, sender and leaf that is not the sender's."""
    together: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for flow in schedule.flows:
        leaf = fabric.leaf_of(hosts[flow.dst])
        if leaf != fabric.leaf_of(hosts[flow.src]):
            together[flow.step, flow.src, leaf].append(flow.id)
    return together


def deal(flows: int, spines: Sequence[int]) -> list[list[int]]:
    """For each of `flows` equal flows from one sender to one leaf, the spines its equal pieces take (one: whole)."""
    s = len(spines)
    left_over = flows % s
    pieces_each = s // math.gcd(left_over, s) if left_over else 1
    paths, turn = [], 0
    for index in range(flows):
        parts = pieces_each if index >= flows - left_over else 1
        paths.append([spines[(turn + part) % s] for part in range(parts)])
        turn += parts
    return paths


def split(sizes_bytes: Sequence[int], spines: Sequence[int], weights: Sequence[int] | None = None) -> list[Split]:
    """The pieces of each of the flows from one sender to one leaf, and the spines they take; alike, or by `weights`."""
    weights = weights or [1] * len(spines)
    if max(sizes_bytes) - min(sizes_bytes) > ELEMENT_BYTES:
        return _end_to_end(sizes_bytes, spines, weights)
    if len(set(weights)) > 1:
        return _by_weight(sizes_bytes, spines, weights)
    paths = deal(len(sizes_bytes), spines)
    return [equal_pieces(size_bytes, path) for size_bytes, path in zip(sizes_bytes, paths, strict=True)]


def _by_weight(sizes_bytes: Sequence[int], spines: Sequence[int], weights: Sequence[int]) -> list[Split]:
    """Of equal flows, so many whole ones to each spine as its share holds; the others, end to end over what is left.

    These go first: behind whole flows, whose windows fill the NIC's queue, a slow spine that has no whole flow would be
    idle at the beginning, and its share is for all of the time.
    """
    count, total = len(sizes_bytes), sum(weights)
    room = {spine: count * weight // total for spine, weight in zip(spines, weights, strict=True)}
    left = [count * weight % total for weight in weights]
    whole: list[int] = []
    turns = cycle(turn(spines, weights))
    while any(room.values()):
        if room[spine := next(turns)]:
            room[spine] -= 1
            whole.append(spine)
    cut_bytes, whole_bytes = sizes_bytes[: count - len(whole)], sizes_bytes[count - len(whole) :]
    first = _end_to_end(cut_bytes, spines, left) if cut_bytes else []
    return first + [[(spine, size)] if size else [] for spine, size in zip(whole, whole_bytes, strict=True)]


def _end_to_end(sizes_bytes: Sequence[int], spines: Sequence[int], shares: Sequence[int]) -> list[Split]:
    """Flows laid end to end and cut where the next spine's share begins."""
    ends, of_all = list(accumulate(sizes_bytes)), sum(shares)
    total, flow_ends = ends[-1], set(ends)
    cuts = []
    for share in accumulate(shares[:-1]):
        before, after = total * share // of_all, -(-total * share // of_all)  # the exact place lies between these bytes
        cuts.append(after if after in flow_ends else before)
    splits: list[Split] = [[] for _ in sizes_bytes]
    for start, stop in pairwise(sorted({0, *ends, *cuts})):
        splits[bisect_right(ends, start)].append((spines[bisect_right(cuts, start)], stop - start))
    return splits
