"""What a scheme is: everything that planning, NICs, theory and reports ask of one, with what holds for most."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from emulator.forwarding import Forwarding
from emulator.nic import Nic
from emulator.topology import LeafSpine
from traffic.plan import UNTAGGED, cut
from traffic.schedule import Schedule

Split = list[tuple[int, int]]
"""A flow's pieces in the order of its bytes: where each goes (a spine, or its path tag) and its size in bytes."""

Role = Literal["plain", "spraying", "splitting"]
"""What the verdict compares: what fabrics do anyhow, a path for every packet, a single path with splitting."""

INK = "#010203"
"""Stands for a page's own text colour, until a figure is put into the page."""


@dataclass(frozen=True)
class Look:
    """How a scheme is drawn. Colour never stands alone: marker and dashes tell schemes apart in grey as well.

    `marker` and `dashes` are matplotlib's.
    """

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[float, ...]]


_SPARE_COLOURS = ("#E69F00", "#56B4E9", INK, "#999999")  # what ecmp, spray, ethereal, spray-random leave of Okabe-Ito
_SPARE_MARKERS = ("v", "P", "X", ">", "p", "*", "8", "H")
_SPARE_DASHES: tuple[tuple[float, ...], ...] = tuple(
    (long, 1, *(1, 1) * dots) for long in (6, 8, 10) for dots in range(3)
)


def spare_look(number: int) -> Look:
    """Return a look that no single scheme has: for a member of a family, or of a name that nobody knows.

    No two numbers from 0 to 71 look alike, as pairs of marker and dashes are 8 x 9; powers of two, which are compared
    most, differ most.
    """
    colour = _SPARE_COLOURS[number.bit_length() % 4]
    return Look(colour, _SPARE_MARKERS[number % 8], (0, _SPARE_DASHES[number % 9]))


@dataclass(frozen=True)
class ForPrograms:
    """What unmodified programs have of a scheme: in one clause, and what the hosts' NICs do for it."""

    says: str
    nic: Nic | None = None


@dataclass(frozen=True)
class Needs:
    """What a scheme takes that not everybody has: in a few words, and why a data plane, by its name or as it is asked
    for, or this machine has it not; None where they do.
    """

    says: str
    lacking: Callable[[str], str | None]


def on_routers(missing: str) -> Needs:
    """What Linux routers do and Open vSwitch does not, which says so by `missing`."""
    return Needs("Linux routers (fabric.dataplane: linux)", partial(_lacking_on_ovs, missing))


def _lacking_on_ovs(missing: str, dataplane: str) -> str | None:
    if dataplane.startswith("ovs"):
        return missing
    return f"on Open vSwitch, should auto take it: {missing}" if dataplane == "auto" else None


@dataclass(frozen=True, eq=False, kw_only=True)
class Scheme:
    """One way for bytes to meet paths. Schemes are equal if their names are.

    `says` is one clause: what happens to packets, and where. `nic` is what the hosts' NICs do to the packets of a
    replay, and `switch` what leaves do instead of hashing those that have no tag; `for_programs` is None where only the
    program itself could do it. `spreads`: every packet may take any live path, and all paths share alike; if
    `weighted`, as the rates of their links.
    `connections_per_flow` carry a flow that stays within its leaf, and every flow unless `assign` and `tags` say
    otherwise; each is of TCP, or of MPTCP with `kernel_subflows`.

    `acts` is where paths are chosen and `source` who has it from whom; `needs` is what not everybody has, and
    `unpredicted` why theory cannot say which paths it takes.
    """

    name: str
    says: str
    look: Look
    role: Role | None = None
    nic: Nic | None = None
    switch: Forwarding | None = None
    for_programs: ForPrograms | None = None
    spreads: bool = False
    weighted: bool = False
    connections_per_flow: int = 1
    kernel_subflows: int = 0
    acts: str = "in switches"
    source: str = ""
    needs: Needs | None = None
    unpredicted: str = ""

    def assign(self, schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]) -> list[Split]:
        """The path tag and the size of every piece of every flow; `hosts[r]` is the host of rank r.

        Raises ValueError where the scheme chooses among spines and none is left.
        """
        untagged = [UNTAGGED] * self.connections_per_flow
        return [equal_pieces(flow.size_bytes, untagged) for flow in schedule.flows]

    def tags(self, flows: int, spines: Sequence[int]) -> list[list[int]]:
        """The path tags of the equal pieces of each of `flows` equal flows from one host to another leaf."""
        return [[UNTAGGED] * self.connections_per_flow] * flows

    def most_pieces(self, schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]) -> int:
        """The most pieces that `assign` would list, failed links aside."""
        return self.connections_per_flow * len(schedule.flows)

    def estimate_factor(self, *, reordering_tolerant: bool) -> float:
        """Roughly how many times as long as the bound a run takes."""
        return 1.1

    @property
    def about(self) -> dict[str, str]:
        """What there is to know of it besides what it does to packets: headings, each with a clause."""
        alike = "by the rates of their links" if self.weighted else "alike"
        way = f"all live paths share its bytes {alike}" if self.spreads else "each connection's bytes on its path"
        facts = {
            "acts": self.acts,
            "source": self.source,
            "needs": self.needs.says if self.needs else "",
            "predicted": f"no: {self.unpredicted}" if self.unpredicted else f"as a fluid, {way}",
        }
        return {heading: clause for heading, clause in facts.items() if clause}

    def lacking(self, dataplane: str) -> str | None:
        """Return why it cannot be had with a data plane, by its name or as it is asked for; None: it can."""
        return self.needs.lacking(dataplane) if self.needs else None

    @property
    def program_nic(self) -> Nic | None:
        """What the hosts' NICs do to the packets of unmodified programs."""
        return self.for_programs.nic if self.for_programs else None

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scheme) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True)
class Family:
    """Schemes that differ in a number, which is part of their names.

    `name` stands for all members, as does `says`; the capital in it, for a number from `least` to `most`. `make` gives
    the scheme of a name and its number. `for_programs`: unmodified programs can have them.
    """

    name: str
    least: int
    most: int
    says: str
    make: Callable[[str, int], Scheme]
    for_programs: bool = False

    @property
    def limits(self) -> str:
        """Which numbers there are; follows `name` in errors."""
        return f"with {''.join(filter(str.isupper, self.name))} from {self.least} to {self.most}"

    @property
    def pattern(self) -> str:
        """The regular expression of members' names, but for the limits of their numbers."""
        return re.sub("[A-Z]", "([1-9][0-9]{0,5})", self.name)

    def member(self, name: str) -> Scheme | None:
        """Return the scheme of a name; None where no member is called so."""
        match = re.fullmatch(self.pattern, name)
        if not match or not self.least <= int(match[1]) <= self.most:
            return None
        return self.make(name, int(match[1]))


def equal_pieces(size_bytes: int, path: Sequence[int]) -> Split:
    """`size_bytes` in as many pieces as `path` has places, or fewer where there are too few bytes."""
    return list(zip(path, cut(size_bytes, len(path)), strict=False))
