"""What a training step took, and how much of it was not hidden behind computing; of a replay or of the fluid model.

An iteration ends with its last computation at any rank, which is the update; a step is from one such end to the next.
The first iteration begins with empty links and an idle fabric, so steps are those of the others, where there are any.

- `step_s` is the median of their lengths, and `step_over_bound` that over the bound's part of each iteration.
- `exposed_s` is the part of a step in which a rank does not compute: of the rank with most of it, and the mean of all.
- `overlap` is the part of the time that a rank has flows under way in which it computes as well, over all ranks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean, median

import numpy as np

from experiments.theory.loads import Floats
from traffic.schedule import Schedule

Span = tuple[float, float]

COLUMNS = ("step_s", "step_over_bound", "exposed_s", "exposed_mean_s", "overlap")


def step_columns(
    schedule: Schedule, started: Sequence[float] | Floats, finished: Sequence[float] | Floats, bound_s: float
) -> dict[str, float | None]:
    """Return the columns of runs.csv about steps; empty for what has no computations.

    `started` and `finished` have the times in seconds of all tasks, by id.
    """
    if not schedule.computes:
        return dict.fromkeys(COLUMNS)
    started_s, finished_s = (np.asarray(times, dtype=float).tolist() for times in (started, finished))
    computing, sending = _spans(schedule, started_s, finished_s)
    windows = _windows(schedule, started_s, finished_s)
    exposed = [
        [end - start - _length(_within(computing[rank], start, end)) for rank in range(schedule.ranks)]
        for start, end in windows
    ]
    step_s = median(end - start for start, end in windows)
    iterations = 1 + max(compute.iteration for compute in schedule.computes)
    return {
        "step_s": step_s,
        "step_over_bound": step_s * iterations / bound_s if bound_s else None,
        "exposed_s": median(map(max, exposed)),
        "exposed_mean_s": median(map(fmean, exposed)),
        "overlap": _overlap(computing, sending, windows, schedule.ranks),
    }


def _spans(
    schedule: Schedule, started_s: Sequence[float], finished_s: Sequence[float]
) -> tuple[dict[int, list[Span]], dict[int, list[Span]]]:
    """When each rank computes, and when it has flows under way, either way; in order and without overlaps."""
    computing, sending = defaultdict(list), defaultdict(list)
    for compute in schedule.computes:
        if compute.seconds:
            computing[compute.rank].append((started_s[compute.id], finished_s[compute.id]))
    for flow in schedule.flows:
        for rank in (flow.src, flow.dst):
            sending[rank].append((started_s[flow.id], finished_s[flow.id]))
    return (
        defaultdict(list, {rank: _union(spans) for rank, spans in computing.items()}),
        defaultdict(list, {rank: _union(spans) for rank, spans in sending.items()}),
    )


def _windows(schedule: Schedule, started_s: Sequence[float], finished_s: Sequence[float]) -> list[Span]:
    """The steps that count."""
    ends: dict[int, float] = defaultdict(lambda: float("-inf"))
    for compute in schedule.computes:
        ends[compute.iteration] = max(ends[compute.iteration], finished_s[compute.id])
    ordered = [min(started_s), *(ends[iteration] for iteration in sorted(ends))]
    windows = list(pairwise(ordered))
    return windows[1:] or windows


def _overlap(
    computing: dict[int, list[Span]], sending: dict[int, list[Span]], windows: Iterable[Span], ranks: int
) -> float | None:
    sent_s = both_s = 0.0
    for start, end in windows:
        for rank in range(ranks):
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
