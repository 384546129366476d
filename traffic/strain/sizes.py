"""Flows that are not equally large."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from traffic.schedule import Schedule
from traffic.strain.strain import Number, Share, Strain


@dataclass(frozen=True)
class Sizes(Strain):
    """The size of every flow is multiplied by a factor of its own, whose mean is 1.

    The factor is drawn for each: uniform from 1 - `spread` to 1 + `spread`, times one whose logarithm is normal with
    the standard deviation `skew` (few flows are much larger than most: with a skew of 1, one in a hundred is six times
    the mean). A flow that has bytes keeps one at least. What hosts send and receive differs as well, which the bound
    knows.
    """

    key: ClassVar[str] = "sizes"
    keeps_data: ClassVar[bool] = False

    spread: Annotated[float, Share("a share of a flow's size such as 20%", below=1)] = 0.0
    skew: Annotated[float, Number("a number from 0 to 3 such as 0.5", 0, 3)] = 0.0

    @property
    def is_none(self) -> bool:
        return not self.spread and not self.skew

    def strained(self, schedule: Schedule, bound_s: float, random: np.random.Generator) -> Schedule:
        count = len(schedule.flows)
        factors = random.uniform(1 - self.spread, 1 + self.spread, count)
        factors *= np.exp(random.normal(0, 1, count) * self.skew - self.skew**2 / 2)  # a mean of 1
        flows = [
            replace(flow, size_bytes=max(1, round(flow.size_bytes * factor))) if flow.size_bytes else flow
            for flow, factor in zip(schedule.flows, factors.tolist(), strict=True)
        ]
        return replace(schedule, flows=flows)
