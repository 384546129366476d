"""What a strain is: a seeded change of a schedule that takes away some of what makes a single path do well.

Collectives send flows that start together, are equally large and are sent by ranks that are equally quick. A strain
takes one of these from a schedule, by so much. Whatever reads the schedule afterwards (replay, bound, prediction) reads
the strained one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from traffic.schedule import Flow, Schedule


class StrainError(ValueError):
    """A schedule that a strain cannot change; the message says what would be right."""


@dataclass(frozen=True)
class Share:
    """An option that is a share, written as in 5%; below `below`, where 1 is 100%. `says` is what is right for it."""

    says: str
    below: float


@dataclass(frozen=True)
class Number:
    """An option that is a number from `least` to `most`. `says` is what is right for it."""

    says: str
    least: float
    most: float


@dataclass(frozen=True)
class Strain(ABC):
    """One kind of strain. Its fields are the options that people write, the first one also by itself.

    Each has a default. `key` is its key in an experiment. `keeps_data`: what arrives can still be checked.
    """

    key: ClassVar[str]
    keeps_data: ClassVar[bool] = True

    @property
    @abstractmethod
    def is_none(self) -> bool:
        """Return whether it changes nothing."""

    @abstractmethod
    def strained(self, schedule: Schedule, bound_s: float, random: np.random.Generator) -> Schedule:
        """Return `schedule` with the strain on it.

        `bound_s` is the bound of the schedule that no strain has changed, and `random` all that chance decides.
        Raises StrainError where it cannot.
        """


def delayed(schedule: Schedule, delays_s: Sequence[float]) -> Schedule:
    """Return `schedule` with every flow allowed to start later by its delay."""
    flows = schedule.flows
    return replace(schedule, flows=[_later(flow, delay) for flow, delay in zip(flows, delays_s, strict=True)])


def from_first_send(schedule: Schedule) -> Schedule:
    """Return `schedule` with its times counted from its first send, as completion times are.

    The first send is of a flow that waits for none: one that waits may be allowed to start before it can. What computes
    as well has its times from the first computation on already.
    """
    if schedule.computes:
        return schedule
    first_s = min((flow.start_s for flow in schedule.flows if not flow.waits_for), default=0.0)
    return replace(schedule, flows=[replace(flow, start_s=max(0.0, flow.start_s - first_s)) for flow in schedule.flows])


def _later(flow: Flow, delay_s: float) -> Flow:
    return replace(flow, start_s=flow.start_s + delay_s)
