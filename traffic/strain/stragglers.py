"""Ranks that are slower than the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from traffic.schedule import Schedule
from traffic.strain.strain import Number, Strain, delayed


@dataclass(frozen=True)
class Stragglers(Strain):
    """Some ranks, drawn, take `slow` times as long as the others until they have anything to send.

    The others' time is taken to be the bound, so that a straggler sends nothing before `slow` - 1 times the bound has
    passed. Its host's link is as fast as any. A collective of fewer ranks has as many stragglers.
    """

    key: ClassVar[str] = "stragglers"

    ranks: Annotated[int, Number("a whole number from 0 up", 0, 1_000_000)] = 1
    slow: Annotated[float, Number("a number from 1 to 100 such as 2", 1, 100)] = 2.0

    @property
    def is_none(self) -> bool:
        return not self.ranks or self.slow == 1

    def strained(self, schedule: Schedule, bound_s: float, random: np.random.Generator) -> Schedule:
        chosen = set(random.permutation(schedule.ranks)[: self.ranks].tolist())
        late_s = (self.slow - 1) * bound_s
        return delayed(schedule, [late_s if flow.src in chosen else 0.0 for flow in schedule.flows])
