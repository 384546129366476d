"""Several jobs on one fabric, at the same time: each on ranks of its own, or all on the same; none waits for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from traffic.schedule import Compute, Flow, Part, Request, Schedule


def together(
    schedules: Sequence[Schedule],
    names: Sequence[str] = (),
    *,
    same_ranks: bool = False,
    starts_s: Sequence[float] = (),
) -> Schedule:
    """Return all of `schedules` as one: the first has the first ranks, the next those that follow, and so on.

    With `same_ranks` all begin with rank 0; each has connections and steps of its own, so that a scheme splits the
    flows of each by themselves. They have `names`, or those of their algorithms, and start at `starts_s`, or at once.
    """
    flows: list[Flow] = []
    computes: list[Compute] = []
    parts: list[Part] = []
    requests: list[Request] = []
    first_rank = channels = steps = 0
    before = sum(len(schedule.flows) for schedule in schedules)
    names = names or [each.algorithm for each in schedules]
    for schedule, name, start_s in zip(schedules, names, starts_s or [0.0] * len(schedules), strict=True):
        own, flows_before, computes_before = len(schedule.flows), len(flows), before + len(computes)

        def id_of(id: int, own: int = own, flow: int = flows_before, compute: int = computes_before) -> int:
            return id + flow if id < own else id - own + compute

        flows += _moved(schedule.flows, id_of, first_rank, channels, steps, start_s)
        computes += (
            replace(task, id=id_of(task.id), rank=task.rank + first_rank, waits_for=tuple(map(id_of, task.waits_for)))
            for task in schedule.computes
        )
        requests += (Request(*map(id_of, request)) for request in schedule.requests)
        parts.append(Part(name, range(first_rank, first_rank + schedule.ranks), range(flows_before, len(flows))))
        if same_ranks:
            channels = 1 + max((each.channel for each in flows), default=-1)
            steps = 1 + max((each.step for each in flows), default=-1)
        else:
            first_rank += schedule.ranks
    return Schedule(
        "together",
        "-".join(schedule.algorithm for schedule in schedules),
        max(part.ranks.stop for part in parts),
        max(schedule.channels for schedule in schedules),
        max(schedule.size_bytes for schedule in schedules),
        flows,
        computes=tuple(computes),
        collectives=tuple(placed for schedule in schedules for placed in schedule.collectives),
        repairs=tuple(repair for schedule in schedules for repair in schedule.repairs),
        parts=tuple(parts),
        requests=tuple(requests),
    )


def _moved(
    flows: Sequence[Flow], id_of: Callable[[int], int], rank: int, channel: int, step: int, start_s: float
) -> Iterator[Flow]:
    """Each flow with ids by `id_of`, so many ranks, channels and steps on, and so much later."""
    for flow in flows:
        yield replace(
            flow,
            id=id_of(flow.id),
            src=flow.src + rank,
            dst=flow.dst + rank,
            channel=flow.channel + channel,
            step=flow.step + step,
            waits_for=tuple(map(id_of, flow.waits_for)),
            start_s=flow.start_s + start_s,
        )
