"""Flows that do not start together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from traffic.schedule import Schedule
from traffic.strain.strain import Share, Strain, delayed


@dataclass(frozen=True)
class StartJitter(Strain):
    """Every rank, or every flow, starts late by a time of its own.

    That time is drawn for each: `uniform`, from 0 to `share` of the bound; `exponential`, with `share` of the bound as
    its mean. A flow that waits for others starts once they have arrived, and not before its time. Of flows that share a
    connection the first is never later than the next, as they are sent in that order.
    """

    key: ClassVar[str] = "jitter"

    share: Annotated[float, Share("a share of the bound such as 5%", below=10)] = 0.0
    each: Literal["rank", "flow"] = "rank"
    distribution: Literal["uniform", "exponential"] = "uniform"

    @property
    def is_none(self) -> bool:
        return not self.share

    def strained(self, schedule: Schedule, bound_s: float, random: np.random.Generator) -> Schedule:
        drawn = schedule.ranks if self.each == "rank" else len(schedule.flows)
        draws = random.uniform(0, 1, drawn) if self.distribution == "uniform" else random.exponential(1, drawn)
        delays_s = draws * self.share * bound_s
        if self.each == "rank":
            return delayed(schedule, [float(delays_s[flow.src]) for flow in schedule.flows])
        together: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for flow in schedule.flows:
            together[flow.src, flow.dst, flow.channel].append(flow.id)
        for ids in together.values():
            delays_s[ids] = np.sort(delays_s[ids])
        return delayed(schedule, delays_s.tolist())
