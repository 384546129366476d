"""What is known of a run when it is judged: the raw measurement, and what it was to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import pandas as pd

from emulator.faults.fault import Fault, Happened
from emulator.meters.capture import Which
from emulator.meters.meters import Samples
from emulator.ports import Port, Shaping
from emulator.programs import Ended
from emulator.topology import LeafSpine
from experiments.captures.summary import CaptureSummary
from experiments.judge.programs import loaded_span_s
from experiments.judge.timeline import Timeline
from traffic.outcome import ReplayResult
from traffic.plan import TrafficPlan

Result = TypeVar("Result")


@dataclass(frozen=True)
class Built:
    """The fabric is up, on this data plane and why. `setup_s` says when each stage of building it ended, in seconds
    from its start. `machine` names the one of a cluster that it is on.
    """

    dataplane: str
    why: str
    ovs_version: str | None
    setup_s: dict[str, float]
    packet_buffer_bytes: int | None
    ports: Sequence[Port]
    shaping: dict[str, Shaping | None]
    machine: str = ""


@dataclass(frozen=True)
class Measured(Generic[Result]):
    """Everything seen of one run. `before` and `after` are interface counters, a row a port as `Built.ports` lists.

    `result` is what came of the load itself. `captures` says of each captured port how many packets its file has and
    how many were lost to it; `faults` how each of the run's came about.
    """

    run_id: str
    result: Result
    before: pd.DataFrame
    after: pd.DataFrame
    samples: Samples
    shaping: Mapping[str, Shaping | None]
    captures: pd.DataFrame | None = None
    faults: Sequence[Happened] = ()


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended, and the segments that all hosts together sent again meanwhile."""

    ended: Ended
    retransmitted_segments: int


@dataclass(frozen=True, kw_only=True)
class Evidence(Generic[Result]):
    """A run as it was measured on the ports of a fabric, whoever sent its packets.

    `start_s` to `end_s` is when the machine is judged. `asked` is what was to be captured, and `captured` what was
    found in it.
    """

    measured: Measured[Result]
    ports: Sequence[Port]
    topology: LeafSpine
    seed: int
    start_s: float
    end_s: float
    asked: Which = "none"
    captured: CaptureSummary | None = None

    @property
    def faults(self) -> Sequence[Fault]:
        """What was to break."""
        return [happened.fault for happened in self.measured.faults]

    @property
    def leaves_told_of(self) -> frozenset[int]:
        """The leaves of links that all leaves were told to avoid, or to use again: their connections may have moved."""
        happened = (each for each in self.measured.faults if any(each.reacted))
        return frozenset(leaf for each in happened for leaf, _ in each.fault.links)

    @cached_property
    def timeline(self) -> Timeline:
        """At which rate each port was meant to send when, and what faults took from it."""
        return Timeline(self.ports, self.measured.faults)


@dataclass(frozen=True, kw_only=True)
class ReplayEvidence(Evidence[ReplayResult]):
    """A replay, whose bytes and bound are known as well."""

    plan: TrafficPlan
    bound_s: float

    @classmethod
    def of(cls, measured: Measured[ReplayResult], **rest: Any) -> ReplayEvidence:
        """Judge the machine from the first send to the last byte received; `rest` are the other fields."""
        result = measured.result
        return cls(measured=measured, start_s=min(result.started_s), end_s=max(result.finished_s), **rest)


@dataclass(frozen=True, kw_only=True)
class ProgramEvidence(Evidence[ProgramResult]):
    """A program's run, whose bytes are its own business. Some port was loaded for `loaded_s`."""

    loaded_s: float

    @classmethod
    def of(cls, measured: Measured[ProgramResult], ports: Sequence[Port], **rest: Any) -> ProgramEvidence:
        """Judge the machine while the fabric is loaded; `rest` are the other fields.

        What keeps it busy before (starting interpreters, say) delays no packet.
        """
        ended, span = measured.result.ended, loaded_span_s(measured.samples, ports)
        start_s, end_s = span or (ended.started_s, ended.ended_s)
        loaded_s = span[1] - span[0] if span else 0.0
        return cls(measured=measured, ports=ports, start_s=start_s, end_s=end_s, loaded_s=loaded_s, **rest)
