"""Several jobs on one fabric, at the same time: each on ranks of its own, none waiting for another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from traffic.schedule import Compute, Flow, Part, Request, Schedule


def together(schedules: Sequence[Schedule], names: Sequence[str] = ()) -> Schedule:
    """Return all of `schedules` as one: the first has the first ranks, the next those that follow, and so on.

    They are called by `names`, or by their algorithms.
    """
    flows: list[Flow] = []
    computes: list[Compute] = []
    parts: list[Part] = []
    requests: list[Request] = []
    first_rank = 0
    before = sum(len(schedule.flows) for schedule in schedules)
    for schedule, name in zip(schedules, names or [each.algorithm for each in schedules], strict=True):
        own, flows_before, computes_before = len(schedule.flows), len(flows), before + len(computes)

        def id_of(id: int, own: int = own, flow: int = flows_before, compute: int = computes_before) -> int:
            return id + flow if id < own else id - own + compute

        for each in schedule.flows:
            waits = tuple(map(id_of, each.waits_for))
            src, dst = each.src + first_rank, each.dst + first_rank
            flows.append(replace(each, id=id_of(each.id), src=src, dst=dst, waits_for=waits))
        for task in schedule.computes:
            waits = tuple(map(id_of, task.waits_for))
            computes.append(replace(task, id=id_of(task.id), rank=task.rank + first_rank, waits_for=waits))
        requests += (Request(*map(id_of, request)) for request in schedule.requests)
        parts.append(Part(name, range(first_rank, first_rank + schedule.ranks)))
        first_rank += schedule.ranks
    return Schedule(
        "together",
        "-".join(schedule.algorithm for schedule in schedules),
        first_rank,
        max(schedule.channels for schedule in schedules),
        max(schedule.size_bytes for schedule in schedules),
        flows,
        computes=tuple(computes),
        collectives=tuple(placed for schedule in schedules for placed in schedule.collectives),
        repairs=tuple(repair for schedule in schedules for repair in schedule.repairs),
        parts=tuple(parts),
        requests=tuple(requests),
    )
