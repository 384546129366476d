"""Connections of the kernel's MPTCP: sockets that ask for it, and the subflows that each has beyond its first."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from emulator import mptcp
from emulator.errors import EmulatorError
from emulator.namespaces import inside
from emulator.topology import LeafSpine
from traffic.connections import Connections
from traffic.plan import FIRST_SOURCE_PORT, LISTEN_PORT

MOST_SUBFLOWS = 8
"""The kernel's own limit."""

MOST_CONNECTIONS = 6000
"""Of a host: each subflow of a connection has its port in a range of its own, by which NICs tell them apart."""

HELLO = b"\0"
"""What every connection carries before a replay begins."""

_JOIN_TIMEOUT_S = 10.0
_LOOK_S = 0.01


def port_ranges(subflows: int) -> tuple[tuple[int, int], ...]:
    """Return the first and the last source port of every first subflow, of every second one, and so on."""
    firsts = [FIRST_SOURCE_PORT + number * MOST_CONNECTIONS for number in range(subflows)]
    return tuple((first, first + MOST_CONNECTIONS - 1) for first in firsts)


class MultipathSockets:
    """Makes a fabric's sockets, as `traffic.connections.NamespaceSockets` does, of MPTCP."""

    def __init__(self, fabric: LeafSpine, pids: Sequence[int], subflows: int) -> None:
        self._pids, self._subflows = pids, subflows
        self.address = fabric.host_ip

    def socket(self, host: int) -> socket.socket:
        with inside(self._pids[host]):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_MPTCP)

    @contextmanager
    def managed(self) -> Iterator[None]:
        """Meanwhile, hosts open no subflows by themselves. Raises EmulatorError where this kernel has no MPTCP."""
        if lacking := mptcp.without_mptcp():
            raise EmulatorError(lacking)
        mptcp.manage_paths(self._pids, in_user_space=True)
        try:
            yield
        finally:
            mptcp.manage_paths(self._pids, in_user_space=False)

    def join(self, connections: Connections) -> None:
        """Open the further subflows of every connection. Raises EmulatorError when they are not all there in time."""
        made, deadline = connections.plan.connections, time.monotonic() + _JOIN_TIMEOUT_S
        if made and max(each.src_port for each in made) >= FIRST_SOURCE_PORT + MOST_CONNECTIONS:
            raise EmulatorError(
                f"a host has more than {MOST_CONNECTIONS} MPTCP connections: send fewer flows at a time"
            )
        _establish(connections, deadline)
        hosts = {host for each in made for host in (each.src_host, each.dst_host)}
        managers = {host: mptcp.PathManager(self._pids[host]) for host in hosts}
        try:
            for number in range(1, self._subflows):
                for each, sender in zip(made, connections.senders.values(), strict=True):
                    local = self.address(each.src_host), each.src_port + number * MOST_CONNECTIONS
                    remote = self.address(each.dst_host), LISTEN_PORT
                    managers[each.src_host].open_subflow(mptcp.token(sender), number, local, remote)
            _wait(
                "open all subflows",
                connections.senders.values(),
                lambda end: mptcp.subflows(end) == self._subflows,
                deadline,
            )
        finally:
            for manager in managers.values():
                manager.close()


def _establish(connections: Connections, deadline: float) -> None:
    """Carry a byte over every connection: before one is acknowledged, it takes no further subflow."""
    for sender in connections.senders.values():
        sender.send(HELLO)
    _wait("carry a byte", connections.receivers.values(), _greeted, deadline)
    _wait("acknowledge a byte", connections.senders.values(), mptcp.all_acknowledged, deadline)


def _greeted(receiver: socket.socket) -> bool:
    try:
        return receiver.recv(len(HELLO)) == HELLO
    except BlockingIOError:
        return False


def _wait(what: str, ends: Iterable[socket.socket], done: Callable[[socket.socket], bool], deadline: float) -> None:
    left = list(ends)
    while left := [end for end in left if not done(end)]:
        if time.monotonic() > deadline:
            raise EmulatorError(f"{len(left)} MPTCP connections did not {what} in {_JOIN_TIMEOUT_S:g} s")
        time.sleep(_LOOK_S)
