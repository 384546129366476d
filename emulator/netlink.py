"""Route netlink (rtnetlink(7)) in batches: many requests, one system call, and one answer if all went well.

A fabric takes thousands of requests, of few kinds. A general library takes longer to put one together than the kernel
to carry it out, so these kinds are put together here, as linux/rtnetlink.h and its neighbours define them.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from emulator.errors import EmulatorError

MAIN_TABLE = 254

_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE, _DELETE_ROUTE = 16, 20, 24, 25
_NEW_NEIGHBOUR, _NEW_RULE, _NEW_QDISC, _GET_QDISC = 28, 32, 36, 38
_IFF_UP = 1
_NUD_PERMANENT = 0x80
_UNICAST, _BLACKHOLE = 1, 6
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_ONLINK = 4
_STATIC = 4
_TC_ROOT = 0xFFFFFFFF
_ETHERNET_LAYER = 1  # spares the kernel a table of how long each packet size takes
_TBF_RATE64 = 4  # beside a rate that 32 bits do not hold
_MOST_32_BITS = 2**32 - 1
_LOCK_RTO_MIN = 1 << 13
_GSO_MAX_SEGS = 40

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_BATCH = 100  # requests a system call, so that even as many complaints fit the socket's buffer
_TIMEOUT_S = 20
_RECEIVE_BYTES = 1 << 20
_NESTED = 0x3FFF  # an attribute's type without its flag bits


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `what` names it to the user if the kernel refuses it."""

    what: str
    kind: int
    flags: int
    body: bytes


