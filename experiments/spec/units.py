"""Rates, sizes and times as people write them: 20mbit, 4MB, 10ms.

Rates are spelt as tc spells them, decimal; sizes as IEC 80000-13 has them (kB is written KB, as nccl-tests does). Read
are other spellings too, such as 10Gbps, 10 Gb/s and 100kB, where they mean the same to everybody; mbps does not. Every
value is positive, and what `format_*` writes, `parse_*` reads back as the same number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from emulator.inputs import quote

_NUMBER_AND_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-zµμ/]+)")


@dataclass(frozen=True)
class _Quantity:
    """One kind of value. `units` go from small to large; `most` keeps typing slips away from the machine."""

    name: str
    example: str
    units: Mapping[str, Decimal]
    most: Decimal
    whole: str = ""  # what a value is a whole number of, where it is
    spellings: Mapping[str, str] = field(default_factory=dict)  # of units, which others write and mean the same by

    def parse(self, text: str) -> Decimal:
        """The value in the base unit. Raises ValueError with one sentence that says what would be right."""
        match = _NUMBER_AND_UNIT.fullmatch(text)
        unit = self.spellings.get(match[2], match[2]) if match else ""
        if match is None or unit not in self.units:
            raise ValueError(f"{self._what_is_wrong(text)}; write {self.example}")
        value = Decimal(match[1]) * self.units[unit]
        if value == 0:
            raise ValueError(f"{quote(text)} is too small; write {self.example}")
        if value > self.most:
            raise ValueError(f"{quote(text)} is too large: a {self.name} is at most {self.format(self.most)}")
        if self.whole and value != value.to_integral_value():
            raise ValueError(f"{quote(text)} is not a whole number of {self.whole}; write {self.example}")
        return value

    def format(self, value: Decimal) -> str:
        """The shortest way to write it, which is an exact one; of equally short ones, that of the largest unit."""
        return min((f"{_plain(value / size)}{unit}" for unit, size in reversed(list(self.units.items()))), key=len)

    @property
    def pattern(self) -> str:
        """What `parse` reads, as a regular expression that every dialect knows."""
        units = "|".join(sorted({*self.units, *self.spellings}, key=lambda unit: (-len(unit), unit)))
        return rf"[0-9]+(?:\.[0-9]+)? ?(?:{units})"

    def _what_is_wrong(self, text: str) -> str:
        match = _NUMBER_AND_UNIT.fullmatch(text.replace(" ", "").removeprefix("-"))
        if match is None:
            unit_missing = ": its unit is missing" if re.fullmatch(r"-?[0-9.]+", text) else ""
            return f"{quote(text)} is not a {self.name}{unit_missing}"
        if text.startswith("-"):
            return f"{quote(text)} is negative"
        if match[2] in _BYTES_OR_BITS:
            return f"{quote(text)} may be bits or bytes, which tc(8) means by it"
        for other in _QUANTITIES:
            if match[2] in (*other.units, *other.spellings) and other is not self:
                return f"{quote(text)} is a {other.name}, not a {self.name}"
        for unit in self.units:
            if match[2].lower() == unit.lower():
                return f"{quote(text)} is not a {self.name}, {match[1]}{unit} is"
        return f"{quote(text)} is not a {self.name}: there is no unit {quote(match[2])}"


def _plain(number: Decimal) -> str:
    """Without exponent or trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_BYTES_OR_BITS = ("bps", "kbps", "mbps", "gbps")
_RATE = _Quantity(
    name="rate",
    example="a rate such as 20mbit or 1gbit",
    units={"bit": Decimal(1), "kbit": Decimal(10**3), "mbit": Decimal(10**6), "gbit": Decimal(10**9)},
    most=Decimal(10**12),
    whole="bits per second",
    spellings={
        **{f"{letter}bit{end}": f"{letter.lower()}bit" for letter in ("K", "M", "G") for end in ("", "/s", "ps")},
        **{f"{letter}bit{end}": f"{letter}bit" for letter in ("", "k", "m", "g") for end in ("/s", "ps")},
        **{f"{letter}b/s": f"{letter.lower()}bit" for letter in ("", "k", "K", "M", "G")},
        "Mbps": "mbit",
        "Gbps": "gbit",
    },
)
_SIZE = _Quantity(
    name="size",
    example="a size such as 4MB, 64KB or 4MiB",
    units={
        "B": Decimal(1),
        "KB": Decimal(10**3),
        "KiB": Decimal(2**10),
        "MB": Decimal(10**6),
        "MiB": Decimal(2**20),
        "GB": Decimal(10**9),
        "GiB": Decimal(2**30),
    },
    most=Decimal(10**12),
    whole="bytes",
    spellings={"kB": "KB"},
)
_TIME = _Quantity(
    name="time",
    example="a time such as 10ms or 2s",
    units={"us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1)},
    most=Decimal(86_400),
    spellings={"µs": "us", "μs": "us"},  # the micro sign, and the Greek letter
)
_QUANTITIES = (_RATE, _SIZE, _TIME)

RATE_PATTERN, SIZE_PATTERN, TIME_PATTERN = (quantity.pattern for quantity in _QUANTITIES)
"""What is read as a rate, a size and a time: regular expressions for editors."""


def parse_rate_bps(text: str) -> int:
    """Read '20mbit', '2.5gbit', '100kbit' -> bits per second. Raises ValueError with one sentence."""
    return int(_RATE.parse(text))


def parse_size_bytes(text: str) -> int:
    """Read '4MB' (4 x 10^6), '4MiB', '64KB', '512B' -> bytes. Raises ValueError with one sentence."""
    return int(_SIZE.parse(text))


def parse_time_s(text: str) -> float:
    """Read '10ms', '2s', '50us' -> seconds. Raises ValueError with one sentence."""
    return float(_TIME.parse(text))


def parse_share(text: str, below: float = 1) -> float:
    """Read '5%', '0.05' or '.05' -> 0.05; 0 too. Raises ValueError with one sentence."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)( ?%)?", text.strip())
    if match is None:
        raise ValueError(f"{quote(text)} is not a share; write 5% or 0.05")
    share = float(Decimal(match[1]) / (100 if match[2] else 1))
    if share >= below:
        raise ValueError(f"{quote(text)} is not a share below {100 * below:g}%; write 5% or 0.05")
    return share


def format_rate_bps(rate_bps: int) -> str:
    """Write 20_000_000 -> '20mbit'."""
    return _RATE.format(Decimal(rate_bps))


def format_size_bytes(size_bytes: int) -> str:
    """Write 4_000_000 -> '4MB'; 4_194_304 -> '4MiB'."""
    return _SIZE.format(Decimal(size_bytes))


def format_time_s(time_s: float) -> str:
    """Write 0.01 -> '10ms'. Exact: it has every digit that `repr` has."""
    return _TIME.format(Decimal(repr(time_s)))


def format_share(share: float) -> str:
    """Write 0.05 -> '5%'. Exact: it has every digit that `repr` has."""
    return f"{_plain(Decimal(repr(share)) * 100)}%"
