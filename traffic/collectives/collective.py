"""What is known of a collective and of its algorithms besides the sends: each is declared beside its code.

A `Collective` says what is asked for, whoever carries it out: its name, what it promises, how its speed is counted. An
`Algorithm` is a function of a `Draft` that lists sends, with what can be said of them without a list: how many, and in
which pattern. The keyword parameters of that function are the options that an experiment may give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from inspect import Parameter, signature
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from traffic.collectives.layout import Span
from traffic.schedule import Schedule

Contents = frozenset[tuple[int, int]]
"""Contributions summed in a byte: (rank it came from, its offset there less its offset here)."""

Holding = list[tuple[Span, Contents]]
"""What one rank holds, in order of offset; nothing where no span says."""


@dataclass(frozen=True)
class Promise:
    """What a rank of a schedule holds at the start, and what it must hold at the end (and nowhere else matters)."""

    held: Callable[[Schedule, int], Holding]
    due: Callable[[Schedule, int], Holding]


def summed_message(schedule: Schedule, ranks: range) -> Holding:
    """Return the whole message, summed over `ranks`."""
    return [(range(schedule.size_bytes), frozenset((rank, 0) for rank in ranks))]


def own_message(schedule: Schedule, rank: int) -> Holding:
    """Return the whole message of `rank` alone."""
    return summed_message(schedule, range(rank, rank + 1))


class Pattern(NamedTuple):
    """Sends that are the same in every round, so that counts are all there is to know of the load of a link.

    On each channel every rank sends a flow a round to the rank `to` ranks on, or to each other rank if that is None.
    The message's part of a channel is cut in so many `pieces`, one a flow.
    """

    to: int | None
    rounds: int
    pieces: int


class Option(NamedTuple):
    """A keyword parameter of an algorithm. `says` is what is right, in words that follow both "write" and "is not"."""

    kind: type[int] | type[str]
    says: str
    default: int | str | None


# What parameters are annotated with: the type, and what `Option.says`.
Chunks = Annotated[int, "a whole number from 1 up"]
Window = Annotated[int | None, "a whole number from 1 up"]
Order = Annotated[str, "the name of an order such as rotated"]
Shift = Annotated[int, "a whole number of ranks"]
Seed = Annotated[int, "a whole number"]


@dataclass(frozen=True, eq=False)
class Collective:
    """A collective; `busbw_factor` is busbw / algbw for n ranks (nccl-tests, doc/PERFORMANCE.md).

    `promise` is None where nothing can be said of the data. `algorithms` are those registered, the default first.
    """

    name: str
    busbw_factor: Callable[[int], float]
    promise: Promise | None = None
    algorithms: dict[str, Algorithm] = field(default_factory=dict, init=False, repr=False)


@dataclass(frozen=True, eq=False)
class Algorithm:
    """One way to carry out a collective: `draw_up(draft, **options)` lists its sends. See `algorithm`."""

    collective: Collective
    name: str
    draw_up: Callable[..., None]
    flows: Callable[..., int]
    pattern: Callable[..., Pattern | None]
    seeded: Callable[..., bool]

    @cached_property
    def options(self) -> Mapping[str, Option]:
        """Return the options that it takes, by name."""
        hints = get_type_hints(self.draw_up, include_extras=True)
        return {
            name: _option(hints[name], parameter.default)
            for name, parameter in signature(self.draw_up).parameters.items()
            if parameter.kind is Parameter.KEYWORD_ONLY
        }

    def with_defaults(self, options: Mapping[str, int | str | None]) -> dict[str, int | str | None]:
        """Return all of its options: those given, and the defaults of the others."""
        return {name: option.default for name, option in self.options.items()} | dict(options)

    def flow_count(self, ranks: int, channels: int = 1, **options: int | str | None) -> int:
        """Return how many flows its schedule lists, found without listing them."""
        return channels * max(0, self.flows(ranks, **self.with_defaults(options)))


def algorithm(
    of: Collective,
    name: str,
    *,
    flows: Callable[..., int],
    pattern: Callable[..., Pattern | None] = lambda ranks, **_: None,
    seeded: Callable[..., bool] = lambda **options: "seed" in options,
) -> Callable[[Callable[..., None]], Algorithm]:
    """Declare the function below it as an algorithm `name` of a collective.

    `flows`, of the number of ranks and the options, says how many sends there are on each channel, and `pattern` what
    they are like if they are the same in every round, else None. `seeded`, of the options, says whether the sends
    depend on the option `seed`.
    """
    return lambda draw_up: Algorithm(of, name, draw_up, flows, pattern, seeded)


def _option(hint: Any, default: int | str | None) -> Option:
    annotated, says = get_args(hint)
    kind = str if annotated is str else int
    return Option(kind, says, default)
