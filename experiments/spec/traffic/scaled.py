"""What all training jobs may be told, whoever describes them: how they are scaled from a real network to this one."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StrictFloat, StrictInt

from emulator.topology import LeafSpine
from experiments.spec.fields import RateBps, keys
from experiments.spec.traffic.entry import TrafficEntry
from traffic.jobs import Scale

MAX_RANKS = 65_536


def _positive(number: float) -> float:
    if not 0 < number < float("inf"):
        raise ValueError(f"{number} is not above 0; write a number such as 0.025")
    return number


def _some_ranks(ranks: int | None) -> int | None:
    if ranks is not None and not 2 <= ranks <= MAX_RANKS:
        raise ValueError(f"{ranks} is not a number of ranks; write one from 2 to {MAX_RANKS}")
    return ranks


Ranks = Annotated[StrictInt | None, AfterValidator(_some_ranks)]
"""None where the fabric's hosts are as many."""

Factor = Annotated[StrictFloat | StrictInt, AfterValidator(_positive)]


class ScaledTraffic(TrafficEntry):
    """A training job. Bytes are multiplied by `scale`, and computing by `scale` x `network` / the fabric's host rate.

    So communication takes the same part of a step as on the real network. Without `network`, computing is multiplied by
    `scale` alone.
    """

    straggler: Factor = Field(default=1.0, description="a factor of rank 0's computing such as 1.5")
    scale: Factor = Field(default=1.0, description="a factor of all bytes such as 0.025")
    network_bps: RateBps | None = Field(default=None, alias="network", description="a rate such as 400gbit")

    def scaling(self, topology: LeafSpine) -> Scale:
        """Return what bytes and seconds are multiplied by on this fabric."""
        real_bps = self.network_bps if isinstance(self.network_bps, int) else topology.host_rate_bps
        slower = {} if self.straggler == 1 else {0: self.straggler}
        return Scale(self.scale, self.scale * real_bps / topology.host_rate_bps, slower)

    def blamed(self, message: str) -> tuple[str, ...]:
        known = keys(type(self))
        return (next((word for word in re.findall(r"\w+", message) if word in known), self.key),)
