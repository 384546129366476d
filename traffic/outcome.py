"""What comes of a replay, and how it is put together from what each of its processes has to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from traffic.board import Part
from traffic.tcpinfo import ConnectionResult


@dataclass(frozen=True)
class ReplayResult:
    """Times are of CLOCK_MONOTONIC, of every flow and computation by its id.

    `data_problems` says what is wrong with the data that was carried; None where none was checked. `waited` is an
    account of each process that replayed: pairs of a time and how long, up to then, it has waited for the network
    instead of keeping it waiting; `cpu_s` is what each took in user mode and in the kernel. `own_tasks` is as
    `Schedule` has it.
    """

    started_s: Sequence[float]
    finished_s: Sequence[float]
    connections: Sequence[ConnectionResult]
    data_problems: Sequence[str] | None = None
    waited: Sequence[Sequence[tuple[float, float]]] = ()
    cpu_s: Sequence[tuple[float, float]] = ()
    own_tasks: int | None = None

    @property
    def cct_s(self) -> float:
        """From the first send, or computation, to the last byte received or computation done; other tenants' aside."""
        return max(self.finished_s[: self.own_tasks]) - min(self.started_s[: self.own_tasks])


@dataclass(frozen=True)
class Report:
    """What one process has to tell of its part: see `ReplayResult`. `connections` are by number, of the ends it has."""

    connections: Mapping[int, ConnectionResult]
    data_problems: Sequence[str] | None
    waited: Sequence[tuple[float, float]]
    cpu_s: tuple[float, float]


def result(part: Part, reports: Sequence[Report]) -> ReplayResult:
    """Put together what the processes of a replay have to tell, one of whose parts is `part`."""
    both: dict[int, ConnectionResult] = {}
    for report in reports:
        for number, told in report.connections.items():
            both[number] = both[number] + told if number in both else told
    checked = [report.data_problems for report in reports if report.data_problems is not None]
    return ReplayResult(
        list(part.board.started_s),
        list(part.board.finished_s),
        [both[number] for number in sorted(both)],
        [problem for problems in checked for problem in problems] if checked else None,
        [report.waited for report in reports],
        [report.cpu_s for report in reports],
        part.plan.schedule.own_tasks,
    )
