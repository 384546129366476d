"""What a training step took, and how much of it was not hidden behind computing; of a replay or of the fluid model.

An iteration ends with its last computation at any rank, which is the update; a step is from one such end to the next.
The first iteration begins with empty links and an idle fabric, so steps are those of the others, where there are any.

- `step_s` is the median of their lengths, and `step_over_bound` that over the bound's part of each iteration.
- `exposed_s` is the part of a step in which a rank does not compute: of the rank with most of it, and the mean of all.
- `overlap` is the part of the time that a rank has flows under way in which it computes as well, over all ranks.
- `job_steps` has, where several jobs run at the same time, the `step_s` of each, in words; where none of them computes,
  how long each took from its first send to its last byte.
- `request_p50_s` and `request_p99_s` are of how long requests and their answers were under way, without being served.

Ranks that never compute for an iteration, such as servers, have no part in steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean, median

import numpy as np

from experiments.theory.loads import Floats
from traffic.schedule import NO_ITERATION, Compute, Schedule

Span = tuple[float, float]

COLUMNS = (
    *("step_s", "step_over_bound", "exposed_s", "exposed_mean_s", "overlap"),
    *("job_steps", "request_p50_s", "request_p99_s"),
)

Value = float | str | None


def step_columns(
    schedule: Schedule, started: Sequence[float] | Floats, finished: Sequence[float] | Floats, bound_s: float
) -> dict[str, Value]:
    """Return the columns of runs.csv about steps and requests; empty for what has no computations.

    `started` and `finished` have the times in seconds of all tasks, by id.
    """
    if not schedule.computes:
        return dict.fromkeys(COLUMNS) | _of_collectives(schedule, started, finished)
    started_s, finished_s = (np.asarray(times, dtype=float).tolist() for times in (started, finished))
    found: dict[str, Value] = dict.fromkeys(COLUMNS)
    training = [compute for compute in schedule.computes if compute.iteration != NO_ITERATION]
    if training:
        found |= _of_steps(schedule, training, started_s, finished_s, bound_s)
    steps = []
    for part in schedule.parts:
        computing = [each for each in training if each.rank in part.ranks]
        own = [flow.id for flow in schedule.flows if flow.src in part.ranks] + [each.id for each in computing]
        windows = _windows(computing, finished_s, min((started_s[id] for id in own), default=0.0)) if computing else []
        steps += [f"{part.name} {_step_s(windows):.4g} s"] if windows else []
    if len(steps) > 1:
        found["job_steps"] = "; ".join(steps)
    under_way_s = [
        finished_s[each.answered] - started_s[each.sent] - (finished_s[each.served] - started_s[each.served])
        for each in schedule.requests
    ]
    if under_way_s:
        found["request_p50_s"], found["request_p99_s"] = map(float, np.quantile(under_way_s, [0.5, 0.99]))
    return found


def _of_collectives(
    schedule: Schedule, started: Sequence[float] | Floats, finished: Sequence[float] | Floats
) -> dict[str, Value]:
    """What each of several took that send at the same time and do not compute."""
    if len(schedule.parts) < 2:
        return {}
    took = [
        (part.name, max(finished[id] for id in part.flows) - min(started[id] for id in part.flows))
        for part in schedule.parts
        if part.flows
    ]
    return {"job_steps": "; ".join(f"{name} {took_s:.4g} s" for name, took_s in took)}


def _of_steps(
    schedule: Schedule,
    training: Sequence[Compute],
    started_s: Sequence[float],
    finished_s: Sequence[float],
    bound_s: float,
) -> dict[str, Value]:
    computing, sending = _spans(schedule, training, started_s, finished_s)
    windows = _windows(training, finished_s, min(started_s))
    ranks = sorted({compute.rank for compute in training})
    exposed = [
        [end - start - _length(_within(computing[rank], start, end)) for rank in ranks] for start, end in windows
    ]
    step_s = _step_s(windows)
    iterations = 1 + max(compute.iteration for compute in training)
    return {
        "step_s": step_s,
        "step_over_bound": step_s * iterations / bound_s if bound_s else None,
        "exposed_s": median(map(max, exposed)),
        "exposed_mean_s": median(map(fmean, exposed)),
        "overlap": _overlap(computing, sending, windows, ranks),
    }


def _spans(
    schedule: Schedule, training: Sequence[Compute], started_s: Sequence[float], finished_s: Sequence[float]
) -> tuple[dict[int, list[Span]], dict[int, list[Span]]]:
    """When each rank computes, and when it has flows under way, either way; in order and without overlaps."""
    computing, sending = defaultdict(list), defaultdict(list)
    for compute in training:
        if compute.seconds:
            computing[compute.rank].append((started_s[compute.id], finished_s[compute.id]))
    for flow in schedule.flows:
        for rank in (flow.src, flow.dst):
            sending[rank].append((started_s[flow.id], finished_s[flow.id]))
    return (
        defaultdict(list, {rank: _union(spans) for rank, spans in computing.items()}),
        defaultdict(list, {rank: _union(spans) for rank, spans in sending.items()}),
    )


def _step_s(windows: Sequence[Span]) -> float:
    return median(end - start for start, end in windows)


def _windows(training: Sequence[Compute], finished_s: Sequence[float], begins_s: float) -> list[Span]:
    """The steps that count of what begins at `begins_s`."""
    ends: dict[int, float] = defaultdict(lambda: float("-inf"))
    for compute in training:
        ends[compute.iteration] = max(ends[compute.iteration], finished_s[compute.id])
    ordered = [begins_s, *(ends[iteration] for iteration in sorted(ends))]
    windows = list(pairwise(ordered))
    return windows[1:] or windows


def _overlap(
    computing: dict[int, list[Span]], sending: dict[int, list[Span]], windows: Iterable[Span], ranks: Sequence[int]
) -> float | None:
    sent_s = both_s = 0.0
    for start, end in windows:
        for rank in ranks:
            sent = _within(sending[rank], start, end)
            computed = _within(computing[rank], start, end)
            sent_s += _length(sent)
            both_s += _length(sent) + _length(computed) - _length(_union([*sent, *computed]))
    return both_s / sent_s if sent_s else None


def _union(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def _within(spans: Iterable[Span], start: float, end: float) -> list[Span]:
    return [(max(start, first), min(end, last)) for first, last in spans if first < end and last > start]


def _length(spans: Iterable[Span]) -> float:
    return sum(end - start for start, end in spans)
