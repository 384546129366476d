"""Another tenant's traffic on the same fabric."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from traffic.schedule import Flow, Schedule
from traffic.strain.strain import Share, Strain, StrainError, from_first_send

_MESSAGES = 8  # of a rank in the time of the bound
_LASTS = 2  # times the bound


@dataclass(frozen=True)
class Background(Strain):
    """Another tenant sends from the same hosts meanwhile, each of its connections on a path that a hash draws.

    In the time of the bound, every host sends for it `load` of what the ranks have to send on average, in eight
    messages from a time of its own on, until twice the bound has passed. `permutation`: to one other host, each to
    another; `uniform`: each message to any other. Its connections are its own, and no scheme of ours moves or splits
    them. CCT, bound and FCT are of our own flows; what links carry is of both.
    """

    key: ClassVar[str] = "background"
    keeps_data: ClassVar[bool] = False

    load: Annotated[float, Share("a share of what the ranks send such as 30%", below=10)] = 0.0
    pattern: Literal["permutation", "uniform"] = "permutation"

    @property
    def is_none(self) -> bool:
        return not self.load

    def strained(self, schedule: Schedule, bound_s: float, random: np.random.Generator) -> Schedule:
        if schedule.computes:
            raise StrainError(f"strain.background takes collectives, and {schedule.algorithm} computes; write load: 0")
        schedule, ranks = from_first_send(schedule), schedule.ranks
        size_bytes = round(self.load * schedule.payload_bytes / ranks / _MESSAGES)
        if ranks < 2 or not size_bytes:
            return schedule
        channel = 1 + max(flow.channel for flow in schedule.flows)
        others = _in_a_circle(random.permutation(ranks).tolist())
        hashes = random.integers(0, 2**16, (ranks, ranks)).tolist()
        begin_s = random.uniform(0, bound_s / _MESSAGES, ranks).tolist()
        steps = random.integers(1, ranks, (_LASTS * _MESSAGES, ranks)).tolist()  # to any but itself
        flows = list(schedule.flows)
        for number in range(_LASTS * _MESSAGES):
            for src in range(ranks):
                dst = others[src] if self.pattern == "permutation" else (src + steps[number][src]) % ranks
                start_s = begin_s[src] + number * bound_s / _MESSAGES
                flows.append(
                    Flow(
                        len(flows), src, dst, size_bytes,
                        step=number, channel=channel, start_s=start_s, drawn=hashes[src][dst],
                    )
                )  # fmt: skip
        return replace(schedule, flows=flows)


def _in_a_circle(ranks: list[int]) -> dict[int, int]:
    """Each rank's next: a permutation that leaves none in its place."""
    return dict(zip(ranks, [*ranks[1:], ranks[0]], strict=True))
