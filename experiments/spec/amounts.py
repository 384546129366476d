"""Amounts that an experiment may have in percent of something: of a run's bound, of a link's rate."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from emulator.inputs import quote
from experiments.spec.units import format_rate_bps, format_time_s, parse_rate_bps, parse_time_s

_MOST_PERCENT = 100_000


@dataclass(frozen=True)
class Amount:
    """An amount as an experiment has it: of its own unit, or in percent of something."""

    value: float
    percent: bool = False

    def of(self, whole: float) -> float:
        """Return the amount, if `whole` is what it is a part of."""
        return self.value / 100 * whole if self.percent else self.value


def _amount(parse: Callable[[str], float], example: str) -> BeforeValidator:
    """A check that a value is a part in percent, or what `parse` takes; zero as well."""

    def read(value: object) -> Amount:
        if isinstance(value, Amount):
            return value
        text = "" if value is None else str(value).strip()
        if match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", text):
            if float(match[1]) > _MOST_PERCENT:
                raise ValueError(f"{quote(text)} is too large; write {example}")
            return Amount(float(match[1]), percent=True)
        if re.fullmatch(r"0+(\.0+)? ?(us|ms|s)", text):
            return Amount(0.0)
        return Amount(parse(text))

    return BeforeValidator(read)


def _written(write: Callable[[float], str]) -> PlainSerializer:
    return PlainSerializer(
        lambda amount: f"{repr(amount.value).removesuffix('.0')}%" if amount.percent else _zero_or(write, amount.value)
    )


def _zero_or(write: Callable[[float], str], value: float) -> str:
    return write(value) if value else "0s"


Moment = Annotated[Amount, _amount(parse_time_s, "a time such as 2s or 30%"), _written(format_time_s)]
"""A time in seconds, or in percent of a run's bound."""

PartOfRate = Annotated[
    Amount, _amount(parse_rate_bps, "a rate such as 5mbit or 50%"), _written(lambda rate: format_rate_bps(int(rate)))
]
"""A rate in bits/s, or in percent of a link's."""
