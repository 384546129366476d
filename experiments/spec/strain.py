"""The key `strain` of an experiment: its options are those that the kinds of `traffic.strain` declare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Annotated, Any, ClassVar, get_type_hints

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializeAsAny,
    create_model,
    model_validator,
)

from experiments.spec.fields import Keys
from experiments.spec.messages import shown
from experiments.spec.units import format_share, parse_share
from traffic.strain import STRAINS, Strain
from traffic.strain.strain import Number, Share


class StrainEntry(Keys):
    """One kind of strain, with the options that its class declares; the first option may be written by itself."""

    kind: ClassVar[type[Strain]]

    @model_validator(mode="before")
    @classmethod
    def _first_option_alone(cls, value: Any) -> Any:
        return value if isinstance(value, dict | StrainEntry) else {next(iter(cls.model_fields)): value}

    def strain(self) -> Strain:
        """Return what it puts on a schedule."""
        return self.kind(**dict(self))

    def __str__(self) -> str:
        """Return the kind and its options, as in 'stragglers ranks=1 slow=2.0'."""
        written = self.model_dump(mode="json")
        return " ".join([self.kind.key, *(f"{name}={value}" for name, value in written.items())])


class StrainSpec(Keys):
    """What takes away some of what makes a single path do well; see `traffic.strain`."""

    @property
    def entries(self) -> list[StrainEntry]:
        """Return those that change something."""
        entries = (getattr(self, kind.key) for kind in STRAINS)
        return [entry for entry in entries if entry is not None and not entry.strain().is_none]

    def strains(self) -> list[Strain]:
        """Return what is put on every schedule."""
        return [entry.strain() for entry in self.entries]

    def __str__(self) -> str:
        return ", ".join(map(str, self.entries))


def _kind(kind: type[Strain]) -> type[StrainEntry]:
    """The mapping that people write for a kind."""
    hints = get_type_hints(kind, include_extras=True)
    options: dict[str, Any] = {}
    for option in fields(kind):
        assert option.default is not MISSING, "every option of a strain has a default"
        options[option.name] = _option(hints[option.name], option.default)
    model = create_model("StrainEntry", __base__=StrainEntry, __module__=__name__, **options)
    model.kind = kind
    return model


def _option(hint: Any, default: object) -> tuple[Any, Any]:
    match getattr(hint, "__metadata__", ()):
        case [Share(says, below)]:
            read = BeforeValidator(lambda value: parse_share(str(value), below))
            return Annotated[float, read, PlainSerializer(format_share)], Field(default=default, description=says)
        case [Number() as number]:
            kind: Any = hint.__origin__
            checked = Annotated[kind, BeforeValidator(_within(number, whole=kind is int))]
            return checked, Field(default=default, description=number.says)
    return hint, default


def _within(number: Number, *, whole: bool) -> Callable[[Any], int | float]:
    def check(value: Any) -> int | float:
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not right or not number.least <= value <= number.most:
            raise ValueError(f"{shown(value)} is not {number.says}")
        return value if whole else float(value)

    return check


_KINDS = {kind.key: _kind(kind) for kind in STRAINS}
_KEYS: dict[str, Any] = {
    key: (entry | None, Field(default=None, description=f"a mapping with {', '.join(entry.model_fields)}"))
    for key, entry in _KINDS.items()
}
_SPEC = create_model("StrainSpec", __base__=StrainSpec, __module__=__name__, **_KEYS)


def kind_of_strain(key: object = None) -> type[Keys]:
    """Return the mapping that a key of `strain` has, or `strain` itself."""
    return _KINDS[key] if isinstance(key, str) and key in _KINDS else _SPEC


def _read(strain: object) -> StrainSpec:
    return strain if isinstance(strain, StrainSpec) else _SPEC.model_validate(strain)


Strains = Annotated[SerializeAsAny[StrainSpec], PlainValidator(_read)]
