"""The one place where commands print.

What is printed is data: nothing in it is taken for markup. Sentences are one line wherever no terminal breaks them, and
an output that cannot be written is one sentence: it ends a command that only prints, and no experiment.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TypeVar, cast

import rich.console
from rich.console import RenderableType
from rich.progress import track
from rich.text import Text

from emulator.inputs import plain
from experiments.commands.streams import Guarded, OutputError, complain, refuse

QUIET_S = 30.0
"""Where no terminal shows a bar, nothing is silent for longer."""

T = TypeVar("T")


class Console:
    """Where a command prints; `stream` is standard output unless another is given.

    A `quiet` one prints answers and warnings, and nothing of how they are found.
    """

    def __init__(self, stream: IO[str] | None = None, width: int | None = None, *, quiet: bool = False) -> None:
        self.quiet = quiet
        given = sys.stdout if stream is None else stream
        self.stream = given if isinstance(given, Guarded) else Guarded(given, refuse)
        file = cast(IO[str], self.stream)
        self._rich = rich.console.Console(file=file, width=width, markup=False, highlight=False, emoji=False)
        self.interactive = bool(self.stream.isatty()) and not self._rich.is_dumb_terminal
        """Whether somebody watches: there are bars then, and sentences are broken between words."""
        self._last_s = time.monotonic()

    def say(self, sentence: str, style: str = "", label: str = "") -> None:
        """Print a sentence. `style` is that of the `label` before it, or its own where it has none."""
        text = Text(plain(sentence), "" if label else style)
        shown = Text.assemble((plain(label), style), " ", text) if label else text
        self._rich.print(shown, soft_wrap=not self.interactive)
        self._last_s = time.monotonic()

    def note(self, sentence: str) -> None:
        """Print what is under way, where somebody wants to know."""
        if not self.quiet:
            self.say(sentence)

    def warn(self, sentence: str) -> None:
        """Print what is not as it should be, and stops nothing."""
        self.say(sentence, "yellow", "warning:")

    def show(self, renderable: RenderableType) -> None:
        """Print a table, or several: whole, even where that is wider than the terminal."""
        self._rich.print(renderable, crop=False)
        self._last_s = time.monotonic()

    def go_on(self, what: str) -> None:
        """From now on an output that cannot be written ends nothing: standard error is told once that `what`."""

        def told(error: OSError) -> None:
            complain(f"{OutputError(error)}; {what}")

        self.stream.on_failure = told

    @property
    def lost(self) -> bool:
        """Return whether what is printed goes nowhere any more."""
        return self.stream.lost

    @property
    def terminal(self) -> rich.console.Console:
        """Return the terminal, for a bar; only where it is `interactive`."""
        return self._rich

    @contextlib.contextmanager
    def waiting(self, now: Callable[[], str]) -> Iterator[None]:
        """Meanwhile, show that what `now` says is under way: turning on a terminal, elsewhere a line now and then."""
        if self.quiet:
            yield
            return
        if self.interactive:
            with self._rich.status(Text(plain(now()))):
                yield
            return
        over = threading.Event()
        clock = threading.Thread(target=self._remind, args=(now, over), daemon=True)
        clock.start()
        try:
            yield
        finally:
            over.set()
            clock.join()

    def _remind(self, now: Callable[[], str], over: threading.Event) -> None:
        begun_s = time.monotonic()
        while not over.wait(max(0.0, self._last_s + QUIET_S - time.monotonic())):
            if (time_s := time.monotonic()) >= self._last_s + QUIET_S:
                with contextlib.suppress(OutputError):  # the next that is printed says so
                    self.say(f"{now()} ({time_s - begun_s:.0f} s)")
                self._last_s = time_s

    def counted(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """Yield `items`, and show meanwhile how many of `total` there have been."""
        if self.interactive and not self.quiet:
            yield from track(items, what, total, console=self._rich, transient=True)
            return
        done = 0
        with self.waiting(lambda: f"{what}: {done} of {total}"):
            for item in items:
                done += 1
                yield item


def to_stderr(*, quiet: bool = False) -> Console:
    """Where a command prints what is no result."""
    return Console(sys.stderr, quiet=quiet)
