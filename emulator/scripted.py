"""A stand-in for the sandbox that builds nothing: it says what a script says. For tests, and for trying what watches.

`conducted(..., sandbox=Scripted(script))` performs no run: `script` gets the arguments that the function inside would
have got, and what it yields is what the sandbox would have yielded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO


class Scripted:
    """Called with a log, as `Sandbox` is, it gives a context manager whose `stream` runs `script`, here."""

    def __init__(self, script: Callable[..., Iterator[Any]]) -> None:
        self._script = script

    def __call__(self, _log: BinaryIO) -> Scripted:
        return self

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def kill(self) -> None:
        """Nothing is under way but the script, which ends by itself."""

    def stream(self, _function: Callable[..., Any], *args: Any, timeout_s: float | None = None) -> Iterator[Any]:
        """Yield what the script does; `timeout_s` is of no use."""
        del timeout_s
        yield from self._script(*args)
