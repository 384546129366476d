"""Opens a plan's subflows over sockets that somebody else makes: see `Sockets`.

On a fabric a socket is made inside its host's network namespace and stays there, so that one thread holds both ends of
every connection and never has to be anywhere. `traffic/loopback.py` makes them without a fabric, and without root.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from emulator.errors import EmulatorError
from emulator.namespaces import inside
from emulator.topology import LeafSpine
from traffic.plan import LISTEN_PORT, Connection, TrafficPlan
from traffic.transport import Transport, window_bytes

_CONNECT_TIMEOUT_S = 20.0
_POLL_MS = 100


class Sockets(Protocol):
    """Where a replay's sockets come from.

    `socket` makes a TCP socket of `host`, non-blocking and bound to nothing; `address` is what it is to be bound to.
    """

    def socket(self, host: int) -> socket.socket: ...
    def address(self, host: int) -> str: ...


class NamespaceSockets:
    """Makes the sockets of a fabric's hosts, in their network namespaces. `pids[h]` is a process in that of host h."""

    def __init__(self, fabric: LeafSpine, pids: Sequence[int]) -> None:
        self._pids = pids
        self.address = fabric.host_ip

    def socket(self, host: int) -> socket.socket:
        with inside(self._pids[host]):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


class Connections:
    """The open subflows of a plan: `senders[i]` and `receivers[i]` are the ends of subflow i, non-blocking.

    Only the ends at hosts for which `here` is true, where another process has those at the others.
    """

    def __init__(
        self,
        plan: TrafficPlan,
        fabric: LeafSpine,
        sockets: Sockets,
        transport: Transport,
        here: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self.plan, self.fabric, self.transport = plan, fabric, transport
        self._sockets, self._here = sockets, here
        self.senders: dict[int, socket.socket] = {}
        self.receivers: dict[int, socket.socket] = {}
        self._listeners: dict[int, socket.socket] = {}

    def open(self, timeout_s: float = _CONNECT_TIMEOUT_S, listening: Callable[[], None] = lambda: None) -> None:
        """Open them all; `listening` is called, and waited for, when the hosts here can be connected to.

        Raises EmulatorError when they cannot all be opened in `timeout_s`; then none is.
        """
        try:
            self._open(timeout_s, listening)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Reset every connection."""
        self.stop_listening()
        for opened in [*self.senders.values(), *self.receivers.values()]:
            _reset_when_closed(opened)
            opened.close()

    def stop_listening(self) -> None:
        """Take no further connection, nor subflow of one."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def name(self, number: int) -> str:
        """Connection `number`, for people."""
        made, name = self.plan.connections[number], self.fabric.host_name
        return f"the connection from {name(made.src_host)} (port {made.src_port}) to {name(made.dst_host)}"

    def _open(self, timeout_s: float, listening: Callable[[], None]) -> None:
        plan, address = self.plan, self._sockets.address
        receivers = Counter(connection.dst_host for connection in plan.connections)
        for host in sorted(filter(self._here, receivers)):
            listener = self._listeners[host] = self._socket(host)
            listener.bind((address(host), LISTEN_PORT))
            self._limit_window(listener, receivers[host])
            listener.listen(4096)
        listening()
        for connection in plan.connections:
            if not self._here(connection.src_host):
                continue
            sender = self.senders[connection.id] = self._socket(connection.src_host)
            _reset_when_closed(sender)  # by the kernel too, for a process that is killed
            sender.bind((address(connection.src_host), connection.src_port))
            tag(sender, connection.path_tag)
            sender.connect_ex((address(connection.dst_host), LISTEN_PORT))
        self.receivers = self._accept(self._listeners, timeout_s)
        if not plan.scheme.kernel_subflows:  # which come by where their connection came
            self.stop_listening()

    def _socket(self, host: int) -> socket.socket:
        made = self._sockets.socket(host)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = self.transport.congestion_control
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
        except OSError as error:
            made.close()
            raise EmulatorError(f"transport.congestion_control: this kernel has no {name}") from error
        return made

    def _limit_window(self, listener: socket.socket, connections: int) -> None:
        """Of every connection that is accepted: what it may have under way (TCP_WINDOW_CLAMP, tcp(7))."""
        if self.transport.windows != "fitted":
            return
        limit_bytes = window_bytes(self.fabric, connections)
        if listener.proto == socket.IPPROTO_MPTCP:  # has no such option; of its buffer, twice this, half is the window
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limit_bytes)
        else:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, limit_bytes)

    def _accept(self, listeners: Mapping[int, socket.socket], timeout_s: float) -> dict[int, socket.socket]:
        """The receiving end of every subflow to here, once all are connected."""
        address = self._sockets.address
        coming = [connection for connection in self.plan.connections if self._here(connection.dst_host)]
        expected = {(address(s.src_host), s.src_port, s.dst_host): s for s in coming}
        accepted: dict[int, socket.socket] = {}
        deadline = time.monotonic() + timeout_s
        poller = select.poll()
        hosts = {listener.fileno(): host for host, listener in listeners.items()}
        for descriptor in hosts:
            poller.register(descriptor, select.POLLIN)
        try:
            while len(accepted) < len(coming):
                if time.monotonic() > deadline:
                    raise EmulatorError(self._unopened(coming, accepted, timeout_s))
                for descriptor, _ in poller.poll(_POLL_MS):
                    host = hosts[descriptor]
                    for made, peer in _accept_all(listeners[host]):
                        if (*peer, host) not in expected:
                            made.close()  # on the loopback, anybody may knock
                            continue
                        connection = expected[(*peer, host)]
                        tag(made, connection.path_tag)
                        _reset_when_closed(made)
                        accepted[connection.id] = made
        except BaseException:
            for made in accepted.values():
                made.close()
            raise
        return {connection.id: accepted[connection.id] for connection in coming}

    def _unopened(self, coming: Sequence[Connection], accepted: Mapping[int, socket.socket], timeout_s: float) -> str:
        missing = [connection for connection in coming if connection.id not in accepted]
        name = self.fabric.host_name
        return (
            f"{len(missing)} of {len(coming)} connections did not open in {timeout_s:g} s, "
            f"the first from {name(missing[0].src_host)} to {name(missing[0].dst_host)}"
        )


def _reset_when_closed(opened: socket.socket) -> None:
    """A reset instead of TIME_WAIT: the next run binds the same ports."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def tag(opened: socket.socket, path_tag: int) -> None:
    """Have what a socket sends from now on bear this path tag, if it is one."""
    if path_tag:
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, path_tag << 2)


def _accept_all(listener: socket.socket) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    while True:
        try:
            made, peer = listener.accept()
        except BlockingIOError:
            return
        made.setblocking(False)  # noqa: FBT003  # it takes no name
        yield made, peer
