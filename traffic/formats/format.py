"""What a format of files that list flows, or training jobs, says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, signature
from typing import Any, NamedTuple, get_args, get_type_hints

from traffic.schedule import Schedule

_OF_THE_FABRIC = ("ranks", "scale")


class FormatError(ValueError):
    """A file that is no schedule; the message says file, line and what would be right."""


class Option(NamedTuple):
    """A keyword parameter of a reader: its type, what is right in words that follow "write", and its default."""

    kind: Any
    says: str
    default: Any


@dataclass(frozen=True)
class Format:
    """A format of files. An entry `{KEY: FILE}` of an experiment's `traffic` names a file of it.

    `suffix` is how its files' names end, in examples; files of other names are read too. `says` is what such a file is.
    `read` gives the schedule of a file, and raises FormatError. Its keyword parameters are keys that the entry may
    have, annotated with their type and what is right; `ranks` is the number of the fabric's hosts unless the entry has
    another, and `scale` a `traffic.jobs.graph.Scale`. `write` gives the text of a schedule, and raises FormatError
    where the format cannot say it.
    """

    key: str
    suffix: str
    says: str
    read: Callable[..., Schedule]
    write: Callable[[Schedule], str] | None = None

    @cached_property
    def options(self) -> Mapping[str, Option]:
        """Return the keys that an entry may have besides the file's, by name."""
        hints = get_type_hints(self.read, include_extras=True)
        own = self._parameters.keys() - set(_OF_THE_FABRIC)
        return {
            name: Option(kind, says, self._parameters[name].default)
            for name, (kind, says) in ((name, get_args(hints[name])[:2]) for name in self._parameters if name in own)
        }

    def takes(self, name: str) -> bool:
        """Return whether `read` wants `ranks`, or `scale`."""
        return name in self._parameters

    @cached_property
    def _parameters(self) -> Mapping[str, Parameter]:
        parameters = signature(self.read).parameters
        return {name: each for name, each in parameters.items() if each.kind is Parameter.KEYWORD_ONLY}
