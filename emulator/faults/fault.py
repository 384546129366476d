"""What a fault is: what breaks, on which links, when and for how long; and how it is seen to have come about."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from emulator.faults.reaction import Reacted
from emulator.topology import LeafSpine, Link

if TYPE_CHECKING:
    from emulator.fabric import Fabric
    from emulator.ports import Port

Direction = Literal["up", "down", "both"]
"""Which packets of a link are meant: those to the spine, those to the leaf, or all."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one port was made to do, read back from the kernel; None: the controller. Times are of CLOCK_MONOTONIC.

    The kernel was asked at `asked_s` and had done it by `confirmed_s`. From then on the port sends at `rate_bps`; None
    where its rate is what it was. `destroyed_packets` of `destroyed_bytes` are those that the fault took from it, or
    from what it received, up to then, the last of them at `last_destroyed_s`; None where it took none.
    """

    port: int | None
    asked_s: float
    confirmed_s: float
    rate_bps: int | None = None
    destroyed_packets: int = 0
    destroyed_bytes: int = 0
    last_destroyed_s: float | None = None


@dataclass(frozen=True)
class InForce:
    """A fault that has begun: what it changed, and what ends it and returns what that changed."""

    changes: Sequence[Change]
    end: Callable[[], Sequence[Change]]


@dataclass(frozen=True, kw_only=True)
class Fault(ABC):
    """Something that happens to `links` `at_s` seconds after the load has begun, and is over `for_s` later.

    Without `for_s` it lasts to the end of the run, as does one whose end would come after that. What happens `again` is
    one of a series, and a run may end before it.
    """

    kind: ClassVar[str]
    predictable: ClassVar[bool] = False
    """Whether a model without packets and losses can tell what comes of it."""
    noticed: ClassVar[bool] = False
    """Whether the switches at the ends of its links see it."""
    means: ClassVar[str]
    """By what it acts: two by the same means cannot act on the same packets at once."""
    silences: ClassVar[bool] = False
    """Whether there is no controller meanwhile that hears of links."""

    at_s: float
    for_s: float | None = None
    links: tuple[Link, ...]
    direction: Direction = "both"
    again: bool = False

    @property
    def end_s(self) -> float:
        """When it is over, if the run is not; infinite for one that lasts."""
        return float("inf") if self.for_s is None else self.at_s + self.for_s

    @abstractmethod
    def begin(self, fabric: Fabric) -> InForce:
        """Make it happen; return once the kernel says that it has. Raises EmulatorError."""

    def left_bps(self, rate_bps: int) -> int:
        """Return what it leaves of a link that carries `rate_bps`, at most."""
        return rate_bps

    def sends_bps(self, rate_bps: int) -> int:
        """Return at which rate ports of its links send that are shaped to `rate_bps`, whatever comes of the packets."""
        return rate_bps

    def meets(self, other: Fault) -> bool:
        """Whether both act by the same means on the same packets at the same time."""
        directions = {self.direction, other.direction}
        return (
            self.means == other.means
            and not set(self.links).isdisjoint(other.links)
            and ("both" in directions or len(directions) == 1)
            and self.overlaps(other)
        )

    def overlaps(self, other: Fault) -> bool:
        """Whether both last at some time."""
        return self.at_s < other.end_s and other.at_s < self.end_s

    def senders(self, ports: Sequence[Port]) -> list[int]:
        """Return the places in `ports` of those that send the packets it is about."""
        return [place for place, port in enumerate(ports) if self._on(port) and self.direction in ("both", _way(port))]

    def receivers(self, ports: Sequence[Port]) -> list[int]:
        """Return the places in `ports` of those that receive the packets it is about."""
        place = {port.name: number for number, port in enumerate(ports)}
        return [place[ports[sender].peer] for sender in self.senders(ports)]

    def _on(self, port: Port) -> bool:
        return port.spine is not None and (port.leaf, port.spine) in self.links

    def words(self, fabric: LeafSpine) -> str:
        """Return it as people say it: its kind, where and when."""
        links = ", ".join(f"{fabric.leaf_name(leaf)}-{fabric.spine_name(spine)}" for leaf, spine in self.links)
        way = "" if self.direction == "both" else f" {self.direction}"
        return f"{self.kind} {links}{way} {self.span}"

    @property
    def span(self) -> str:
        """From when to when it lasts, as people say it."""
        until = "to the end" if self.for_s is None else f"to {self.end_s:.3g} s"
        return f"from {self.at_s:.3g} s {until}"


def _way(port: Port) -> Direction:
    return "up" if port.up else "down"


@dataclass(frozen=True)
class Happened:
    """A fault as it came about, due at `due_s` of CLOCK_MONOTONIC; one that did not begin has no changes.

    `reacted` is what the network did about its beginning, and then about its end, where it did something.
    """

    fault: Fault
    due_s: float
    begun: Sequence[Change] = ()
    ended: Sequence[Change] = ()
    reacted: tuple[Reacted | None, Reacted | None] = (None, None)

    @property
    def converged_s(self) -> float | None:
        """How long packets were still lost to it, on the port where that took longest; None where none was."""
        since_s = {change.port: change.confirmed_s for change in self.begun}
        lost = [(each.port, each.last_destroyed_s) for each in self.ended if each.last_destroyed_s is not None]
        return max((max(0.0, last_s - since_s[port]) for port, last_s in lost), default=None)
