"""How fast one TCP connection between two hosts is: plain sockets that wait for nothing longer than they may."""

from __future__ import annotations

import select
import socket
import time

from emulator.errors import EmulatorError
from emulator.fabric import Fabric
from emulator.namespaces import inside

SECONDS = 2.0
_CONNECT_TIMEOUT_S = 5.0
_CHUNK = memoryview(bytes(1 << 16))


def goodput_bps(fabric: Fabric, sender: int, receiver: int) -> float:
    """Return what arrives in SECONDS, in bits/s. Raises EmulatorError where no connection opens."""
    address = fabric.topology.host_ip(receiver)
    with inside(fabric.host_pids[receiver]):
        listener = socket.create_server((address, 0))
    with inside(fabric.host_pids[sender]):
        source = socket.socket()
    with listener, source:
        listener.settimeout(_CONNECT_TIMEOUT_S)
        source.settimeout(_CONNECT_TIMEOUT_S)
        try:
            source.connect((address, listener.getsockname()[1]))
            sink, _ = listener.accept()
        except OSError as error:
            raise EmulatorError(f"no connection in {_CONNECT_TIMEOUT_S:g} s: {error}") from error
        with sink:
            return _passed(source, sink) * 8 / SECONDS


def _passed(source: socket.socket, sink: socket.socket) -> int:
    """How many bytes arrive in SECONDS."""
    source.settimeout(0)
    arrived, end_s = 0, time.monotonic() + SECONDS
    while (left_s := end_s - time.monotonic()) > 0:
        readable, writable, _ = select.select([sink], [source], [], left_s)
        if writable:
            source.send(_CHUNK)
        if readable:
            arrived += len(sink.recv(len(_CHUNK)))
    return arrived
