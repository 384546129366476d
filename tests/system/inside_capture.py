"""What the system tests of captures do inside the sandbox. Each function returns plain numbers; the tests assert."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import inside

from emulator.errors import EmulatorError
from emulator.fabric import Fabric
from emulator.files import Folder
from emulator.meters.capture import Captures, Which, capture_points
from emulator.meters.meters import settled_counters
from emulator.ports import Port, Shaping
from emulator.topology import LeafSpine
from traffic.connections import NamespaceSockets
from traffic.plan import Connection, Piece, TrafficPlan
from traffic.replay import Replay
from traffic.schedule import Schedule
from traffic.schemes import scheme_of
from traffic.transport import Transport

WIRE, OTHER_END = "wire0", "wire1"
HERE = 1  # the sandbox's first process


@dataclass
class Taken:
    """A port that was captured on: its own counts over the same time, and what the capture reported."""

    port: Port
    sent_bytes: int
    sent_packets: int
    received_bytes: int
    received_packets: int
    captured_packets: int
    drops_packets: int


def replay(fabric: Fabric, plan: TrafficPlan, points: Sequence[Port], directory: Path) -> list[Taken]:
    """Replay with captures that are live before the first connection is made."""
    transport = Transport(windows="default")
    with Captures(points, Folder(directory), sys.stderr) as captures:
        before = settled_counters(fabric)
        sockets = NamespaceSockets(fabric.topology, fabric.host_pids)
        with Replay(plan, fabric.topology, sockets, transport) as run:
            for _ in run.run():
                pass
        change = settled_counters(fabric) - before
        captured = captures.stop().set_index("port")
    taken = []
    for point in points:
        counted, found = change.iloc[fabric.ports.index(point)], captured.loc[point.name]
        taken.append(
            Taken(
                point,
                *(int(counted[name]) for name in ("tx_bytes", "tx_packets", "rx_bytes", "rx_packets")),
                *(int(found[name]) for name in ("packets", "drops_packets")),
            )
        )
    return taken


def shift(
    topology: LeafSpine, dataplane: str, which: Which, size_bytes: int, directory: Path
) -> tuple[list[Taken], list[int]]:
    """Every host to the host in the same place of the next leaf, by ECMP; and the processes left over."""
    fabric = inside.build(topology, dataplane=dataplane)
    processes = _processes()
    taken = replay(fabric, inside.shifted(topology, "ecmp", size_bytes), capture_points(fabric.ports, which), directory)
    return taken, sorted(_processes() - processes)


def two_into_one(topology: LeafSpine, dataplane: str, size_bytes: int, directory: Path) -> list[Port]:
    """The first leaf's hosts send to the next leaf, all by the first spine; captured at every port up to there."""
    fabric = inside.build(topology, dataplane=dataplane)
    senders = topology.hosts_of(0)
    pairs = [(host, host + topology.hosts_per_leaf) for host in senders]
    schedule: Schedule = inside.schedule_of(topology, pairs, size_bytes)
    connections = [Connection(number, src, dst, 10_000, 1) for number, (src, dst) in enumerate(pairs)]
    pieces = [Piece(number, number, 0, size_bytes) for number in range(len(pairs))]
    plan = TrafficPlan(schedule, range(topology.hosts), scheme_of("ethereal"), connections, pieces)
    points = [port for port in fabric.ports if port.leaf == 0 and (port.host is not None or port.spine == 0)]
    replay(fabric, plan, points, directory)
    return points


def behind_a_stopped_process(frames: int, directory: Path) -> tuple[int, int]:
    """Packets and drops of a capture with the smallest buffer, whose process stood still while frames were sent."""
    point = _wire()
    with Captures([point], Folder(directory), sys.stderr, snap_bytes=2000, buffer_bytes=1) as captures:
        assert captures.pid
        os.kill(captures.pid, signal.SIGSTOP)
        _send(frames)
        os.kill(captures.pid, signal.SIGCONT)
        return _only(captures)


