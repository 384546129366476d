"""Runs with something done to them behind their back. Each is `perform`, with a hand in between its events."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

import pandas as pd

from controllers.ovs import client
from emulator.files import Folder
from emulator.meters.capture import Captures
from emulator.namespaces import inside
from emulator.netlink import Netlink
from emulator.order import FabricOrder
from emulator.ports import Port
from emulator.shaping import shape
from experiments.judge.evidence import Built, Measured
from experiments.runs.inside import perform
from experiments.runs.messages import Event, Failed, Job, Progress
from traffic.connections import Connections

_SYS_PIDFD_GETFD = 438
_SO_MAX_PACING_RATE = 47
_open = Connections.open
_libc = ctypes.CDLL(None, use_errno=True)


def hogged(order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
    """Beside the first run, as many busy processes as there are cores."""
    hogs: list[subprocess.Popen[bytes]] = []
    for event in perform(order, jobs):
        if isinstance(event, Built):
            hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
        elif isinstance(event, Measured):
            while hogs:
                hog = hogs.pop()
                hog.kill()
                hog.wait()
        yield event


def starved(order: FabricOrder, jobs: Sequence[Job], send_buffer_bytes: int) -> Iterator[Event]:
    """The switch's packet sockets get a small send buffer again."""
    for event in perform(order, jobs):
        if isinstance(event, Built):
            _shrink(_process("ovs-vswitchd"), send_buffer_bytes)
        yield event


def reshaped(
    order: FabricOrder,
    jobs: Sequence[Job],
    port_name: str,
    factor: float,
    restored: bool,
) -> Iterator[Event]:
    """A port runs at `factor` times its rate from a fifth of the run on; to its end, or until half of it is over."""
    port: Port | None = None
    stage = 0
    for event in perform(order, jobs):
        if isinstance(event, Built):
            port = next(port for port in event.ports if port.name == port_name)
        elif isinstance(event, Progress) and port:
            if stage == 0 and event.far.share > 0.2:
                stage = 1
                _shape(port, factor)
            elif stage == 1 and restored and event.far.share > 0.5:
                stage = 2
                _shape(port, 1.0)
        yield event


def missed(order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
    """The first run's capturing process stands still until the run is over, with little room for what waits."""
    inattention = patch("experiments.runs.inside.Captures", _Inattentive)
    inattention.start()
    for event in perform(order, jobs):
        if isinstance(event, Measured):
            inattention.stop()
        yield event


def paused(order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
    """The OpenFlow controller stands still after the first run, until the second has failed."""
    controller = 0
    with patch.object(client, "_PROGRAM_TIMEOUT_S", 3.0):  # for the test to be short
        for event in perform(order, jobs):
            if isinstance(event, Measured) and not controller:
                controller = _process("controllers.ovs.app")
                os.kill(controller, signal.SIGSTOP)
            elif isinstance(event, Failed):
                os.kill(controller, signal.SIGCONT)
            yield event


def paced(order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
    """Every sender holds itself to half of its share of its host's rate."""
    with patch.object(Connections, "open", _open_paced):
        yield from perform(order, jobs)


def _open_paced(connections: Connections) -> None:
    _open(connections)
    sent_by = Counter(connection.src_host for connection in connections.plan.connections)
    for sender, connection in zip(connections.senders.values(), connections.plan.connections, strict=True):
        share = connections.fabric.host_rate_bps // 8 // sent_by[connection.src_host]
        sender.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, share // 2)


class _Inattentive(Captures):
    """What crosses the ports after the first quarter of a second finds the only block of the buffer taken."""

    def __init__(self, points: Sequence[Port], directory: Folder, log: TextIO) -> None:
        super().__init__(points, directory, log, buffer_bytes=1)

    def start(self) -> None:
        super().start()
        self._send(signal.SIGSTOP)

    def stop(self) -> pd.DataFrame:
        self._send(signal.SIGCONT)
        return super().stop()

    def _send(self, number: signal.Signals) -> None:
        assert self.pid
        os.kill(self.pid, number)


def _shape(port: Port, factor: float) -> None:
    wrong = replace(port.shaping, rate_bps=int(port.shaping.rate_bps * factor))
    with inside(port.pid):
        Netlink().send([shape(replace(port, shaping=wrong))])


def _process(name: str) -> int:
    """The number of the sandbox's process with `name` in its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if name in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode():
                    return int(entry.name)
    raise LookupError(name)


def _shrink(pid: int, send_buffer_bytes: int) -> None:
    inodes = {int(line.split()[8]) for line in Path(f"/proc/{pid}/net/packet").read_text().splitlines()[1:]}
    pidfd = os.pidfd_open(pid)
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            match = re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink()))
            if match and int(match[1]) in inodes:
                copied = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, int(entry.name), 0)
                assert copied >= 0, os.strerror(ctypes.get_errno())
                with socket.socket(fileno=copied) as packet_socket:
                    packet_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    os.close(pidfd)
