"""How bytes meet sockets: the flows of a schedule, split as a scheme says, and the connections that carry them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emulator.topology import LeafSpine
from traffic.schedule import Flow, Schedule

if TYPE_CHECKING:
    from traffic.schemes import Scheme

UNTAGGED = 0
FIRST_SOURCE_PORT = 10_000
LISTEN_PORT = 5000  # of every host


@dataclass(frozen=True, slots=True)
class Connection:
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
    connection: int
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class TrafficPlan:
    """What the sockets are to do: the pieces of every flow, and the connections that carry them.

    `hosts[r]` is the host of rank r. Pieces of one subflow are sent in the order listed.
    """

    schedule: Schedule
    hosts: Sequence[int]
    scheme: Scheme
    connections: Sequence[Connection] = field(repr=False)
    pieces: Sequence[Piece] = field(repr=False)

    @property
    def cut_flows(self) -> int:
        """Return how many flows are carried in more than one piece."""
        return sum(count > 1 for count in Counter(piece.flow for piece in self.pieces).values())


def cut(size_bytes: int, parts: int) -> list[int]:
    """Cut `size_bytes` in `parts` equal pieces, the remainder bytes in the last; empty pieces are left out."""
    each = size_bytes // parts
    sizes = [each] * (parts - 1) + [size_bytes - each * (parts - 1)]
    return [size for size in sizes if size > 0]


def plan_traffic(schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int], scheme: Scheme) -> TrafficPlan:
    """Split the flows of `schedule` as `scheme` does and give every piece its connection.

    Raises ValueError where a scheme that chooses spines finds none alive between two leaves.
    """
    lanes: dict[tuple[int, int, int, int, int], int] = {}
    tags: list[tuple[int, int, int]] = []  # (src host, dst host, path tag) of each subflow
    pieces: list[Piece] = []
    assigned = [*scheme.assign(schedule.own, fabric, hosts)]
    assigned += [_by_its_draw(flow, fabric, hosts) for flow in schedule.flows[len(assigned) :]]
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
    connections = []
    for number, (src_host, dst_host, tag) in enumerate(tags):
        connections.append(Connection(number, src_host, dst_host, ports[src_host], tag))
        ports[src_host] += 1
    return TrafficPlan(schedule, hosts, scheme, connections, pieces)


def _by_its_draw(flow: Flow, fabric: LeafSpine, hosts: Sequence[int]) -> list[tuple[int, int]]:
    """Another tenant's flow, whole on the spine that its draw picks, as a hash would."""
    leaves = fabric.leaf_of(hosts[flow.src]), fabric.leaf_of(hosts[flow.dst])
    spines = [] if leaves[0] == leaves[1] else fabric.live_spines(*leaves)
    tag = spines[(flow.drawn or 0) % len(spines)] + 1 if spines else UNTAGGED
    return [(tag, flow.size_bytes)]
