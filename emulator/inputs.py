"""Files that whoever calls us names: opened by their rights, and only where they are what they are taken for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from emulator.caller import as_caller

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class InputError(ValueError):
    """A file that is not read; the message goes on from the file's name: 'cannot be read: ...', 'is a pipe, ...'."""


def read_input(path: str | Path, most_bytes: int) -> bytes:
    """Read all of the regular file `path`, as the caller may read it. Raises InputError; never waits for a writer."""
    try:
        with as_caller():
            # A pipe without a writer would hold us until one comes.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = next((name for has_it, name in _KINDS if has_it(status.st_mode)), "something else")
                raise InputError(f"is {kind}, not a regular file; name a file")
            content = b""
            if status.st_size <= most_bytes:  # files of /proc are of size 0 and have content all the same
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    content = file.read(most_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError("cannot be the name of a file") from error
    if max(len(content), status.st_size) > most_bytes:
        raise InputError(f"is larger than the {most_bytes} bytes that are read of such a file")
    return content


def quote(text: str, most: int = 24) -> str:
    """Put what was written in quotes: as short as a sentence can take, and with nothing a terminal would act upon."""
    shown = repr(text if len(text) <= most else f"{text[: most - 3]}...")
    return shown if shown.isprintable() else ascii(shown)
