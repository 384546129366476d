"""What passes between the sandbox and the process that judges: jobs in, raw measurements out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from emulator.meters.capture import Which
from emulator.meters.meters import Samples
from emulator.ports import Port, Shaping
from emulator.programs import Ended, Launch
from traffic.plan import TrafficPlan
from traffic.replay import ReplayResult


@dataclass(frozen=True)
class Job:
    """One run, ready to be played."""

    run_id: str
    plan: TrafficPlan
    seed: int
    verify: bool = False
    captures: Which = "none"
    capture_directory: Path = Path()


@dataclass(frozen=True)
class Built:
    """The fabric is up, on this data plane and why. `setup_s` says when each stage of building it ended, in seconds
    from its start."""

    dataplane: str
    why: str
    ovs_version: str | None
    setup_s: dict[str, float]
    packet_buffer_bytes: int | None
    ports: Sequence[Port]
    shaping: dict[str, Shaping | None]


@dataclass(frozen=True)
class Progress:
    run_id: str
    fraction: float


@dataclass(frozen=True)
class Failed:
    """The run did not end as it should; the next one is tried."""

    run_id: str
    reason: str


@dataclass(frozen=True)
class Measured:
    """Everything seen of one run. `before` and `after` are interface counters, a row a port as `Built.ports` lists.

    `captures` says of each captured port how many packets its file has and how many were lost to it.
    """

    run_id: str
    replay: ReplayResult
    before: pd.DataFrame
    after: pd.DataFrame
    samples: Samples
    shaping: dict[str, Shaping | None]
    captures: pd.DataFrame | None = None


Event = Built | Progress | Failed | Measured


@dataclass(frozen=True)
class ProgramJob:
    """One run of a program on some hosts, under one scheme."""

    run_id: str
    scheme: str
    seed: int
    launch: Launch


@dataclass(frozen=True)
class ProgramMeasured:
    """Everything seen of one run of a program; `retransmitted_segments` of all hosts together."""

    run_id: str
    ended: Ended
    retransmitted_segments: int
    before: pd.DataFrame
    after: pd.DataFrame
    samples: Samples
    shaping: dict[str, Shaping | None]
