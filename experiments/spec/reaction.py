"""The key `reaction` of an experiment: what the network and the hosts do about what breaks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from emulator.faults import Reaction
from experiments.spec.fields import Keys, TimeS
from traffic.repath import Repath


class HostsSpec(Keys):
    """When hosts move a connection to another path: see `traffic.repath`."""

    repath_after_s: TimeS = Field(alias="repath_after", description="a time such as 300ms")
    mask_s: TimeS = Field(default=10.0, alias="mask", description="a time such as 10s")


class ReactionSpec(Keys):
    """Who does something about links that are down, and how soon."""

    network: Literal["none", "controller", "local"] = "none"
    detect_s: TimeS = Field(default=0.01, alias="detect", description="a time such as 10ms")

    hosts: HostsSpec | None = Field(default=None, description="a mapping such as {repath_after: 300ms}")

    def of_network(self) -> Reaction | None:
        """Return what the network does; None: nothing."""
        return None if self.network == "none" else Reaction(detect_s=self.detect_s, local=self.network == "local")

    def of_hosts(self) -> Repath | None:
        """Return what the hosts of a replay do; None: nothing."""
        return Repath(after_s=self.hosts.repath_after_s, mask_s=self.hosts.mask_s) if self.hosts else None
