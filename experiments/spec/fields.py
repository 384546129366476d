"""What fields of an experiment are made of: units, ranges and choices, each said once for the check and its errors.

A field says what is right in words that follow both "write" and "is not": in its `description`, or by a `Between` or a
Literal in its type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from emulator.inputs import quote
from experiments.spec.units import (
    RATE_PATTERN,
    SIZE_PATTERN,
    TIME_PATTERN,
    format_rate_bps,
    format_size_bytes,
    format_time_s,
    parse_rate_bps,
    parse_size_bytes,
    parse_time_s,
)

MAX_ENTRIES = 1000  # of a list


class Keys(BaseModel):
    """A mapping of the file. Its keys are aliases of fields that carry their unit: `host_rate` of `host_rate_bps`."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


def keys(model: type[Keys]) -> dict[str, str]:
    """Return every key of a mapping, and what is right for it."""
    return {field.alias or name: _says(field) for name, field in model.model_fields.items()}


def _says(field: FieldInfo) -> str:
    for part in field.metadata:
        if isinstance(part, Between):
            return part.says
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(field.annotation)))}"
    return field.description or ""


@dataclass(frozen=True)
class Between:
    """The range of a whole number (of bytes, say). `too_few` and `too_many` say why, and name {least} and {most}."""

    least: int
    most: int
    too_few: str
    too_many: str
    of: str = ""

    @property
    def says(self) -> str:
        return f"a whole number{f' of {self.of}' if self.of else ''} from {self.least} to {self.most}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), "minimum": self.least, "maximum": self.most}

    def _checked(self, value: int) -> int:
        limits = {"least": self.least, "most": self.most}
        if value < self.least:
            raise ValueError(f"{value} is too small: {self.too_few.format(**limits)}")
        if value > self.most:
            raise ValueError(f"{value} is too large: {self.too_many.format(**limits)}")
        return value


@dataclass(frozen=True)
class Matches:
    """A check that all of a text matches a pattern; `allowed` says what does."""

    pattern: str
    allowed: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), "pattern": f"^(?:{self.pattern})$"}

    def _checked(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise ValueError(f"{quote(value)} is not {self.allowed}")
        return value


def some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Check that a list is neither empty nor endless."""
    if not values:
        raise ValueError("the list is empty; write at least one")
    if len(values) > MAX_ENTRIES:
        raise ValueError(f"the list has {len(values)} entries; write at most {MAX_ENTRIES}")
    return values


def one_of_each(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Check that a list is not empty and has nothing twice."""
    if not values:
        raise ValueError("the list is empty; write at least one")
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value} is there twice; keep one")
        seen.add(value)
    return values


class Auto(Enum):
    """A value that is not known yet, and that nothing can be computed with."""

    RATE = "auto"
    """The rate that this machine carries faithfully, until `experiments.machine.calibration` has put it in."""


def _written(parse: Callable[[str], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse("" if value is None else str(value)))


def _rate(text: str) -> int | Auto:
    return Auto.RATE if text == Auto.RATE.value else parse_rate_bps(text)


def _format_rate(rate_bps: int | Auto) -> str:
    return rate_bps.value if isinstance(rate_bps, Auto) else format_rate_bps(rate_bps)


def _text(pattern: str) -> WithJsonSchema:
    """What editors are told of a field that is written as text."""
    return WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$"})


RateBps = Annotated[
    int | Auto, _written(_rate), PlainSerializer(_format_rate), _text(f"{Auto.RATE.value}|{RATE_PATTERN}")
]
SizeBytes = Annotated[int, _written(parse_size_bytes), PlainSerializer(format_size_bytes), _text(SIZE_PATTERN)]
TimeS = Annotated[float, _written(parse_time_s), PlainSerializer(format_time_s), _text(TIME_PATTERN)]

_AT_ONCE = "0s"
DelayS = Annotated[
    float,
    _written(lambda text: 0.0 if text in ("0", _AT_ONCE) else parse_time_s(text)),
    PlainSerializer(lambda seconds: format_time_s(seconds) if seconds else _AT_ONCE),
    _text(f"{_AT_ONCE}|{TIME_PATTERN}"),
]
"""A time that may be none."""
