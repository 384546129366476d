"""Standard output and standard error: what happens where they cannot be written."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn, TextIO, cast

import click

from emulator.inputs import plain

BAD_INPUT = 2
_CLOSED = 128 + signal.SIGPIPE  # as of a program that the signal ends


class OutputError(Exception):
    """An output cannot be written; one sentence. `closed`: whoever read it has gone, and need not be told."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror or error}")
        self.closed = isinstance(error, BrokenPipeError)


def complain(sentence: str) -> None:
    """Tell standard error, if it can be told."""
    with contextlib.suppress(OSError):
        click.echo(plain(f"spraylab: {sentence}"), err=True)


def echo(lines: str) -> None:
    """Print on standard output, as it is but for what a terminal would act upon: names in it may be anybody's."""
    click.echo(plain(lines))


def end(sentence: str, status: int) -> NoReturn:
    """Tell standard error, and end the command."""
    complain(sentence)
    sys.exit(status)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Meanwhile, standard output is one whose failure ends the command in a sentence; standard error's is ignored."""
    before = sys.stdout, sys.stderr
    stdout, stderr = (Guarded(stream or _nowhere(), do) for stream, do in zip(before, (refuse, _ignore), strict=True))
    sys.stdout, sys.stderr = cast(TextIO, stdout), cast(TextIO, stderr)
    try:
        try:
            yield
        finally:
            stdout.flush()
            stderr.flush()
    except OutputError as error:
        if error.closed:
            sys.exit(_CLOSED)
        complain(str(error))
        sys.exit(BAD_INPUT)
    finally:
        sys.stdout, sys.stderr = before


class Guarded:
    """A stream that tells `on_failure` once where it cannot be written; what is written from then on goes nowhere."""

    def __init__(self, stream: IO[str], on_failure: Callable[[OSError], None]) -> None:
        self._stream, self.on_failure, self.lost = stream, on_failure, False
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that a terminal lacks is no reason to end

    def write(self, text: str) -> int:
        if text != "" and not self.lost:  # click tries a stream by writing nothing, and is told of no failure
            try:
                self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if not self.lost:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = True
        with contextlib.suppress(OSError), Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), self._stream.fileno())  # what waits in a buffer would fail again as Python ends
        self.on_failure(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def refuse(error: OSError) -> NoReturn:
    raise OutputError(error)


def _ignore(_error: OSError) -> None:
    """Nobody is left to be told."""


def _nowhere() -> TextIO:
    """In place of a stream that was closed before Python began."""
    return Path(os.devnull).open("w")