class Netlink:
    """A socket of the network namespace that the calling thread is in when it is made; it stays there."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self._sequence = 0

    def send(self, requests: Sequence[Request]) -> None:
        """Have the kernel carry out all of `requests`, in order. Raises EmulatorError naming the first it refused."""
        for first in range(0, len(requests), _BATCH):
            self._send(requests[first : first + _BATCH])

    def _send(self, batch: Sequence[Request]) -> None:
        first = self._sequence + 1
        self._sequence = last = self._sequence + len(batch)
        message = bytearray()
        for number, request in enumerate(batch, start=first):
            flags = request.flags | _REQUEST | (_ACK if number == last else 0)  # refusals come without being asked for
            message += _HEADER.pack(16 + len(request.body), request.kind, flags, number, 0) + request.body
        self._socket.send(message)
        refused: str | None = None
        for kind, number, body in self._answers(last):
            if kind == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                if code and refused is None:
                    refused = f"the kernel refuses {batch[number - first].what}: {_complaint(code, body)}"
        if refused:
            raise EmulatorError(refused)

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The messages (without their headers) that answer a request to list something."""
        self._sequence += 1
        self._socket.send(_HEADER.pack(16 + len(body), kind, _REQUEST | _DUMP, self._sequence, 0) + body)
        for answer, _, content in self._answers(self._sequence):
            if answer not in (_ERROR, _DONE):
                yield content

    def _answers(self, last: int) -> Iterator[tuple[int, int, bytes]]:
        """(type, sequence number, body) of every message up to the one that ends the answer to request `last`."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except TimeoutError as error:
                raise EmulatorError(f"the kernel did not answer over netlink in {_TIMEOUT_S} s") from error
            offset = 0
            while offset < len(data):
                length, kind, _, number, _ = _HEADER.unpack_from(data, offset)
                yield kind, number, data[offset + 16 : offset + length]
                if number == last and kind in (_ERROR, _DONE):
                    return
                offset += (length + 3) & ~3


def _complaint(code: int, body: bytes) -> str:
    """What the kernel says is wrong, in its own words where it has some (NLMSGERR_ATTR_MSG)."""
    said = attributes(body, 20).get(1, b"").rstrip(b"\0").decode(errors="replace")
    return said or os.strerror(code)


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `start` on, by type."""
    found = {}
    while start + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, start)
        if length < 4:
            break
        found[kind & _NESTED] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def _attribute(kind: int, value: bytes | int | str) -> bytes:
    """Integers have 32 bits here."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """An interface to be, in the network namespace of process `pid`; without a MAC, it gets a random one.

    TCP hands it at most `burst_frames` frames as one packet; `queue_frames` may wait in a queue that counts packets.
    """

    index: int
    name: str
    pid: int
    mac: str | None
    mtu_bytes: int
    burst_frames: int
    queue_frames: int

    def message(self) -> bytes:
        body = struct.pack("=BBHiII", 0, 0, 0, self.index, 0, 0)
        body += _attribute(3, self.name) + _attribute(4, self.mtu_bytes) + _attribute(19, self.pid)
        body += _attribute(_GSO_MAX_SEGS, self.burst_frames) + _attribute(13, self.queue_frames)
        return body + (_attribute(1, _mac(self.mac)) if self.mac else b"")


def veth_pair(first: LinkEnd, second: LinkEnd) -> Request:
    information = _attribute(18, _attribute(1, "veth") + _attribute(2, _attribute(1, second.message())))
    return Request(f"link {first.name} - {second.name}", _NEW_LINK, _CREATE | _EXCLUSIVE, first.message() + information)


def burst(index: int, frames: int) -> Request:
    """From now on, TCP hands the interface at most so many frames as one packet (a connection heeds it as it opens)."""
    body = struct.pack("=BBHiII", 0, 0, 0, index, 0, 0) + _attribute(_GSO_MAX_SEGS, frames)
    return Request(f"burst of interface {index}", _NEW_LINK, 0, body)


def interface_up(index: int, up: bool = True) -> Request:
    state = _IFF_UP if up else 0
    return Request(f"interface {index} up", _NEW_LINK, 0, struct.pack("=BBHiII", 0, 0, 0, index, state, _IFF_UP))


def address(index: int, ip: str) -> Request:
    """`ip` alone: no route to a prefix comes with it."""
    packed = IPv4Address(ip).packed
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, _SCOPE_UNIVERSE, index)
    return Request(
        f"address {ip}", _NEW_ADDRESS, _CREATE | _EXCLUSIVE, body + _attribute(2, packed) + _attribute(1, packed)
    )


def neighbour(index: int, ip: str, mac: str) -> Request:
    """Known for good: nobody asks for it."""
    body = struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, index, _NUD_PERMANENT, 0, 0)
    return Request(
        f"neighbour {ip}",
        _NEW_NEIGHBOUR,
        _CREATE | _REPLACE,
        body + _attribute(1, IPv4Address(ip).packed) + _attribute(2, _mac(mac)),
    )


def route(
    prefix: str,
    index: int | None,
    via: str | None = None,
    table: int = MAIN_TABLE,
    rto_min_ms: int | None = None,
    delete: bool = False,
) -> Request:
    """To `prefix` by interface `index`, through the neighbour `via` or straight; without an interface: discard."""
    network = IPv4Network(prefix)
    kind = _BLACKHOLE if index is None else _UNICAST
    scope = _SCOPE_LINK if index is not None and via is None else _SCOPE_UNIVERSE
    flags = _ONLINK if via else 0
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, network.prefixlen, 0, 0, table, _STATIC, scope, kind, flags)
    body += _attribute(1, network.network_address.packed) if network.prefixlen else b""
    body += _attribute(4, index) if index is not None else b""
    body += _attribute(5, IPv4Address(via).packed) if via else b""
    if rto_min_ms:
        # The kernel heeds it only if it is locked.
        body += _attribute(8, _attribute(1, _LOCK_RTO_MIN) + _attribute(13, rto_min_ms))
    name = f"route to {prefix} (table {table})"
    if delete:
        return Request(f"removing {name}", _DELETE_ROUTE, 0, body)
    return Request(name, _NEW_ROUTE, _CREATE | _EXCLUSIVE, body)


def mark_rule(priority: int, mark: int, table: int) -> Request:
    """Packets with exactly this mark look in `table`."""
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, table, 0, 0, 1, 0)
    body += _attribute(6, priority) + _attribute(10, mark) + _attribute(16, 0xFFFFFFFF)
    return Request(f"rule for mark {mark}", _NEW_RULE, _CREATE | _EXCLUSIVE, body)


def token_bucket(index: int, handle: int, rate_bytes_per_s: int, burst_bytes: int, limit_bytes: int) -> Request:
    """TBF (tc-tbf(8)) as the outermost queue of an interface, in place of whatever is there."""
    rate = struct.pack("=BBHhHI", 0, _ETHERNET_LAYER, 0, 0, 0, min(rate_bytes_per_s, _MOST_32_BITS))
    parameters = rate + bytes(12) + struct.pack("=III", limit_bytes, 0, 0)
    options = _attribute(1, parameters) + _attribute(6, burst_bytes)
    if rate_bytes_per_s > _MOST_32_BITS:
        options += _attribute(_TBF_RATE64, struct.pack("=Q", rate_bytes_per_s))
    body = struct.pack("=BBHiIII", 0, 0, 0, index, handle, _TC_ROOT, 0) + _attribute(1, "tbf") + _attribute(2, options)
    return Request(f"shaping of interface {index}", _NEW_QDISC, _CREATE | _REPLACE, body)


def priorities(index: int, handle: int) -> Request:
    """Within the token bucket `handle`, packets of high SO_PRIORITY go first (pfifo_fast, tc-prio(8))."""
    body = struct.pack("=BBHiIII", 0, 0, 0, index, 0, handle | 1, 0) + _attribute(1, "pfifo_fast")
    return Request(f"priorities of interface {index}", _NEW_QDISC, _CREATE | _EXCLUSIVE, body)


def queues(netlink: Netlink) -> Iterator[bytes]:
    """Every queueing discipline of a network namespace, as the kernel tells it (struct tcmsg and attributes)."""
    return netlink.dump(_GET_QDISC, bytes(20))


def token_buckets(netlink: Netlink) -> Iterator[tuple[int, int, int, int]]:
    """(interface index, rate in bytes/s, time to fill the bucket in the scheduler's ticks, limit in bytes) of each."""
    for message in queues(netlink):
        index, _, parent = struct.unpack_from("=iII", message, 4)
        found = attributes(message, 20)
        if found.get(1) == b"tbf\0" and parent == _TC_ROOT:
            options = attributes(found[2])
            parameters = options[1]
            (rate,) = struct.unpack_from("=I", parameters, 8)
            if _TBF_RATE64 in options:
                (rate,) = struct.unpack("=Q", options[_TBF_RATE64])
            limit, ticks, _ = struct.unpack_from("=III", parameters, 24)
            yield index, rate, ticks, limit


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
