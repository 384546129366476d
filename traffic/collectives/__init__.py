"""Every collective by every algorithm it has here, as a schedule: `build_schedule` is the one way in.

To add an algorithm, write a function of a `Draft` (traffic/collectives/draft.py) that lists its sends, and name it in
`COLLECTIVES`. The function's keyword parameters are the options that an experiment may give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature

from emulator.inputs import quote
from traffic.collectives import direct, halving, point_to_point, ring, tree
from traffic.collectives.draft import Draft
from traffic.collectives.layout import ScheduleError
from traffic.schedule import Schedule

__all__ = ["COLLECTIVES", "Collective", "ScheduleError", "build_schedule", "check_names", "options_of"]


@dataclass(frozen=True)
class Collective:
    """`algorithms` by name, the default first, and busbw / algbw for n ranks (nccl-tests, doc/PERFORMANCE.md)."""

    algorithms: Mapping[str, Callable[..., None]]
    busbw_factor: Callable[[int], float]


COLLECTIVES: Mapping[str, Collective] = {
    "allreduce": Collective(
        {
            "ring": ring.allreduce,
            "direct": direct.allreduce,
            "halving-doubling": halving.allreduce,
            "double-binary-tree": tree.allreduce,
        },
        lambda n: 2 * (n - 1) / n,
    ),
    "allgather": Collective(
        {"ring": ring.allgather, "direct": direct.allgather, "recursive-doubling": halving.allgather},
        lambda n: (n - 1) / n,
    ),
    "reducescatter": Collective(
        {"ring": ring.reducescatter, "direct": direct.reducescatter, "recursive-halving": halving.reducescatter},
        lambda n: (n - 1) / n,
    ),
    "alltoall": Collective({"direct": direct.alltoall}, lambda n: (n - 1) / n),
    "broadcast": Collective({"ring": ring.broadcast, "tree": tree.broadcast}, lambda n: 1.0),
    "permutation": Collective({"shift": point_to_point.permutation}, lambda n: 1.0),
}


def build_schedule(
    collective: str,
    algorithm: str | None = None,
    *,
    ranks: int,
    size_bytes: int,
    channels: int = 1,
    **options: int | str | None,
) -> Schedule:
    """The schedule of `collective` by `algorithm` (None: its first in `COLLECTIVES`).

    `size_bytes` is counted as nccl-tests does: AllReduce, Broadcast: the buffer; AllGather, ReduceScatter, AllToAll:
    rank count x one rank's piece; permutation: what one rank sends. `channels` parallel connections a pair share it.
    `options` are the algorithm's own (`options_of`): chunks, window, order, seed, shift.

    Raises ScheduleError, in one sentence, for unknown names and options, for counts the algorithm does not allow and
    for a message with fewer 4-byte elements (or bytes, if its size is no multiple of 4) than pieces.
    """
    algorithm = check_names(collective, algorithm, options)
    for name, value, least in (("ranks", ranks, 2), ("channels", channels, 1), ("size_bytes", size_bytes, 1)):
        if value < least:
            raise ScheduleError(f"{name} of {collective} must be {least} or more, not {value}")
    draft = Draft(ranks, size_bytes, channels)
    kind = COLLECTIVES[collective]
    kind.algorithms[algorithm](draft, **options)
    return Schedule(collective, algorithm, ranks, channels, size_bytes, draft.flows(), kind.busbw_factor(ranks))


def check_names(collective: str, algorithm: str | None = None, options: Mapping[str, object] | None = None) -> str:
    """The algorithm's name, default filled in; ScheduleError if there is no such collective, algorithm or option."""
    if collective not in COLLECTIVES:
        raise ScheduleError(f"unknown collective {quote(collective)}: use one of {', '.join(COLLECTIVES)}")
    algorithms = COLLECTIVES[collective].algorithms
    if algorithm is None:
        algorithm = next(iter(algorithms))
    if algorithm not in algorithms:
        raise ScheduleError(f"unknown algorithm {quote(algorithm)} of {collective}: use one of {', '.join(algorithms)}")
    allowed = options_of(collective, algorithm)
    for option, value in (options or {}).items():
        if option not in allowed:
            takes = ", ".join(allowed) or "none"
            raise ScheduleError(f"unknown option '{option}' of {collective} by {algorithm}: its options are {takes}")
        kind = str if isinstance(allowed[option], str) else int
        if not isinstance(value, kind) and value != allowed[option]:
            expected = "a name" if kind is str else "a whole number"
            raise ScheduleError(f"{option} of {collective} must be {expected}, not {quote(str(value))}")
    return algorithm


def options_of(collective: str, algorithm: str) -> dict[str, int | str | None]:
    """The options that an algorithm takes, and their defaults."""
    parameters = signature(COLLECTIVES[collective].algorithms[algorithm]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY}
