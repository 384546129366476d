"""Files that whoever calls us names: opened by their rights, and only where they are what they are taken for."""

from __future__ import annotations

import re
from pathlib import Path

from emulator.files import OddFileError, TooLargeError, open_input, read_at_most


class InputError(ValueError):
    """A file that is not read; the message goes on from the file's name: 'cannot be read: ...', 'is a pipe, ...'."""


def read_input(path: str | Path, most_bytes: int) -> bytes:
    """Read all of the regular file `path`, as the caller may read it. Raises InputError; never waits for a writer."""
    try:
        with open_input(Path(path)) as file:
            return read_at_most(file, most_bytes)
    except OddFileError as error:
        raise InputError(f"{error.strerror}; name a file") from error
    except TooLargeError as error:
        raise InputError(str(error.strerror)) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError("cannot be the name of a file") from error


def plain(text: str) -> str:
    """Return `text` without what moves a cursor, changes colours, or is half a character."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def quote(text: str, most: int = 24) -> str:
    """Put what was written in quotes: as short as a sentence can take, and with nothing a terminal would act upon."""
    shown = repr(text if len(text) <= most else f"{text[: most - 3]}...")
    return shown if shown.isprintable() else ascii(shown)
