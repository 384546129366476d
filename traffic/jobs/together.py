"""Several jobs on one fabric, at the same time: each on ranks of its own, or all on the same; none waits for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from traffic.schedule import NO_ITERATION, Compute, Flow, Part, Request, Schedule

START = "start"
"""The label of computations that are no work: they hold a rank until its job begins."""


def together(
    schedules: Sequence[Schedule],
    names: Sequence[str] = (),
    starts_s: Sequence[float] = (),
    hosts: Sequence[int] | None = None,
    *,
    same_ranks: bool = False,
) -> Schedule:
    """Return all of `schedules` as one: the first has the first ranks, the next those that follow, and so on.

    With `same_ranks` all begin with rank 0; each has connections and steps of its own, so that a scheme splits the
    flows of each by themselves. They are called by `names`, or by their algorithms, and begin at `starts_s`, or all at
    once. `hosts` are those of all ranks, if it is said here.
    """
    starts_s = starts_s or [0.0] * len(schedules)
    begun = [_delayed(schedule, start_s) for schedule, start_s in zip(schedules, starts_s, strict=True)]
    return _joined(begun, names or [each.algorithm for each in schedules], hosts, same_ranks=same_ranks)


def _delayed(schedule: Schedule, start_s: float) -> Schedule:
    """Return `schedule` with all that waits for nothing held until `start_s`."""
    if not start_s:
        return schedule
    first = len(schedule.tasks)
    holds = [
        Compute(first + rank, rank, start_s, label=START, iteration=NO_ITERATION) for rank in range(schedule.ranks)
    ]

    def held(rank: int, waits_for: tuple[int, ...]) -> tuple[int, ...]:
        return waits_for or (holds[rank].id,)

    return replace(
        schedule,
        flows=[flow if flow.waits_for else replace(flow, start_s=flow.start_s + start_s) for flow in schedule.flows],
        computes=[
            *(replace(each, waits_for=held(each.rank, each.waits_for)) for each in schedule.computes),
            *(holds if schedule.computes else ()),
        ],
    )


def _joined(
    schedules: Sequence[Schedule], names: Sequence[str], hosts: Sequence[int] | None, *, same_ranks: bool
) -> Schedule:
    flows: list[Flow] = []
    computes: list[Compute] = []
    parts: list[Part] = []
    requests: list[Request] = []
    first_rank = channels = steps = 0
    before = sum(len(schedule.flows) for schedule in schedules)
    for schedule, name in zip(schedules, names, strict=True):
        own, flows_before, computes_before = len(schedule.flows), len(flows), before + len(computes)

        def id_of(id: int, own: int = own, flow: int = flows_before, compute: int = computes_before) -> int:
            return id + flow if id < own else id - own + compute

        flows += _moved(schedule.flows, id_of, first_rank, channels, steps)
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
        hosts=hosts,
    )


def _moved(flows: Sequence[Flow], id_of: Callable[[int], int], rank: int, channel: int, step: int) -> Iterator[Flow]:
    """Each flow with ids by `id_of`, and so many ranks, channels and steps on."""
    for flow in flows:
        yield replace(
            flow,
            id=id_of(flow.id),
            src=flow.src + rank,
            dst=flow.dst + rank,
            channel=flow.channel + channel,
            step=flow.step + step,
            waits_for=tuple(map(id_of, flow.waits_for)),
        )
