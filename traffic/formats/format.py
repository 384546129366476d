"""What a format of files that list flows says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from traffic.schedule import Schedule


class FormatError(ValueError):
    """A file that is no schedule; the message says file, line and what would be right."""


@dataclass(frozen=True)
class Format:
    """A format of files. An entry `{KEY: FILE}` of an experiment's `traffic` names a file of it.

    `suffix` is how its files' names end, in examples; files of other names are read too. `says` is what such a file is.
    `read` gives the schedule of a file, and raises FormatError.
    """

    key: str
    suffix: str
    says: str
    read: Callable[[Path], Schedule]
