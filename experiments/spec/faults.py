"""The faults of an experiment: what breaks on which links, when and for how long.

A kind is a class here, whose keys are what an experiment may say of it, and one in `emulator.faults`, which does it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializeAsAny,
    StrictStr,
    field_validator,
    model_validator,
)

from emulator.faults import Blackhole, ControllerDown, Degrade, Down, Fault, Loss
from emulator.faults.fault import Direction
from emulator.ports import least_rate_bps
from emulator.topology import LeafSpine, Link
from experiments.spec.amounts import Moment, PartOfRate
from experiments.spec.fields import Keys, TimeS
from experiments.spec.links import link_named, no_link
from experiments.spec.messages import Problem, meant, shown
from experiments.spec.units import format_rate_bps, format_time_s, parse_share

_LEAST_PERIOD_S = 0.2
_MOST_PERIODS = 1000  # within one fault, which is more than a run lasts


def _share(value: object) -> float:
    share = value if isinstance(value, float) else parse_share(str(value))
    if not share:
        raise ValueError("a share of 0% loses nothing; write such as 1%")
    return share


Share = Annotated[float, BeforeValidator(_share), PlainSerializer(lambda share: f"{share * 100!r}%")]
"""A part of all packets."""


class FaultEntry(Keys):
    """One entry: a kind, and what all of them have."""

    kind: str
    at: Moment = Field(description="a time such as 2s, or 30% of a run's bound")
    lasts: Moment | None = Field(default=None, alias="for", description="a time such as 2s, or 30% of a run's bound")

    @model_validator(mode="after")
    def _lasts_a_while(self) -> FaultEntry:
        if self.lasts is not None and not self.lasts.value:
            raise ValueError("ends as it begins; write a time such as 2s for `for`, or leave it out")
        return self

    def wrong(self, fabric: LeafSpine) -> Iterator[tuple[str, str]]:
        """Return what cannot be on this fabric: a key, and a sentence."""
        return iter(())

    def beyond(self, fabric: LeafSpine) -> Iterator[tuple[str, str]]:
        """Return what cannot be at this fabric's rates: a key, and a sentence."""
        return iter(())

    @property
    def of_bound(self) -> bool:
        """Whether its times hang on a run's bound."""
        return self.at.percent or (self.lasts is not None and self.lasts.percent)

    def faults(self, fabric: LeafSpine, bound_s: float, seed: int) -> list[Fault]:
        """Return what is to happen in the run of `seed` on `fabric` whose bound, without faults, is `bound_s`."""
        lasts_s = None if self.lasts is None else self.lasts.of(bound_s)
        return self._made(fabric, {"at_s": self.at.of(bound_s), "for_s": lasts_s, **self.where(fabric)}, seed)

    def where(self, fabric: LeafSpine) -> dict[str, Any]:
        """Return what of a fault says where it happens."""
        return {}

    @abstractmethod
    def _made(self, fabric: LeafSpine, common: dict[str, Any], seed: int) -> list[Fault]:
        """Return the faults; `common` is what all kinds have."""


class ControllerDownEntry(FaultEntry):
    """A controller that dies, and comes back."""

    kind: Literal["controller_down"]

    def _made(self, fabric: LeafSpine, common: dict[str, Any], seed: int) -> list[Fault]:
        return [ControllerDown(**common)]


class LinkEntry(FaultEntry):
    """An entry about links. Exactly one of `link`, `spine`, `leaf` says what is hit."""

    link: StrictStr | None = Field(default=None, description="a link such as leaf1-spine1")
    spine: int | None = Field(default=None, strict=True, description="the number of a spine, from 1")
    leaf: int | None = Field(default=None, strict=True, description="the number of a leaf, from 1")
    direction: Direction = "both"

    @model_validator(mode="after")
    def _hits_one_thing(self) -> LinkEntry:
        named = [key for key in ("link", "spine", "leaf") if getattr(self, key) is not None]
        if not named:
            raise ValueError("says not what is hit; write one of link: leaf1-spine1, spine: 1, leaf: 1")
        if len(named) > 1:
            raise ValueError(f"names both a {named[0]} and a {named[1]}; keep one")
        return self

    def wrong(self, fabric: LeafSpine) -> Iterator[tuple[str, str]]:
        if self.link is not None and link_named(self.link, fabric) is None:
            yield "link", no_link(self.link, fabric)
            return
        for key, number, most in (("spine", self.spine, fabric.spines), ("leaf", self.leaf, fabric.leaves)):
            if number is not None and not 1 <= number <= most:
                yield key, f"{number} is no {key} of this fabric, which has {key} 1 to {most}"
                return
        if not self.links(fabric):
            key = next(key for key in ("link", "spine", "leaf") if getattr(self, key) is not None)
            yield key, f"{getattr(self, key)} has failed from the start (fabric.failed), and cannot break again"

    def links(self, fabric: LeafSpine) -> tuple[Link, ...]:
        """Return the links it is about, of those that are there from the start."""
        link = link_named(self.link, fabric) if self.link is not None else None
        return tuple(
            (leaf, spine)
            for leaf, spine in fabric.links()
            if (leaf, spine) not in fabric.failed
            and link in (None, (leaf, spine))
            and self.spine in (None, spine + 1)
            and self.leaf in (None, leaf + 1)
        )

    def where(self, fabric: LeafSpine) -> dict[str, Any]:
        return {"links": self.links(fabric), "direction": self.direction}


