"""What a fabric asks of whatever forwards packets in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from emulator.forwarding import Forwarding
from emulator.topology import LeafSpine, Link

if TYPE_CHECKING:
    from emulator.fabric import Fabric


class Endpoints(NamedTuple):
    """A TCP connection without a path tag, as its first packet is addressed; its answers are meant as well."""

    src_host: int
    dst_host: int
    src_port: int
    dst_port: int


class Dataplane(Protocol):
    """The leaves and spines of one fabric. Made first, so that what takes long can begin; then `start`, `program`."""

    @property
    def name(self) -> str: ...

    @property
    def why(self) -> str:
        """What decided that it is this data plane: one clause for the user."""

    @property
    def version(self) -> str | None:
        """Open vSwitch's version, where packets are forwarded by it."""

    @property
    def switch(self) -> Any:
        """Mininet's class for a leaf or spine, made with `switch_options`."""

    @property
    def switch_options(self) -> Mapping[str, Any]: ...

    @property
    def sysctls(self) -> Mapping[str, str] | None:
        """The sysctls of each switch's own network namespace; None: the switches live in the sandbox's."""

    @property
    def macs(self) -> Mapping[str, str]:
        """The MAC that all ports of a switch have, by the switch's name; ports of others get random ones."""

    @property
    def whole_frames(self) -> bool:
        """Whether frames must be complete when they come, as checksums still to be filled in would be passed on so."""

    @property
    def hashes_as_predicted(self) -> bool:
        """Whether connections nobody announced are hashed to the paths that `controllers.hashing` says."""

    @property
    def watched_pids(self) -> Sequence[int]:
        """The processes that forward packets."""

    def start(self, fabric: Fabric) -> None:
        """Begin to forward, now that nodes and links are there and every port is up."""

    def program(
        self,
        topology: LeafSpine,
        seed: int,
        connections: Sequence[Endpoints],
        forwarding: Forwarding | None,
        *,
        protected: bool,
    ) -> None:
        """Have every switch hold its table: see `Fabric.program`."""

    def notice(self, links: Collection[Link]) -> None:
        """Have each leaf see which of its uplinks are down, and others not; it is protected: see `Fabric.notice`."""

    def lose_controller(self) -> None:
        """Kill what tells switches what to hold, if that is a process of its own; they go on as they are."""

    def restore_controller(self) -> None:
        """Start it again. It knows nothing; the next `program` waits for it."""

    def warmed_up(self) -> int | None:
        """Do what takes a first packet, now that some have passed.

        Returns the depth of the packet buffers that were raised, in bytes, if any were.
        """
