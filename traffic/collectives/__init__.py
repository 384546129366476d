"""Every collective by every algorithm it has here, as a schedule: `build_schedule` is the one way in.

To add an algorithm, write a function of a `Draft` (traffic/collectives/draft.py) that lists its sends, declare it with
`@algorithm` (traffic/collectives/collective.py), and name it below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from emulator.inputs import quote
from traffic.collectives import direct, halving, point_to_point, ring, tree
from traffic.collectives.collective import Algorithm, Collective, Pattern
from traffic.collectives.draft import Draft
from traffic.collectives.layout import ScheduleError
from traffic.schedule import Schedule

__all__ = ["COLLECTIVES", "Outline", "ScheduleError", "algorithm_of", "build_schedule", "outline", "register"]

COLLECTIVES: dict[str, Collective] = {}
"""By name. Lists of names, in errors, documentation and tests, are made of it."""


def register(algorithm: Algorithm) -> None:
    """Have `algorithm` found by its name, and its collective too; a collective's first is its default."""
    COLLECTIVES.setdefault(algorithm.collective.name, algorithm.collective)
    algorithm.collective.algorithms[algorithm.name] = algorithm


for _each in (
    ring.allreduce,
    direct.allreduce,
    halving.allreduce,
    tree.allreduce,
    ring.allgather,
    direct.allgather,
    halving.allgather,
    ring.reducescatter,
    direct.reducescatter,
    halving.reducescatter,
    direct.alltoall,
    ring.broadcast,
    tree.broadcast,
    point_to_point.permutation,
):
    register(_each)


class Outline(NamedTuple):
    """A collective too large to list: `schedule` has no flows, `pattern` says what they would be."""

    schedule: Schedule
    pattern: Pattern


def build_schedule(
    collective: str,
    algorithm: str | None = None,
    *,
    ranks: int,
    size_bytes: int,
    channels: int = 1,
    **options: int | str | None,
) -> Schedule:
    """Return the schedule of `collective` by `algorithm` (None: its first in `COLLECTIVES`).

    `size_bytes` is counted as nccl-tests does: AllReduce, Broadcast: the buffer; AllGather, ReduceScatter, AllToAll:
    rank count x one rank's piece; permutation: what one rank sends. `channels` parallel connections a pair share it.
    `options` are the algorithm's own (`Algorithm.options`): chunks, window, order, seed, shift.

    Raises ScheduleError, in one sentence, for unknown names and options, for counts the algorithm does not allow and
    for a message with fewer 4-byte elements (or bytes, if its size is no multiple of 4) than pieces.
    """
    chosen = algorithm_of(collective, algorithm, options)
    for name, value, least in (("ranks", ranks, 2), ("channels", channels, 1), ("size_bytes", size_bytes, 1)):
        if value < least:
            raise ScheduleError(f"{name} of {collective} must be {least} or more, not {value}")
    draft = Draft(ranks, size_bytes, channels)
    chosen.draw_up(draft, **options)
    factor = chosen.collective.busbw_factor(ranks)
    return Schedule(collective, chosen.name, ranks, channels, size_bytes, draft.flows(), factor)


def outline(
    collective: str,
    algorithm: str | None = None,
    *,
    ranks: int,
    size_bytes: int,
    channels: int = 1,
    **options: int | str | None,
) -> Outline | None:
    """What `build_schedule` would list, unlisted; None where only the list says what it is. Raises ScheduleError."""
    chosen = algorithm_of(collective, algorithm, options)
    pattern = chosen.pattern(ranks, **chosen.with_defaults(options))
    if pattern is None:
        return None
    factor = chosen.collective.busbw_factor(ranks)
    return Outline(Schedule(collective, chosen.name, ranks, channels, size_bytes, (), factor), pattern)


def algorithm_of(
    collective: str, algorithm: str | None = None, options: Mapping[str, object] | None = None
) -> Algorithm:
    """The algorithm of that name, or the default; ScheduleError if there is no such collective, algorithm or option."""
    if collective not in COLLECTIVES:
        raise ScheduleError(f"unknown collective {quote(collective)}: use one of {', '.join(COLLECTIVES)}")
    algorithms = COLLECTIVES[collective].algorithms
    if algorithm is None:
        algorithm = next(iter(algorithms))
    if algorithm not in algorithms:
        raise ScheduleError(f"unknown algorithm {quote(algorithm)} of {collective}: use one of {', '.join(algorithms)}")
    known = algorithms[algorithm].options
    for name, value in (options or {}).items():
        if name not in known:
            takes = ", ".join(known) or "none"
            raise ScheduleError(f"unknown option '{name}' of {collective} by {algorithm}: its options are {takes}")
        kind, _, default = known[name]
        if not isinstance(value, kind) and value != default:
            expected = "a name" if kind is str else "a whole number"
            raise ScheduleError(f"{name} of {collective} must be {expected}, not {quote(str(value))}")
    return algorithms[algorithm]
