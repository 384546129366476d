"""Talking to a child process: one channel, over which Python objects pass."""

from __future__ import annotations

import socket
from multiprocessing.connection import Connection


def connection_pair() -> tuple[Connection, Connection]:
    """The two ends of a channel; one goes to another process by its file descriptor."""
    ours, theirs = socket.socketpair()
    return Connection(ours.detach()), Connection(theirs.detach())
