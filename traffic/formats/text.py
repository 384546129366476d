"""Text files, line by line: what every format's reader does before and after the lines mean anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import NoReturn

from emulator.inputs import InputError, quote, read_input
from traffic.formats.format import FormatError

MOST_BYTES = 16 * 1024 * 1024
"""A few hundred thousand lines, which already take seconds to read."""

_WHOLE = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Line:
    """A line that says something, as words."""

    path: Path
    number: int
    words: tuple[str, ...]

    def fail(self, message: str) -> NoReturn:
        """Raise FormatError with the line's place and `message`."""
        raise FormatError(f"{self.path}:{self.number}: {message}")

    def whole(self, what: str, word: str) -> int:
        """Return a whole number, 0 or more."""
        if not _WHOLE.fullmatch(word):
            self.fail(f"{what} must be a whole number, 0 or more, not {quote(word)}")
        return int(word)

    def number_of(self, what: str, word: str) -> float:
        """Return a number, 0 or more."""
        if not _DECIMAL.fullmatch(word) or not isfinite(float(word)):
            self.fail(f"{what} must be a number, 0 or more, not {quote(word)}")
        return float(word)


def read_text(path: Path, says: str, most_bytes: int = MOST_BYTES) -> str:
    """Return the text of a file that is to be `says`. Raises FormatError."""
    try:
        return read_input(path, most_bytes).decode("utf-8-sig")
    except InputError as error:
        raise FormatError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not text, and so not {says}") from error


def read_lines(path: Path, says: str, comment: str | None = None) -> Iterator[Line]:
    """Return the lines of a file that have words, without what follows `comment`. Raises FormatError."""
    for number, line in enumerate(read_text(path, says).splitlines(), start=1):
        words = (line.partition(comment)[0] if comment else line).split()
        if words:
            yield Line(path, number, tuple(words))
