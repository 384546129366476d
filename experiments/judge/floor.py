"""How far below its bound full token buckets may take a run, and so how long a run must be to say anything.

A bucket that is full lets its depth pass at once. On a link that is busy from end to end that happens once; where steps
wait for each other, links may be idle in between, and their buckets full again at every step. Of a training job less is
enough: between two of a rank's computations its link carries all that lies between them with one full bucket.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from emulator.faults import Fault
from emulator.ports import shaping_for
from emulator.topology import LeafSpine
from experiments.judge.wording import apart
from experiments.spec.units import format_size_bytes
from experiments.theory.bound import bound_s as usual_bound_s
from experiments.theory.bound import busiest_link_s
from experiments.theory.capacity import bound_under_s
from traffic.schedule import Compute, Flow, Schedule

LEAST_S = 0.25
"""Shortest bound of a run that can be judged: its ports and the machine are judged over windows of 0.2 s."""

MAX_HEAD_START = 0.1
"""Most that full buckets may explain of a run, as a share of its bound: what they might hide is no more than that."""


def head_start_s(
    schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int], bound_s: float, faults: Sequence[Fault] = ()
) -> float:
    """Return by how many seconds full buckets may let a run be sooner than its bound, which is that under `faults`.

    Neither knows what other tenants send.
    """
    schedule = schedule.own
    usual_s = usual_bound_s(schedule, fabric, hosts) if faults else bound_s
    under_s = bound_under_s(schedule, fabric, hosts, faults, full_buckets=True) if faults else 0.0
    slowest_bps = fabric.slowest_bps
    bucket_s = shaping_for(slowest_bps, fabric).burst_bytes * 8 / slowest_bps
    steps = 1 + max((flow.step for flow in schedule.flows), default=0)
    busiest_s = busiest_link_s(schedule, fabric, hosts) - bucket_s
    chain_s = _between_computations_s(schedule, fabric, hosts, bucket_s)
    floor_s = max(busiest_s, usual_s - steps * bucket_s, chain_s, under_s)
    return bound_s - floor_s


def _between_computations_s(schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int], bucket_s: float) -> float:
    """Return the least time of a job whose hosts' links begin with a full bucket after every computation; else 0.

    A computation of a rank that waits for flows of this rank, all of which wait, through others or not, for an earlier
    one of its computations, cannot begin before its link has carried them all since that one.
    """
    if not schedule.computes:
        return 0.0
    tasks = schedule.tasks
    end_s = [0.0] * len(tasks)
    behind: list[dict[int, int]] = [{} for _ in tasks]  # of a flow, its ranks' last computation that it waits for
    for id in schedule.order:
        task = tasks[id]
        begin_s = max((end_s[other] for other in task.waits_for), default=0.0)
        if not isinstance(task, Compute):
            end_s[id] = begin_s
            for rank in (task.src, task.dst):
                known = [
                    last for last in (_last(tasks[other], behind, rank) for other in task.waits_for) if last is not None
                ]
                if known:
                    behind[id][rank] = max(known, key=end_s.__getitem__)
            continue
        carried_s: dict[tuple[int, bool], float] = defaultdict(float)
        for other in task.waits_for:
            flow = tasks[other]
            if not isinstance(flow, Compute) and hosts[flow.src] != hosts[flow.dst] and task.rank in behind[other]:
                way = behind[other][task.rank], flow.src == task.rank
                carried_s[way] += fabric.wire_bytes(flow.size_bytes) * 8 / fabric.host_rate_bps
        spans_s = [end_s[last] + carried - bucket_s for (last, _), carried in carried_s.items()]
        end_s[id] = max([begin_s, *spans_s]) + task.seconds
    return max(end_s)


def _last(task: Flow | Compute, behind: Sequence[Mapping[int, int]], rank: int) -> int | None:
    """Return the last computation of `rank` that is known to be done when `task` is."""
    if isinstance(task, Compute):
        return task.id if task.rank == rank else None
    return behind[task.id].get(rank)


def too_short(
    schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int], bound_s: float, faults: Sequence[Fault] = ()
) -> str | None:
    """Return why a run of `schedule` cannot be judged, and what size could; None where it can."""
    if not bound_s:
        return "too short: nothing is sent"
    head_start = head_start_s(schedule, fabric, hosts, bound_s, faults)
    factor = max(LEAST_S, head_start / MAX_HEAD_START) / bound_s
    if factor <= 1:
        return None
    bound, least = apart(bound_s, LEAST_S, "g", 2)
    reason = (
        f"the first frames of every port pass at once, {head_start:.2g} s of it"
        if head_start / MAX_HEAD_START > LEAST_S
        else f"runs are judged from {least} s on"
    )
    larger_bytes = int(float(f"{1.05 * factor * schedule.size_bytes:.2g}"))  # two digits, and no less
    return f"too short: its bound is {bound} s and {reason}; at least {format_size_bytes(larger_bytes)}"
