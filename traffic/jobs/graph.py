"""A training job being drawn up: who computes when, which collective waits for what, as one graph of tasks.

Streams and communicators become dependencies here, and whoever plays the graph knows only "ready at". A rank takes
part in a collective once it has computed what it brings and is done with the collective before on the same
communicator. Both its sends and its receives wait for that: NCCL's receiver must have posted its buffer, and where only
those sends waited that wait for nothing else, most of a collective would run before a straggler has anything to add.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isfinite

from traffic.collectives import ScheduleError, algorithm_of, build_schedule
from traffic.collectives.layout import ELEMENT_BYTES
from traffic.schedule import Compute, Flow, Placed, Schedule

MAX_TASKS = 300_000
"""Flows and computations of one job: to list as many takes some seconds and half a gigabyte."""

_MOST_BYTES = 2**60  # of a message: beyond, nothing can count them
_LEAST_PIECES = 16  # no algorithm cuts a channel's part of the message into more, or into one a rank


class JobError(ScheduleError):
    """A job that cannot be drawn up; the message is one sentence and says what would be right."""


@dataclass(frozen=True)
class Scale:
    """How an emulated job relates to the real one: bytes and seconds are multiplied, of `slower` ranks once more."""

    of_bytes: float = 1.0
    of_seconds: float = 1.0
    slower: Mapping[int, float] = field(default_factory=dict)


class Graph:
    """The tasks of a job among `ranks` ranks so far. Methods return handles of tasks, which others may wait for.

    `algorithms` are those of collectives that are not to be carried out by their default one; each uses `channels`
    connections a pair of ranks. `iteration` is the training step to which computations are added.
    """

    def __init__(
        self,
        ranks: int,
        *,
        scale: Scale | None = None,
        algorithms: Mapping[str, str] | None = None,
        channels: int = 1,
    ) -> None:
        if ranks < 1 or channels < 1:
            raise JobError(f"a job has 1 rank and 1 channel or more, not {ranks} and {channels}")
        self.ranks = ranks
        self.iteration = 0
        self._scale, self._algorithms, self._channels = scale or Scale(), algorithms or {}, channels
        self._tasks: list[Flow | Compute] = []  # ids are handles: places here, so none waits for a later one
        self._lanes: dict[Hashable, int] = {}
        self._before: dict[tuple[Hashable, int], int] = {}  # the last task of a rank on a communicator
        self._step = [0] * ranks
        self._collectives: list[Placed] = []
        self.repairs: list[str] = []

    def compute(self, rank: int, seconds: float, after: Iterable[int] = (), label: str = "") -> int:
        """Have `rank` compute for `seconds` once all of `after` is done."""
        self._check_ranks([rank])
        if not (isfinite(seconds) and seconds >= 0):
            raise JobError(f"{seconds} s of computation at rank {rank}: write 0 or more")
        seconds *= self._scale.of_seconds * self._scale.slower.get(rank, 1.0)
        return self._add(Compute(len(self._tasks), rank, seconds, _all(after), label, self.iteration))

    def join(self, rank: int, after: Iterable[int], label: str = "") -> int:
        """Return a task of `rank` that is done when all of `after` is."""
        after = _all(after)
        return after[0] if len(after) == 1 else self.compute(rank, 0.0, after, label)

    def send(
        self,
        src: int,
        dst: int,
        size_bytes: float,
        after: Iterable[int] = (),
        communicator: Hashable = "",
        channel: int | None = None,
    ) -> int:
        """Send from `src` to `dst` once all of `after` is done.

        It has the connection of its `communicator`, or of `channel` where nothing else of the graph has communicators.
        """
        self._check_ranks([src, dst])
        if src == dst:
            raise JobError(f"rank {src} sends to itself: source and destination must differ")
        self._step[src] += 1
        step = self._step[src] - 1
        size, channel = self._sized(size_bytes), self._lane(communicator) if channel is None else channel
        return self._add(Flow(len(self._tasks), src, dst, size, step, channel, _all(after)))

    def collective(
        self,
        name: str,
        size_bytes: float,
        ranks: Sequence[int],
        after: Mapping[int, Iterable[int]],
        communicator: Hashable = "",
    ) -> dict[int, int]:
        """Add a collective among `ranks`; each takes part once its tasks of `after` are done.

        `size_bytes` is counted as `build_schedule` does. A message too small to cut grows to the least that can be.
        """
        least = ELEMENT_BYTES * max(_LEAST_PIECES, len(ranks)) * self._channels
        size = max(least, -(-self._sized(size_bytes) // ELEMENT_BYTES) * ELEMENT_BYTES)
        flows: Sequence[Flow] = ()
        if len(ranks) > 1:
            self._collectives.append(Placed(name, len(ranks), size))
            self.room_for(algorithm_of(name, self._algorithms.get(name)).flow_count(len(ranks), self._channels))
            flows = _flows(name, self._algorithms.get(name), len(ranks), size, self._channels)
        return self._place(flows, ranks, after, communicator)

    def exchange(
        self,
        sizes_bytes: Mapping[tuple[int, int], float],
        ranks: Sequence[int],
        after: Mapping[int, Iterable[int]],
        communicator: Hashable = "",
    ) -> dict[int, int]:
        """Add an AllToAll of unequal sizes among `ranks`: of each pair (source, destination), what it sends."""
        self._collectives.append(Placed("alltoall", len(ranks), self._sized(sum(sizes_bytes.values()) / len(ranks))))
        place = {rank: number for number, rank in enumerate(ranks)}
        flows = [
            Flow(number, place[src], place[dst], self._sized(size))
            for number, ((src, dst), size) in enumerate(sizes_bytes.items())
        ]
        return self._place(flows, ranks, after, communicator)

    def room_for(self, tasks: int) -> None:
        """Raise JobError where so many more tasks would be too many; to be asked before they are listed."""
        if len(self._tasks) + tasks > MAX_TASKS:
            raise JobError(f"more than {MAX_TASKS:,} flows and computations: use fewer ranks, layers or iterations")

    def schedule(self, kind: str, name: str) -> Schedule:
        """Return the graph as a schedule; its size is the most that any one rank sends."""
        flows = [task for task in self._tasks if isinstance(task, Flow)]
        computes = [task for task in self._tasks if isinstance(task, Compute)]
        handles = [*(flow.id for flow in flows), *(compute.id for compute in computes)]
        id_of = {handle: number for number, handle in enumerate(handles)}
        sent: dict[int, int] = defaultdict(int)
        for flow in flows:
            sent[flow.src] += flow.size_bytes
        if not flows:
            raise JobError(f"{name}: nothing is sent: a job needs 2 ranks or more that communicate")
        return Schedule(
            kind,
            name,
            self.ranks,
            self._channels,
            max(sent.values()),
            [replace(flow, id=id_of[flow.id], waits_for=_renamed(flow.waits_for, id_of)) for flow in flows],
            computes=[replace(each, id=id_of[each.id], waits_for=_renamed(each.waits_for, id_of)) for each in computes],
            collectives=tuple(self._collectives),
            repairs=tuple(self.repairs),
        )

    def _place(
        self, flows: Sequence[Flow], ranks: Sequence[int], after: Mapping[int, Iterable[int]], communicator: Hashable
    ) -> dict[int, int]:
        """Add `flows`, whose ranks are places in `ranks`, behind a gate a rank; return what ends each rank's part."""
        self._check_ranks(ranks)
        if len(set(ranks)) < len(ranks):
            raise JobError(f"a group has a rank twice: {', '.join(map(str, sorted(ranks)[:8]))}")
        gates = [self.join(rank, [*after.get(rank, ()), *self._previous(communicator, rank)]) for rank in ranks]
        base, first, touching = max(self._step[rank] for rank in ranks), len(self._tasks), defaultdict(list)
        lane = self._lane(communicator)
        for flow in flows:
            # What it waits for arrived at its source, and so behind its source's gate.
            own = [first + id for id in flow.waits_for] or [gates[flow.src]]
            handle = len(self._tasks)
            self._add(
                replace(
                    flow,
                    id=handle,
                    src=ranks[flow.src],
                    dst=ranks[flow.dst],
                    step=base + flow.step,
                    channel=lane + flow.channel,
                    waits_for=_all([*own, gates[flow.dst]]),
                )
            )
            touching[flow.src].append(handle)
            touching[flow.dst].append(handle)
        done = {rank: self.join(rank, touching[place] or [gates[place]]) for place, rank in enumerate(ranks)}
        for rank in ranks:
            self._step[rank] = base + 1 + max((flow.step for flow in flows), default=-1)
            self._before[communicator, rank] = done[rank]
        return done

    def _previous(self, communicator: Hashable, rank: int) -> list[int]:
        return [self._before[communicator, rank]] if (communicator, rank) in self._before else []

    def _lane(self, communicator: Hashable) -> int:
        """The first channel of a communicator: two must not share a connection, or they block each other."""
        return self._lanes.setdefault(communicator, len(self._lanes)) * self._channels

    def _sized(self, size_bytes: float) -> int:
        if not (isfinite(size_bytes) and size_bytes >= 0):
            raise JobError(f"{size_bytes} bytes cannot be sent: write 0 or more")
        if size_bytes * self._scale.of_bytes >= _MOST_BYTES:
            raise JobError(f"{size_bytes:g} bytes at a scale of {self._scale.of_bytes:g} are too many: write less")
        return max(1, round(size_bytes * self._scale.of_bytes))

    def _check_ranks(self, ranks: Iterable[int]) -> None:
        for rank in ranks:
            if not 0 <= rank < self.ranks:
                raise JobError(f"rank {rank} is out of range: with {self.ranks} ranks, they are 0 to {self.ranks - 1}")

    def _add(self, task: Flow | Compute) -> int:
        self.room_for(1)
        self._tasks.append(task)
        return task.id


@lru_cache(maxsize=64)
def _flows(collective: str, algorithm: str | None, ranks: int, size_bytes: int, channels: int) -> Sequence[Flow]:
    return build_schedule(collective, algorithm, ranks=ranks, size_bytes=size_bytes, channels=channels).flows


def _all(handles: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(handles)))


def _renamed(handles: Iterable[int], id_of: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(sorted(id_of[handle] for handle in handles))
