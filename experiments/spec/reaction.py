"""The key `reaction` of an experiment: what the network and the hosts do about what breaks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from emulator.faults import Reaction
from experiments.spec.fields import Keys, TimeS


class ReactionSpec(Keys):
    """Who does something about links that are down, and how soon."""

    network: Literal["none", "controller"] = "none"
    detect_s: TimeS = Field(default=0.01, alias="detect", description="a time such as 10ms")

    def of_network(self) -> Reaction | None:
        """Return what the network does; None: nothing."""
        return Reaction(detect_s=self.detect_s) if self.network == "controller" else None
