"""The one error that the emulator and what is built on it raise for people."""

from __future__ import annotations


class EmulatorError(Exception):
    """An error that the user should read: one sentence, no traceback."""
