"""Proof that a fabric carries: before anything is measured on it, a packet has crossed every link."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence

from emulator.errors import EmulatorError
from emulator.namespaces import inside
from emulator.topology import LeafSpine

_PORT = 9
_TIMEOUT_S = 10.0


def warm_up(topology: LeafSpine, host_pids: Sequence[int]) -> None:
    """Send a datagram to every host and over every live link, up and down. Raises EmulatorError where none arrives.

    Of a spine that a single leaf can reach, nothing is asked. `host_pids` are processes of the hosts' network
    namespaces, in the order of hosts.
    """
    # From each host's counterpart in the leaf before; and from each leaf to the next that a spine reaches.
    probes = [
        (host - topology.hosts_per_leaf, host, 0, f"packets to {topology.host_name(host)}")
        for host in range(topology.hosts)
    ]
    for spine in range(topology.spines):
        reached = [leaf for leaf in range(topology.leaves) if (leaf, spine) not in topology.failed]
        for leaf, following in zip(reached, [*reached[1:], *reached[:1]], strict=True):
            if leaf != following:
                sender, receiver = topology.hosts_of(leaf)[0], topology.hosts_of(following)[0]
                names = topology.leaf_name(leaf), topology.spine_name(spine)
                probes.append((sender, receiver, spine + 1, f"packets from {names[0]} over {names[1]}"))
    sockets: list[socket.socket] = []
    try:
        with select.epoll() as poller:
            for pid in host_pids:
                with inside(pid):
                    sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
                sockets[-1].bind(("", _PORT))
                poller.register(sockets[-1].fileno(), select.EPOLLIN)
            missing = _exchange(topology, probes, sockets, poller)
    finally:
        for opened in sockets:
            opened.close()
    if missing:
        raise EmulatorError(f"the fabric does not carry {', '.join(probes[number][3] for number in missing[:8])}")


def _exchange(
    topology: LeafSpine,
    probes: Sequence[tuple[int, int, int, str]],
    sockets: Sequence[socket.socket],
    poller: select.epoll,
) -> list[int]:
    """Send every probe (sender, receiver, path tag, name) until it arrives; those that never did."""
    by_descriptor = {opened.fileno(): opened for opened in sockets}
    waiting = set(range(len(probes)))
    deadline = time.monotonic() + _TIMEOUT_S
    while waiting and time.monotonic() < deadline:
        for number in sorted(waiting):
            sender, receiver, tag, _ = probes[number]
            type_of_service = (socket.IPPROTO_IP, socket.IP_TOS, struct.pack("=i", tag << 2))
            sockets[sender].sendmsg(
                [number.to_bytes(4, "big")], [type_of_service], 0, (topology.host_ip(receiver), _PORT)
            )
        while waiting:
            ready = poller.poll(0.1)
            if not ready:
                break
            for descriptor, _ in ready:
                waiting.discard(int.from_bytes(by_descriptor[descriptor].recv(64), "big"))
    return sorted(waiting)
