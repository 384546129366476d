"""What is asked of a fabric, as it passes from whoever plans to the sandbox that builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from emulator.topology import LeafSpine


@dataclass(frozen=True)
class FabricOrder:
    """A fabric to build: its topology, and how hosts, ports and switches are to be.

    `sysctls` are those of every host's network namespace. `acknowledgements` "first": they wait behind no data, on any
    port; "in-turn": they do. `dataplane` names what forwards packets, or is "auto"; `userspace_limit_bps` is how much
    traffic of all hosts together a switch in user space is thought to carry faithfully, None where nothing is known.
    `congestion_control` is for programs, which open sockets as they like: hosts have it on their route to the fabric's
    prefix, and have no other route; None, for replays: a socket asks for its own.
    """

    topology: LeafSpine
    sysctls: Mapping[str, str] = field(default_factory=dict)
    acknowledgements: Literal["first", "in-turn"] = "first"
    dataplane: str = "auto"
    userspace_limit_bps: int | None = None
    congestion_control: str | None = None

    @property
    def for_programs(self) -> bool:
        """Return whether unmodified programs are to run on the hosts."""
        return self.congestion_control is not None
