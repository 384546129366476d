"""How bytes meet paths: a schedule and a scheme become subflows with path tags.

Ethereal splits per step, sender and destination leaf, without coordination, over the s spines that are alive.

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
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

from emulator.inputs import quote
from emulator.topology import LeafSpine
from traffic.collectives.layout import ELEMENT_BYTES
from traffic.schedule import Schedule

UNTAGGED = 0
FIRST_SOURCE_PORT = 10_000
LISTEN_PORT = 5000  # of every host

SprayMode = Literal["round-robin", "random"]

SPRAY_MODES: dict[str, SprayMode] = {"spray": "round-robin", "spray-random": "random"}
"""What the sending hosts' NICs do to every packet, of the schemes where they do."""
_SUBFLOW = re.compile(r"subflow-([1-9][0-9]*)")
MAX_SUBFLOWS_PER_FLOW = 64

Split = list[tuple[int, int]]
"""A flow's pieces in the order of its bytes: where each goes (a spine, or its path tag) and its size in bytes."""


@dataclass(frozen=True, slots=True)
class Subflow:
    """One TCP connection; the DSCP value `path_tag` pins it to spine `path_tag - 1`, and 0 leaves it to the hash."""

    id: int
    src_host: int
    dst_host: int
    src_port: int
    path_tag: int


@dataclass(frozen=True, slots=True)
class Piece:
    """`size_bytes` of flow `flow` (from `offset_bytes` within it) carried by subflow `subflow`."""

    flow: int
    subflow: int
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class TrafficPlan:
    """What the sockets are to do: the pieces of every flow, and the connections that carry them.

    `hosts[r]` is the host of rank r. Pieces of one subflow are sent in the order listed.
    """

    schedule: Schedule
    hosts: Sequence[int]
    scheme: str
    subflows: Sequence[Subflow] = field(repr=False)
    pieces: Sequence[Piece] = field(repr=False)

    @property
    def spray_mode(self) -> SprayMode | None:
        """What the sending hosts' NICs do to every packet, or None."""
        return SPRAY_MODES.get(self.scheme)

    @property
    def cut_flows(self) -> int:
        """How many flows are carried in more than one piece."""
        return sum(count > 1 for count in Counter(piece.flow for piece in self.pieces).values())


def check_scheme(name: str) -> None:
    """Raise ValueError, naming what would be right, unless `name` is a scheme."""
    if name in ("ecmp", "ethereal") or name in SPRAY_MODES:
        return
    match = _SUBFLOW.fullmatch(name)
    if match and 2 <= int(match[1]) <= MAX_SUBFLOWS_PER_FLOW:
        return
    raise ValueError(
        f"unknown scheme {quote(name)}; known are ecmp, spray, spray-random, ethereal "
        f"and subflow-K with K from 2 to {MAX_SUBFLOWS_PER_FLOW}"
    )


def cut(size_bytes: int, parts: int) -> list[int]:
    """`size_bytes` in `parts` equal pieces, the remainder bytes in the last; empty pieces are left out."""
    each = size_bytes // parts
    sizes = [each] * (parts - 1) + [size_bytes - each * (parts - 1)]
    return [size for size in sizes if size > 0]


def ethereal_assignment(flows: int, spines: Sequence[int]) -> list[list[int]]:
    """For each of `flows` equal flows from one sender to one leaf, the spines its equal pieces take (one: whole)."""
    s = len(spines)
    left_over = flows % s
    pieces_each = s // math.gcd(left_over, s) if left_over else 1
    assignment, turn = [], 0
    for index in range(flows):
        parts = pieces_each if index >= flows - left_over else 1
        assignment.append([spines[(turn + part) % s] for part in range(parts)])
        turn += parts
    return assignment


def ethereal_splits(sizes_bytes: Sequence[int], spines: Sequence[int]) -> list[Split]:
    """The pieces of each of the flows from one sender to one leaf, and the spines they take."""
    if max(sizes_bytes) - min(sizes_bytes) > ELEMENT_BYTES:
        return _end_to_end(sizes_bytes, spines)
    paths = ethereal_assignment(len(sizes_bytes), spines)
    return [_equal_pieces(size_bytes, path) for size_bytes, path in zip(sizes_bytes, paths, strict=True)]


def _equal_pieces(size_bytes: int, path: Sequence[int]) -> Split:
    return list(zip(path, cut(size_bytes, len(path)), strict=False))  # fewer pieces than `path` if too few bytes


