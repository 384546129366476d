"""Sees whether anybody opens, changes or removes a file, through whatever link: inotify(7)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPENED_OR_CHANGED = 0x20 | 0x2 | 0x4 | 0x400 | 0x800  # IN_OPEN, IN_MODIFY, IN_ATTRIB, IN_DELETE_SELF, IN_MOVE_SELF
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def untouched(*paths: Path) -> Iterator[None]:
    """Within the block, nobody touches any of `paths`, or what is directly in those of them that are folders."""
    descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert descriptor >= 0
    try:
        for path in paths:
            assert _libc.inotify_add_watch(descriptor, os.fsencode(path), _OPENED_OR_CHANGED) >= 0
        yield
        try:
            seen = os.read(descriptor, 65536)
        except BlockingIOError:
            seen = b""
        assert not seen, f"{', '.join(map(str, paths))}: something of it was opened or changed"
    finally:
        os.close(descriptor)
