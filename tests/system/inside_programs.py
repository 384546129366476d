"""What the tests of programs on the fabric have done inside the sandbox."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from controllers.dataplane import build
from emulator.command import run
from emulator.errors import EmulatorError
from emulator.meters.meters import read_counters
from emulator.nic import at_work
from emulator.order import FabricOrder
from emulator.programs import Ended, Launch, furnish, register, run_program
from emulator.topology import LeafSpine
from traffic.schemes import scheme_of

SMALL = LeafSpine(2, 2, 2, host_rate_bps=50_000_000, fabric_rate_bps=50_000_000)

# Each of two hosts of one leaf sends over several connections, one after the other, to its counterpart, which answers.
TALK = """
import os, socket, time
rank, half = int(os.environ["RANK"]), 2
if rank >= half:
    server = socket.create_server(("", 7000))
    for _ in range(CONNECTIONS):
        with server.accept()[0] as peer:
            while peer.recv(65536):
                pass
            peer.sendall(bytes(SIZE))
else:
    address = os.environ["SPRAYLAB_HOSTS"].split(",")[rank + half], 7000
    for _ in range(CONNECTIONS):
        for _ in range(200):
            try:
                peer = socket.create_connection(address)
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        peer.sendall(bytes(SIZE))
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass
        peer.close()
"""
SIZE, CONNECTIONS = 200_000, 4


def spread(scheme: str, dataplane: str) -> dict[str, list[float]]:
    """Mega bytes on each uplink of the leaf that begins connections, and of the one that answers."""
    furnish(SMALL)
    fabric = build(FabricOrder(SMALL, dataplane=dataplane), sys.stderr, 1)
    register(SMALL, fabric.host_pids)
    script = TALK.replace("SIZE", str(SIZE)).replace("CONNECTIONS", str(CONNECTIONS))
    launch = Launch((sys.executable, "-c", script), tuple(range(4)), 30.0, 29_500)
    before = read_counters(fabric).tx_bytes
    with at_work(scheme_of(scheme).program_nic, fabric, 1):
        *_, ended = run_program(SMALL, launch)
    assert isinstance(ended, Ended) and ended.status == 0, ended
    sent = (read_counters(fabric).tx_bytes - before) / 1e6
    uplinks = {name: [0.0] * SMALL.spines for name in ("leaf1", "leaf2")}
    for number, port in enumerate(fabric.ports):
        if port.spine is not None and port.up:
            uplinks[port.node][port.spine] = float(sent[number])
    return uplinks


def run_once(command: Sequence[str], timeout_s: float) -> tuple[Ended, dict[int, bytes]]:
    """A program on all hosts of a fabric, and what each wrote."""
    furnish(SMALL)
    fabric = build(FabricOrder(SMALL, dataplane="linux"), sys.stderr, 1)
    register(SMALL, fabric.host_pids)
    *outputs, ended = run_program(SMALL, Launch(tuple(command), tuple(range(4)), timeout_s, 29_500))
    said: Counter[int] = Counter()
    texts: dict[int, bytes] = {}
    for output in outputs:
        for host, piece in output.pieces.items():  # type: ignore[union-attr]
            texts[host] = texts.get(host, b"") + piece
            said[host] += len(piece)
    assert isinstance(ended, Ended)
    return ended, texts


def routes(congestion_control: str | None) -> str:
    """A host's routes, as `ip route` tells them, or why there is no fabric."""
    try:
        fabric = build(FabricOrder(SMALL, dataplane="linux", congestion_control=congestion_control), sys.stderr, 1)
    except EmulatorError as error:
        return str(error)
    return run(["nsenter", f"--net=/proc/{fabric.host_pids[0]}/ns/net", "ip", "route"])