def _end_to_end(sizes_bytes: Sequence[int], spines: Sequence[int]) -> list[Split]:
    """Flows laid end to end and cut where the next spine's share begins."""
    s, ends = len(spines), list(accumulate(sizes_bytes))
    total, flow_ends = ends[-1], set(ends)
    cuts = []
    for spine in range(1, s + 1):
        before, after = total * spine // s, -(-total * spine // s)  # the bytes that the exact place lies between
        cuts.append(after if after in flow_ends else before)
    splits: list[Split] = [[] for _ in sizes_bytes]
    for start, stop in pairwise(sorted({0, *ends, *cuts})):
        splits[bisect_right(ends, start)].append((spines[bisect_right(cuts, start)], stop - start))
    return splits


def pieces_of_scheme(schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int], scheme: str) -> int:
    """The most pieces that `plan_traffic` would list, failed links aside."""
    if match := _SUBFLOW.fullmatch(scheme):
        return int(match[1]) * len(schedule.flows)
    if scheme != "ethereal":
        return len(schedule.flows)
    together: Counter[tuple[int, int, int]] = Counter()
    for flow in schedule.flows:
        leaf = fabric.leaf_of(hosts[flow.dst])
        if leaf != fabric.leaf_of(hosts[flow.src]):
            together[flow.step, flow.src, leaf] += 1
    # Of n flows to s spines, n + s - gcd(n, s) are pieces where sizes differ; of equal ones, r = n mod s are cut.
    s = fabric.spines
    groups = Counter(together.values()).items()
    cuts = sum(alike * max(s - 1, n % s * (s // math.gcd(n, s) - 1)) for n, alike in groups)
    return len(schedule.flows) + cuts


def plan_traffic(schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int], scheme: str) -> TrafficPlan:
    """Split the flows of `schedule` as `scheme` does and give every piece its connection.

    Raises ValueError for an unknown scheme, and where `failed` leaves two leaves without a common live spine.
    """
    check_scheme(scheme)
    lanes: dict[tuple[int, int, int, int, int], int] = {}
    tags: list[tuple[int, int, int]] = []  # (src host, dst host, path tag) of each subflow
    pieces: list[Piece] = []
    assigned = _assign(schedule, fabric, hosts, scheme)
    for flow in schedule.flows:
        offset = 0
        for index, (tag, size) in enumerate(assigned[flow.id]):
            lane = (flow.src, flow.dst, flow.channel, tag, index if tag == UNTAGGED else 0)
            if lane not in lanes:
                lanes[lane] = len(tags)
                tags.append((hosts[flow.src], hosts[flow.dst], tag))
            pieces.append(Piece(flow.id, lanes[lane], offset, size))
            offset += size
    ports: dict[int, int] = defaultdict(lambda: FIRST_SOURCE_PORT)
    subflows = []
    for number, (src_host, dst_host, tag) in enumerate(tags):
        subflows.append(Subflow(number, src_host, dst_host, ports[src_host], tag))
        ports[src_host] += 1
    return TrafficPlan(schedule, hosts, scheme, subflows, pieces)


def _assign(schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int], scheme: str) -> list[Split]:
    """The path tag and the size of every piece of every flow."""
    subflow_k = _SUBFLOW.fullmatch(scheme)
    untagged = [UNTAGGED] * (int(subflow_k[1]) if subflow_k else 1)
    assigned = [_equal_pieces(flow.size_bytes, untagged) for flow in schedule.flows]
    if scheme != "ethereal":
        return assigned
    together: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for flow in schedule.flows:
        leaf = fabric.leaf_of(hosts[flow.dst])
        if leaf != fabric.leaf_of(hosts[flow.src]):
            together[flow.step, flow.src, leaf].append(flow.id)
    for (_, src, leaf), flow_ids in together.items():
        spines = fabric.live_spines(fabric.leaf_of(hosts[src]), leaf)
        if not spines:
            raise ValueError(
                f"no spine is left between {fabric.leaf_name(fabric.leaf_of(hosts[src]))} and "
                f"{fabric.leaf_name(leaf)}: fail fewer links"
            )
        # Senders begin at different spines: they start together, and would all send their first packet to the same.
        first = hosts[src] % len(spines)
        turn = spines[first:] + spines[:first]
        sizes_bytes = [schedule.flows[flow_id].size_bytes for flow_id in flow_ids]
        for flow_id, split in zip(flow_ids, ethereal_splits(sizes_bytes, turn), strict=True):
            assigned[flow_id] = [(spine + 1, size_bytes) for spine, size_bytes in split]
    return assigned
