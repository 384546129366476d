"""The narrowest fabric: all hosts on this machine's loopback, an address each. It needs no root and forwards nothing.

So that a replay can be tried, and tested, where no fabric can be built. What the connections carry, and in which order,
is as on a fabric; how long it takes says nothing of one.
"""

from __future__ import annotations

import ipaddress
import os
import socket

from emulator.topology import IP_TCP_HEADER_BYTES, LeafSpine

_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


class LoopbackSockets:
    """Makes the sockets of `fabric`'s hosts: host h has an address of 127.0.0.0/8.

    Which ones follows from the number of this process, so that two processes seldom meet. Segments are as short as the
    fabric's, whose windows would otherwise hold less than one of the loopback's.
    """

    def __init__(self, fabric: LeafSpine) -> None:
        self._segment_bytes = fabric.mtu_bytes - IP_TCP_HEADER_BYTES
        self._first = os.getpid() * fabric.hosts % (_LOOPBACK.num_addresses - fabric.hosts - 2) + 1

    def socket(self, host: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, self._segment_bytes)
        return made

    def address(self, host: int) -> str:
        return str(_LOOPBACK[self._first + host])