def under_traffic(frames: int, directory: Path) -> tuple[int, int, int]:
    """Packets and drops of a capture that is stopped the moment the last frame was sent; and of one just started."""
    point = _wire()
    with Captures([point], Folder(directory, ("first",)), sys.stderr) as captures:
        _send(frames)
        first = _only(captures)
    with Captures([point], Folder(directory, ("second",)), sys.stderr) as captures:
        return *first, _only(captures)[0]


def through_an_outage(frames: int, directory: Path) -> tuple[int, int]:
    """Packets and drops of a capture whose port was down for a while between the two halves of the frames."""
    point = _wire()
    with Captures([point], Folder(directory), sys.stderr) as captures:
        _send(frames // 2)
        subprocess.run(["ip", "link", "set", WIRE, "down"], check=True, timeout=10)
        time.sleep(0.3)  # long enough for the capturing process to find it down
        subprocess.run(["ip", "link", "set", WIRE, "up"], check=True, timeout=10)
        _send(frames - frames // 2)
        return _only(captures)


def for_a_caller(uid: int, gid: int) -> dict[str, tuple[int, int]]:
    """Who owns the directory and the file of a capture made under that user's sudo, in a directory of that user's."""
    home = Path("/run/home")
    home.mkdir()
    os.chown(home, uid, gid)
    os.environ.update(SUDO_UID=str(uid), SUDO_GID=str(gid))
    directory = home / "results" / "captures"
    with Captures([_wire()], Folder(directory), sys.stderr) as captures:
        captures.stop()
    return {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (directory, *directory.iterdir())}


def complaints(directory: Path) -> dict[str, str]:
    """What is said when a capture cannot be; nothing of it may stay."""
    point = _wire()
    missing = Port("nosuch", "", "", HERE, 99, point.shaping, 0, None, 0, up=True)
    a_file = directory / "a file"
    a_file.touch()
    full = Path("/run/full")
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "full", str(full)], check=True, timeout=10)
    processes = _processes()
    said = {}
    for name, points, where in (
        ("no such port", [point, missing], directory),
        ("not a directory", [point], a_file),
        ("disk full", [point], full),
        ("port gone", [point], directory),
    ):
        try:
            with Captures(points, Folder(where), sys.stderr) as captures:
                _send(1000)
                if name == "port gone":
                    subprocess.run(["ip", "link", "del", WIRE], check=True, timeout=10)
                captures.stop()
        except EmulatorError as error:
            said[name] = str(error)
    said["left over"] = str(sorted(_processes() - processes))
    return said


def abandoned(directory: Path) -> list[int]:
    """Processes left over of captures whose run failed."""
    processes = _processes()
    try:
        with Captures([_wire()], Folder(directory), sys.stderr):
            raise EmulatorError("the run failed")
    except EmulatorError:
        return sorted(_processes() - processes)


def _wire() -> Port:
    """A port of its own, in no fabric."""
    subprocess.run(["ip", "link", "add", WIRE, "type", "veth", "peer", "name", OTHER_END], check=True, timeout=10)
    for name in (WIRE, OTHER_END):
        subprocess.run(["ip", "link", "set", name, "up"], check=True, timeout=10)
    return Port(WIRE, "", OTHER_END, HERE, socket.if_nametoindex(WIRE), Shaping(0, 0, 0), 0, None, 0, up=True)


def _send(frames: int) -> None:
    """Frames of 1000 bytes, of an EtherType for local experiments."""
    frame = b"\x02" + bytes(11) + b"\x88\xb5" + bytes(986)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((WIRE, 0))
        for _ in range(frames):
            sender.send(frame)


def _only(captures: Captures) -> tuple[int, int]:
    [row] = captures.stop().itertuples()
    return int(row.packets), int(row.drops_packets)


def _processes() -> set[int]:
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()}
