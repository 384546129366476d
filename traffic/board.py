"""What all processes of one replay share: how far it is, in memory that forked processes have in common."""

from __future__ import annotations

import mmap
import os
import select
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from traffic.plan import TrafficPlan

_NOTICE = struct.Struct("=I")
_MOST_NOTICES = select.PIPE_BUF // _NOTICE.size  # so many are written at once, or none of them (pipe(7))


class Board:
    """When tasks began and ended, and what flows have still to bring, by id; and what each process has counted.

    `started_s` and `finished_s` are times of CLOCK_MONOTONIC, 0 before. `received` are bytes, `begun` and `ended`
    flows. Each number has one process that writes it. Processes that are to share a board are forked from the one it
    is made in.
    """

    def __init__(self, plan: TrafficPlan, processes: int = 1) -> None:
        flows, tasks = plan.schedule.flows, len(plan.schedule.tasks)
        lengths = (tasks, tasks, len(flows), processes, processes, processes)
        self._memory = memoryview(mmap.mmap(-1, 8 * max(1, sum(lengths))))
        parts, place = [], 0
        for length in lengths:
            parts.append(self._memory[8 * place : 8 * (place + length)])
            place += length
        self.started_s, self.finished_s = (part.cast("d") for part in parts[:2])
        self.missing, self.received, self.begun, self.ended = (part.cast("q") for part in parts[2:])
        for flow in flows:
            self.missing[flow.id] = flow.size_bytes

    @property
    def under_way(self) -> bool:
        """Whether any flow is."""
        return sum(self.begun) > sum(self.ended)


class Post:
    """Carries notices between the processes of a replay: that a task is done for which another has some waiting.

    Each process has a pipe that all others write to; one that is alone needs none.
    """

    def __init__(self, processes: int) -> None:
        self._pipes = [os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(processes)]
        self._outgoing: dict[int, list[int]] = defaultdict(list)

    def inbox(self, process: int) -> int | None:
        """Return the descriptor that is readable when there are notices for `process`, if there ever are."""
        return self._pipes[process][0] if self._pipes else None

    def put(self, process: int, task_id: int) -> None:
        """Have `process` told, with the next `send`."""
        self._outgoing[process].append(task_id)

    def send(self) -> bool:
        """Send what was put; return whether all of it has left."""
        for process in list(self._outgoing):
            waiting = self._outgoing.pop(process)
            while waiting:
                some = waiting[:_MOST_NOTICES]
                try:
                    os.write(self._pipes[process][1], b"".join(map(_NOTICE.pack, some)))
                except BlockingIOError:
                    self._outgoing[process] = waiting
                    break
                waiting = waiting[_MOST_NOTICES:]
        return not self._outgoing

    def take(self, process: int) -> list[int]:
        """Return the tasks of which `process` has been told since it last asked."""
        try:
            told = os.read(self._pipes[process][0], 1 << 16)
        except BlockingIOError:
            return []
        return [task_id for (task_id,) in _NOTICE.iter_unpack(told)]

    def close(self) -> None:
        for ends in self._pipes:
            for end in ends:
                os.close(end)


@dataclass(frozen=True)
class Part:
    """What one process plays of a replay: what its hosts send, receive and compute. `owners[h]` plays for host h."""

    plan: TrafficPlan
    board: Board
    owners: Sequence[int]
    number: int = 0
    post: Post = field(default_factory=lambda: Post(0))

    @classmethod
    def whole(cls, plan: TrafficPlan, hosts: int) -> Part:
        """Return all there is, for a process that is alone."""
        return cls(plan, Board(plan), [0] * hosts)

    def has(self, host: int) -> bool:
        return self.owners[host] == self.number

    @property
    def ranks(self) -> list[int]:
        return [rank for rank in range(self.plan.schedule.ranks) if self.has(self.plan.hosts[rank])]

    def starts(self) -> list[int]:
        """Return which process each task begins in, by id."""
        schedule, owner = self.plan.schedule, self._owner_of_rank
        return [owner(flow.src) for flow in schedule.flows] + [owner(each.rank) for each in schedule.computes]

    def ends(self) -> list[int]:
        """Return which process each task ends in, by id: a flow's end is known to whoever receives its last byte."""
        schedule, owner = self.plan.schedule, self._owner_of_rank
        flows = [owner(flow.dst if flow.size_bytes else flow.src) for flow in schedule.flows]
        return flows + [owner(each.rank) for each in schedule.computes]

    def _owner_of_rank(self, rank: int) -> int:
        return self.owners[self.plan.hosts[rank]]
