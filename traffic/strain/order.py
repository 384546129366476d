"""Whom ranks serve first, and how many at once: the receivers' incast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from traffic.schedule import Flow, Schedule
from traffic.strain.strain import Number, Strain, StrainError


@dataclass(frozen=True)
class Order(Strain):
    """Every rank lists its flows by whom they go to, and has at most `window` of them under way at once.

    `rotated`: rank r begins with r + 1; `synchronised`: all begin with rank 0, the worst incast; `shuffled`: each in an
    order of its own, drawn; `listed`: as they are. With a `window`, a rank's k-th flow starts once its
    (k - window)-th has arrived, and so many flows are split together; 0 is no limit, and all start at once.
    """

    key: ClassVar[str] = "order"

    by: Literal["listed", "rotated", "synchronised", "shuffled"] = "listed"
    window: Annotated[int, Number("a whole number of flows, 0 for no limit", 0, 1_000_000)] = 0

    @property
    def is_none(self) -> bool:
        return self.by == "listed" and not self.window

    def strained(self, schedule: Schedule, bound_s: float, random: np.random.Generator) -> Schedule:
        if schedule.computes or any(flow.waits_for for flow in schedule.flows):
            raise StrainError(
                f"the flows of {schedule.collective} {schedule.algorithm} wait for each other, and so have an order; "
                "strain.order takes those that wait for none, such as an alltoall's without window"
            )
        sent_by: dict[int, list[Flow]] = defaultdict(list)
        for flow in schedule.flows:
            sent_by[flow.src].append(flow)
        for src in sorted(sent_by):
            sent_by[src].sort(key=self._turn(src, schedule.ranks, random))
        turns = [(place, flow) for src in sorted(sent_by) for place, flow in enumerate(sent_by[src])]
        if not self.window:
            return replace(schedule, flows=[replace(flow, id=number) for number, (_, flow) in enumerate(turns)])
        turns.sort(key=lambda turn: turn[0] // self.window)  # step by step, as schedules are listed
        ids = {(flow.src, place): number for number, (place, flow) in enumerate(turns)}
        flows = [
            replace(
                flow,
                id=number,
                step=place // self.window,
                waits_for=(ids[flow.src, place - self.window],) if place >= self.window else (),
            )
            for number, (place, flow) in enumerate(turns)
        ]
        return replace(schedule, flows=flows)

    def _turn(self, src: int, ranks: int, random: np.random.Generator) -> Callable[[Flow], int]:
        """What a rank sorts its flows by; those to one rank stay as they are."""
        match self.by:
            case "rotated":
                return lambda flow: (flow.dst - src) % ranks
            case "synchronised":
                return lambda flow: flow.dst
            case "shuffled":
                turns = random.permutation(ranks).tolist()
                return lambda flow: turns[flow.dst]
        return lambda flow: 0
