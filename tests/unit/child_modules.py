"""What the tests of `emulator.child` have served by a process of its own."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

from emulator.errors import EmulatorError


def serve(channel: Connection) -> None:
    while True:
        match channel.recv():
            case "pid":
                channel.send(os.getpid())
            case "fail":
                raise EmulatorError("no such thing")
            case "break":
                raise ValueError("a fault of ours")
            case "hang":
                channel.recv()
            case order:
                channel.send(order)