class DegradeEntry(LinkEntry):
    """Links that become slower."""

    kind: Literal["degrade"]
    rate: PartOfRate = Field(description="a rate such as 5mbit, or 50% of the link's")

    def beyond(self, fabric: LeafSpine) -> Iterator[tuple[str, str]]:
        least_bps = least_rate_bps(fabric.mtu_bytes)
        for most_bps in self._by_rate(fabric):
            rate_bps = int(self.rate.of(most_bps))
            if not least_bps <= rate_bps < most_bps:
                span = f"from {format_rate_bps(least_bps)} to below {format_rate_bps(most_bps)}"
                yield "rate", f"{format_rate_bps(max(rate_bps, 1))} is no slower rate of these links: write one {span}"
                return

    def _made(self, fabric: LeafSpine, common: dict[str, Any], seed: int) -> list[Fault]:
        return [
            Degrade(**{**common, "links": tuple(links)}, rate_bps=int(self.rate.of(usual_bps)))
            for usual_bps, links in self._by_rate(fabric).items()
        ]

    def _by_rate(self, fabric: LeafSpine) -> dict[int, list[Link]]:
        """Its links, by the rate they have without it."""
        found: dict[int, list[Link]] = {}
        for leaf, spine in self.links(fabric):
            found.setdefault(fabric.spine_rate_bps(spine), []).append((leaf, spine))
        return found


class BlackholeEntry(LinkEntry):
    """Links that lose everything, and stay up."""

    kind: Literal["blackhole"]

    def _made(self, fabric: LeafSpine, common: dict[str, Any], seed: int) -> list[Fault]:
        return [Blackhole(**common, seed=seed)]


class LossEntry(LinkEntry):
    """Links that lose some packets."""

    kind: Literal["loss"]
    share: Share = Field(description="a share such as 1%")

    def _made(self, fabric: LeafSpine, common: dict[str, Any], seed: int) -> list[Fault]:
        return [Loss(**common, share=self.share, seed=seed)]


class DownEntry(LinkEntry):
    """Links that are down."""

    kind: Literal["down"]

    def _made(self, fabric: LeafSpine, common: dict[str, Any], seed: int) -> list[Fault]:
        return [Down(**common, seed=seed)]


class FlapEntry(LinkEntry):
    """Links that go down and come up again, over and over: down in the first half of each period."""

    kind: Literal["flap"]
    lasts: Moment = Field(alias="for", description="a time such as 4s, or 90% of a run's bound")
    period_s: TimeS = Field(alias="period", description="a time such as 400ms")

    @field_validator("period_s")
    @classmethod
    def _slow_enough(cls, period_s: float) -> float:
        if period_s < _LEAST_PERIOD_S:
            raise ValueError(
                f"{format_time_s(period_s)} is too short: beginning and ending take milliseconds, so write "
                f"{format_time_s(_LEAST_PERIOD_S)} or more"
            )
        return period_s

    def _made(self, fabric: LeafSpine, common: dict[str, Any], seed: int) -> list[Fault]:
        times = int(min(common["for_s"] / self.period_s, _MOST_PERIODS))
        return [
            Down(
                **{**common, "at_s": common["at_s"] + number * self.period_s, "for_s": self.period_s / 2},
                seed=seed,
                again=number > 0,
            )
            for number in range(max(1, times))
        ]


ENTRIES: dict[str, type[FaultEntry]] = {
    Down.kind: DownEntry,
    "flap": FlapEntry,
    Degrade.kind: DegradeEntry,
    Blackhole.kind: BlackholeEntry,
    Loss.kind: LossEntry,
    ControllerDown.kind: ControllerDownEntry,
}
"""Every kind of entry, by its kind."""


def fault_kind_of(entry: object) -> type[FaultEntry]:
    """Return the kind that an entry is meant to be of. Raises ValueError."""
    if not isinstance(entry, dict):
        raise ValueError(f"{shown(entry)} is no fault; write such as {{at: 30%, link: leaf1-spine1, kind: ...}}")
    kind = entry.get("kind")
    if kind not in ENTRIES:
        what = "is missing its kind" if kind is None else f"{shown(kind)} is no kind of fault"
        raise ValueError(f"{what}; write one of {', '.join(ENTRIES)} as kind{meant(str(kind), ENTRIES)}")
    return ENTRIES[str(kind)]


def _read(entry: object) -> FaultEntry:
    return entry if isinstance(entry, FaultEntry) else fault_kind_of(entry).model_validate(entry)


Faults = Annotated[SerializeAsAny[FaultEntry], PlainValidator(_read)]


def impossible_faults(entries: Sequence[FaultEntry], fabric: LeafSpine, *, rates_known: bool) -> Iterator[Problem]:
    """Return what of `entries` cannot be on this fabric, whose rates may not be known yet."""
    for number, entry in enumerate(entries):
        for key, message in (*entry.wrong(fabric), *(entry.beyond(fabric) if rates_known else ())):
            yield Problem(("faults", number, key), message)


def faults_of(entries: Sequence[FaultEntry], fabric: LeafSpine, bound_s: float, seed: int) -> list[Fault]:
    """Return what is to happen in the run of `seed` whose bound, without faults, is `bound_s`."""
    return [fault for entry in entries for fault in entry.faults(fabric, bound_s, seed)]


def contradiction(faults: Sequence[Fault], fabric: LeafSpine) -> str | None:
    """Return which two of `faults` act by the same means on the same packets at one time."""
    for one, other in combinations(faults, 2):
        if one.meets(other):
            return (
                f"faults: {one.words(fabric)} and {other.words(fabric)} contradict each other: let one end before the "
                "other begins, or keep one"
            )
    return None


def without_bound(entries: Sequence[FaultEntry]) -> str | None:
    """Return which of `entries` hangs on a bound, where there is none."""
    for number, entry in enumerate(entries):
        if entry.of_bound:
            return f"faults.{number}: a program has no bound to take a part of; write its times in seconds, such as 2s"
    return None
