"""The least completion time any scheme could reach: what the wires alone demand of a schedule.

Why nothing can beat it. Every byte of a flow crosses its sender's link, its receiver's link and, between leaves, the
uplinks of one leaf and the downlinks of the other. Call each host link direction a resource, and all live uplinks
(downlinks) of a leaf together another, at their summed rate: no scheme can do better than keep them all busy. Then

- a flow cannot start before its head: its start time, and the completion of all it waits for;
- after it ends, at least its tail must pass: what waits for it, and what waits for that;
- so, for any resource and any set of flows crossing it, CCT >= least head + summed bytes / rate + least tail.

Heads and tails are found by the same rule, over the flows that one flow waits for and over those that wait together.
A computation is a flow over a resource of its own, which it fills for its seconds: so the bound is the longest chain of
computations and of what the wires demand between them.
The largest value over all sets is the length of Jackson's preemptive schedule of one machine (J. Carlier, "The
one-machine sequencing problem", European Journal of Operational Research 11, 1982), found without trying the sets.

For flows without dependencies this is the largest of bytes sent per host / host rate, received per host / host rate,
and leaf up (down) bytes / the rates of its links together; for steps that follow one another, the longest chain of such
steps. Propagation, store-and-forward, acknowledgements and connection set-up only add to it and are not in it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence

from emulator.topology import LeafSpine
from traffic.schedule import Schedule

Resource = tuple[str, int, int]
Demand = list[tuple[Resource, float]]
"""The resources a flow crosses, and for how many seconds it would fill each if alone there."""


def bound_s(schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]) -> float:
    """Lower bound in seconds on the CCT of `schedule` under any scheme, from the earliest `start_s` on.

    `hosts[r]` is the host of rank r. Raises ValueError where `failed` leaves two leaves without a common live spine.
    """
    tasks = schedule.tasks
    if not tasks:
        return 0.0
    demands = _demands(schedule, fabric, hosts)
    demands += [[(("compute", compute.id, 0), compute.seconds)] for compute in schedule.computes]
    origin_s = schedule.origin_s
    earliest_s = [*(flow.start_s - origin_s for flow in schedule.flows), *(0.0 for _ in schedule.computes)]

    # Tasks that wait for the same are released together. The order has a task after all it waits for, so the keys are
    # in an order in which heads can be found, and reversed, tails.
    released: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for id in schedule.order:
        released[tasks[id].waits_for].append(id)

    alone_s = [max((seconds for _, seconds in demand), default=0.0) for demand in demands]
    release_s: dict[tuple[int, ...], float] = {}
    heads = [0.0] * len(tasks)
    for id in schedule.order:
        awaited = tasks[id].waits_for
        if len(awaited) == 1:  # as most do
            release_s[awaited] = heads[awaited[0]] + alone_s[awaited[0]]
        elif awaited not in release_s:
            release_s[awaited] = _least_span_s((heads[other], demands[other], 0.0) for other in awaited)
        heads[id] = max(earliest_s[id], release_s[awaited])

    tails = [0.0] * len(tasks)
    for waits_for, together in reversed(released.items()):
        if waits_for:
            if len(together) == 1:
                tail = tails[together[0]] + alone_s[together[0]]
            else:
                tail = _least_span_s((0.0, demands[id], tails[id]) for id in together)
            for id in waits_for:
                tails[id] = max(tails[id], tail)

    return _least_span_s(zip(heads, demands, tails, strict=True))


def busiest_link_s(schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]) -> float:
    """Return how many seconds the busiest links are at work for all of `schedule`, whatever waits for what."""
    return _least_span_s((0.0, demand, 0.0) for demand in _demands(schedule, fabric, hosts))


def _demands(schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]) -> list[Demand]:
    """What every flow asks of every resource it crosses. Ranks that share a host need no wire."""
    pairs: dict[tuple[int, int], list[tuple[Resource, float]]] = {}  # the fabric's part, with rates
    demands: list[Demand] = []
    for flow in schedule.flows:
        src, dst = hosts[flow.src], hosts[flow.dst]
        if src == dst:
            demands.append([])
            continue
        leaves = fabric.leaf_of(src), fabric.leaf_of(dst)
        if leaves not in pairs:
            pairs[leaves] = _fabric_resources(fabric, *leaves)
        wire_bits = fabric.wire_bytes(flow.size_bytes) * 8
        host_s = wire_bits / fabric.host_rate_bps
        demand: Demand = [(("tx", src, 0), host_s), (("rx", dst, 0), host_s)]
        demand += [(resource, wire_bits / rate_bps) for resource, rate_bps in pairs[leaves]]
        demands.append(demand)
    return demands


def _fabric_resources(fabric: LeafSpine, source_leaf: int, destination_leaf: int) -> list[tuple[Resource, float]]:
    """The fabric's resources between two leaves, with their rates in bits/s; none within a leaf."""
    if source_leaf == destination_leaf:
        return []
    common_bps = _together_bps(fabric, source_leaf, destination_leaf)
    if not common_bps:
        raise ValueError(
            f"no spine is left between {fabric.leaf_name(source_leaf)} and "
            f"{fabric.leaf_name(destination_leaf)}: fail fewer links"
        )
    up_bps, down_bps = (_together_bps(fabric, leaf, leaf) for leaf in (source_leaf, destination_leaf))
    resources: list[tuple[Resource, float]] = [
        (("up", source_leaf, 0), up_bps),
        (("down", destination_leaf, 0), down_bps),
    ]
    if common_bps < min(up_bps, down_bps):  # the two leaves lost different links
        resources.append((("pair", source_leaf, destination_leaf), common_bps))
    return resources


def _together_bps(fabric: LeafSpine, one_leaf: int, other_leaf: int) -> float:
    return sum(map(fabric.spine_rate_bps, fabric.live_spines(one_leaf, other_leaf)))


def _least_span_s(jobs: Iterable[tuple[float, Demand, float]]) -> float:
    """Least time to be done with jobs of (head, demand, tail): the busiest resource's."""
    work: dict[Resource, dict[tuple[float, float], float]] = defaultdict(lambda: defaultdict(float))
    least_s = 0.0
    for head, demand, tail in jobs:
        least_s = max(least_s, head + tail)
        for resource, seconds in demand:
            work[resource][head, tail] += seconds
    return max([least_s, *map(_one_machine_s, work.values())])


def _one_machine_s(work: dict[tuple[float, float], float]) -> float:
    """Length of Jackson's preemptive schedule of {(head, tail): work}: always run the ready job of the longest tail."""
    if len(work) == 1:
        return sum(next(iter(work))) + sum(work.values())
    ready: list[tuple[float, float]] = []  # (-tail, work left)
    now = end = 0.0
    for head, tail in [*sorted(work), (float("inf"), 0.0)]:
        while ready and now < head:
            minus_tail, left = ready[0]
            if now + left > head:
                heapq.heapreplace(ready, (minus_tail, left - (head - now)))
                now = head
            else:
                heapq.heappop(ready)
                now += left
                end = max(end, now - minus_tail)
        now = max(now, head)
        heapq.heappush(ready, (-tail, work.get((head, tail), 0.0)))
    return end
