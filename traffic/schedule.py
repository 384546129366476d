"""What ranks do, as a graph: who sends how many bytes to whom, who computes how long, and what must be done first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Flow:
    """`size_bytes` from rank `src` to rank `dst`, sent once all in `waits_for` is done: flows in full, computations.

    `id` is the flow's place in its schedule, and every flow it waits for has a smaller one, so a schedule is listed in
    an order that never deadlocks. Flows of one `step` are meant to run together: splitting looks at a step at a time.
    Flows of equal (src, dst, channel) share their connections, in order of id.

    `src_offset_bytes` and `dst_offset_bytes` place the bytes in the ranks' buffers; `reduce` adds them to what is there
    instead of overwriting it. Replay needs them only to carry and check real data.

    `drawn` is what the path of another tenant's flow hangs on, whatever the scheme; None for a flow of the schedule's
    own. Other tenants' are listed last, and nothing waits for them.
    """

    id: int
    src: int
    dst: int
    size_bytes: int
    step: int = 0
    channel: int = 0
    waits_for: tuple[int, ...] = ()
    start_s: float = 0.0
    src_offset_bytes: int = 0
    dst_offset_bytes: int = 0
    reduce: bool = False
    drawn: int | None = None


NO_ITERATION = -1


@dataclass(frozen=True, slots=True)
class Compute:
    """Rank `rank` computes for `seconds`, from when all in `waits_for` is done.

    Computations share one numbering with flows and come after them: `id` is the place in `Schedule.computes` plus the
    number of flows. Nothing but `waits_for` keeps two of one rank apart. With 0 seconds it is where things meet.
    `iteration` is the training step that it belongs to, from 0 on, or NO_ITERATION; `label` is for people.
    """

    id: int
    rank: int
    seconds: float
    waits_for: tuple[int, ...] = ()
    label: str = ""
    iteration: int = 0


class Placed(NamedTuple):
    """A collective of a job: its name, how many ranks take part, and its size as nccl-tests counts it."""

    collective: str
    ranks: int
    size_bytes: int


class Part(NamedTuple):
    """One of several jobs at the same time: its name, its ranks, and the ids of its flows."""

    name: str
    ranks: range
    flows: range


class Request(NamedTuple):
    """The ids of a request's flow, of the computation that serves it, and of its answer's flow."""

    sent: int
    served: int
    answered: int


@dataclass(frozen=True)
class Schedule:
    """The flows of one collective among `ranks` ranks, or the flows and computations of a training job.

    `size_bytes` is the message size as nccl-tests counts it, and `busbw_factor` what algbw is multiplied by to give
    busbw (nccl-tests, doc/PERFORMANCE.md). `collectives` are those that the flows of a job carry out, and `repairs`
    says in clauses what was wrong with the file it is from and could be mended. `parts` are the jobs that run at the
    same time, where they are several, and `requests` what is asked of servers. `hosts` are those of its ranks where the
    traffic itself says so.
    """

    collective: str
    algorithm: str
    ranks: int
    channels: int
    size_bytes: int
    flows: Sequence[Flow] = field(repr=False)
    busbw_factor: float = 1.0
    computes: Sequence[Compute] = field(default=(), repr=False)
    collectives: Sequence[Placed] = field(default=(), repr=False)
    repairs: Sequence[str] = field(default=(), repr=False)
    parts: Sequence[Part] = field(default=(), repr=False)
    requests: Sequence[Request] = field(default=(), repr=False)
    hosts: Sequence[int] | None = field(default=None, repr=False)

    @cached_property
    def own(self) -> Schedule:
        """Return the schedule without what other tenants send."""
        if not self.flows or self.flows[-1].drawn is None:
            return self
        return replace(self, flows=[flow for flow in self.flows if flow.drawn is None])

    @property
    def own_tasks(self) -> int | None:
        """Return how many tasks, the first, are its own where others follow; None: all are."""
        return None if self.own is self else len(self.own.flows)

    @property
    def payload_bytes(self) -> int:
        return sum(flow.size_bytes for flow in self.flows)

    @property
    def tasks(self) -> list[Flow | Compute]:
        """Return flows and computations by id."""
        return [*self.flows, *self.computes]

    @property
    def origin_s(self) -> float:
        """Return the earliest time at which anything may start; computations may at 0."""
        return 0.0 if self.computes else min((flow.start_s for flow in self.flows), default=0.0)

    @cached_property
    def order(self) -> Sequence[int]:
        """The ids of all tasks, each after all that it waits for. Raises ValueError where they wait in a circle."""
        if not self.computes:
            return range(len(self.flows))
        try:
            return tuple(TopologicalSorter({task.id: task.waits_for for task in self.tasks}).static_order())
        except CycleError as error:
            circle = " -> ".join(map(str, error.args[1][:6]))
            raise ValueError(
                f"tasks wait for each other in a circle, so none of these ever starts: {circle}"
            ) from error
