"""Replays over the loopback: plans, playing them, and sockets that misbehave."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

from emulator.topology import LeafSpine
from experiments.runs.messages import played
from traffic.abreast import Abreast
from traffic.loopback import LoopbackSockets
from traffic.outcome import ReplayResult
from traffic.payload import Anything
from traffic.plan import Connection, Piece, TrafficPlan, plan_traffic
from traffic.replay import Replay
from traffic.schedule import Flow, Schedule
from traffic.schemes import scheme_of
from traffic.transport import Transport

FABRIC = LeafSpine(2, 2, 2, host_rate_bps=1_000_000_000, fabric_rate_bps=1_000_000_000)
QUICK = Transport(stall_timeout_s=0.4)
MB = 1_000_000


def schedule_of(flows: Sequence[Flow]) -> Schedule:
    return Schedule("test", "test", FABRIC.hosts, 1, sum(flow.size_bytes for flow in flows), flows)


def plan_of(schedule: Schedule | Sequence[Flow], scheme: str = "ecmp") -> TrafficPlan:
    schedule = schedule if isinstance(schedule, Schedule) else schedule_of(schedule)
    return plan_traffic(schedule, FABRIC, range(FABRIC.hosts), scheme_of(scheme))


def one_connection(flows: Sequence[Flow], pieces: Sequence[Piece], count: int = 1) -> TrafficPlan:
    """Any pieces on `count` connections from rank 0 to rank 1."""
    connections = [Connection(number, 0, 1, 10_000 + number, 0) for number in range(count)]
    return TrafficPlan(schedule_of(flows), range(FABRIC.hosts), scheme_of("ecmp"), connections, pieces)


def play(
    plan: TrafficPlan,
    payload: Anything | None = None,
    sockets: LoopbackSockets | None = None,
    transport: Transport = QUICK,
    processes: int = 1,
) -> tuple[ReplayResult, list[float]]:
    """What came of a replay, and the progress that it reported."""
    progress: list[float] = []
    sockets = sockets or LoopbackSockets(FABRIC)
    with (
        Abreast(plan, FABRIC, sockets, transport, payload, processes)
        if processes > 1
        else Replay(plan, FABRIC, sockets, transport, payload)
    ) as replay:
        return played(replay.run(), lambda far: progress.append(far.share)), progress


def carried(plan: TrafficPlan) -> list[int]:
    """The bytes that every connection is to carry."""
    loads: Counter[int] = Counter()
    for piece in plan.pieces:
        loads[piece.connection] += piece.size_bytes
    return [loads[connection.id] for connection in plan.connections]


def dependencies_kept(plan: TrafficPlan, result: ReplayResult) -> bool:
    return all(
        result.started_s[task.id] >= result.finished_s[awaited]
        for task in plan.schedule.tasks
        for awaited in task.waits_for
    )


class Faulty(socket.socket):
    """Sends as it should up to `limit` bytes; then `fault` says what becomes of the rest."""

    limit = 30_000
    passed = 0

    def send(self, data: Any, flags: int = 0) -> int:
        if room := self.limit - self.passed:
            sent = super().send(data[:room], flags)
            self.passed += sent
            return sent
        return self.fault(data)

    def fault(self, data: memoryview) -> int:
        """How many of `data` count as sent."""
        raise NotImplementedError


class FaultySockets(LoopbackSockets):
    """The loopback, but for the sockets of host 0."""

    def __init__(self, kind: type[socket.socket]) -> None:
        super().__init__(FABRIC)
        self._kind = kind

    def socket(self, host: int) -> socket.socket:
        made = super().socket(host)
        if host:
            return made
        return self._kind(fileno=made.detach())
