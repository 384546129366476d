"""Route netlink (rtnetlink(7)) in batches: many requests, one system call, and one answer if all went well.

A fabric takes thousands of requests, of few kinds. A general library takes some thirty times as long to put one
together, longer than the kernel to carry it out; so these kinds are put together here. Names are those of
linux/rtnetlink.h and its neighbours, without the prefix that the class stands for.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv4Network

from emulator.errors import EmulatorError

MAIN_TABLE = 254

_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
_LINK = struct.Struct("=B3xiII")  # ifinfomsg: family and type, index, flags, which flags change
_ADDRESS = struct.Struct("=BBBBi")  # ifaddrmsg: family, prefix length, flags, scope, index
_NEIGHBOUR = struct.Struct("=B3xiHBB")  # ndmsg: family, index, state, flags, type
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, lengths of destination and source, tos, table, protocol, scope,
# type, flags; a rule's header (fib_rule_hdr) is laid out alike
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_TYPE_BITS = 0x3FFF  # an attribute's type without its flags
_ANSWER_ERROR = struct.Struct("=i")
_COMPLAINT_AT = _ANSWER_ERROR.size + _HEADER.size  # after the code and the header of the request, which it repeats
_DONE_BYTES = _HEADER.size + _ANSWER_ERROR.size

_IFF_UP = 1
_NUD_PERMANENT = 0x80
_UNICAST, _BLACKHOLE = 1, 6
_TO_TABLE = 1  # FR_ACT_TO_TBL
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_ONLINK = 4
_STATIC = 4
_WHOLE_MARK = 0xFFFFFFFF

_BATCH = 100  # requests a system call, so that even as many complaints fit the socket's buffer
_TIMEOUT_S = 20
_RECEIVE_BYTES = 1 << 20


class Kind(IntEnum):
    """The kinds of messages: NLMSG_ and RTM_."""

    ERROR, DONE = 2, 3
    NEWLINK, NEWADDR = 16, 20
    NEWROUTE, DELROUTE = 24, 25
    NEWNEIGH, NEWRULE = 28, 32
    NEWQDISC, GETQDISC = 36, 38


class Flag(IntFlag):
    """The flags that say how a request is meant: NLM_F_."""

    REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
    REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400


class Ifla(IntEnum):
    """The attributes of a link."""

    ADDRESS, IFNAME, MTU, TXQLEN, LINKINFO, NET_NS_PID, GSO_MAX_SEGS = 1, 3, 4, 13, 18, 19, 40


class IflaInfo(IntEnum):
    """The attributes of a link's LINKINFO; of a veth's DATA, VETH_INFO_PEER."""

    KIND, DATA = 1, 2
    PEER = 1


class Ifa(IntEnum):
    """The attributes of an address."""

    ADDRESS, LOCAL = 1, 2


class Nda(IntEnum):
    """The attributes of a neighbour."""

    DST, LLADDR = 1, 2


class Rta(IntEnum):
    """The attributes of a route."""

    DST, OIF, GATEWAY, METRICS = 1, 4, 5, 8


class Rtax(IntEnum):
    """The attributes of a route's METRICS. LOCK has a bit for each that a connection is not to change by itself."""

    LOCK, RTO_MIN, CC_ALGO = 1, 13, 16


class Fra(IntEnum):
    """The attributes of a rule."""

    PRIORITY, FWMARK, FWMASK = 6, 10, 16


class NlmsgerrAttr(IntEnum):
    """The attributes of an error: its words."""

    MSG = 1


@dataclass(frozen=True, slots=True)
class Request:
    """Something that the kernel is asked to do; `what` names it to the user if the kernel refuses it."""

    what: str
    kind: Kind
    flags: Flag
    body: bytes


class Netlink:
    """A socket of the network namespace that the calling thread is in when it is made; it stays there."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _TIMEOUT_S, 0))
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        # Made once: anew, it would cost more than the kernel's answer.
        self._received = memoryview(bytearray(_RECEIVE_BYTES))
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
            flags = request.flags | Flag.REQUEST
            if number == last:  # refusals come without being asked for
                flags |= Flag.ACK
            message += _HEADER.pack(_HEADER.size + len(request.body), request.kind, flags, number, 0) + request.body
        self._socket.send(message)
        refused: str | None = None
        number = 0
        while number != last:
            for kind, number, body in messages(self._receive()):
                code = -_ANSWER_ERROR.unpack_from(body)[0] if kind == Kind.ERROR else 0
                if code and refused is None:
                    refused = f"the kernel refuses {batch[number - first].what}: {_complaint(code, body)}"
        if refused:
            raise EmulatorError(refused)

    def ask(self, kind: Kind, body: bytes) -> None:
        """Ask the kernel to list something; `answer` returns the list."""
        self._sequence += 1
        flags = Flag.REQUEST | Flag.DUMP
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def answer(self) -> bytes:
        """Return what was asked for, as the kernel tells it: `messages` takes it apart. Raises EmulatorError."""
        answer = b""
        while not _ends(answer):
            answer += self._receive()
        return answer

    def _receive(self) -> bytes:
        """One datagram. Of a list, the kernel sends pieces as large as the buffer it is asked to fill."""
        try:
            length = self._socket.recv_into(self._received)
        except BlockingIOError as error:
            raise EmulatorError(f"the kernel did not answer over netlink in {_TIMEOUT_S} s") from error
        return bytes(self._received[:length])


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Take apart what the kernel sent: the type, sequence number and body of every message that is there as a whole."""
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, start)
        if not _HEADER.size <= length <= len(data) - start:
            return
        yield kind, number, data[start + _HEADER.size : start + length]
        start += (length + 3) & ~3


def _ends(answer: bytes) -> bool:
    """Whether a list is complete: its last message says so, or its first is an error."""
    if len(answer) < _DONE_BYTES:
        return False
    length, kind, *_ = _HEADER.unpack_from(answer, len(answer) - _DONE_BYTES)
    return (length, kind) == (_DONE_BYTES, Kind.DONE) or _HEADER.unpack_from(answer)[1] == Kind.ERROR


def _complaint(code: int, body: bytes) -> str:
    """What the kernel says is wrong, in its own words where it has some."""
    said = attributes(body, _COMPLAINT_AT).get(NlmsgerrAttr.MSG, b"").rstrip(b"\0").decode(errors="replace")
    return said or os.strerror(code)


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Take apart the attributes in `data` from `start` on: the value of each, by its type."""
    found = {}
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_BITS] = data[start + _ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3
    return found


def attribute(kind: IntEnum, value: bytes | int | str) -> bytes:
    """Pack one attribute: an integer as 32 bits, a string with the zero that ends it."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


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
        """Pack it as a link's message: header and attributes."""
        packed = _link(self.index)
        packed += attribute(Ifla.IFNAME, self.name) + attribute(Ifla.MTU, self.mtu_bytes)
        packed += attribute(Ifla.NET_NS_PID, self.pid) + attribute(Ifla.TXQLEN, self.queue_frames)
        packed += attribute(Ifla.GSO_MAX_SEGS, self.burst_frames)
        return packed + (attribute(Ifla.ADDRESS, _mac(self.mac)) if self.mac else b"")


def veth_pair(first: LinkEnd, second: LinkEnd) -> Request:
    """Make a virtual Ethernet link (veth(4)) with these two ends."""
    peer = attribute(IflaInfo.DATA, attribute(IflaInfo.PEER, second.message()))
    information = attribute(Ifla.LINKINFO, attribute(IflaInfo.KIND, "veth") + peer)
    body = first.message() + information
    return Request(f"link {first.name} - {second.name}", Kind.NEWLINK, Flag.CREATE | Flag.EXCL, body)


def burst(index: int, frames: int) -> Request:
    """Have TCP hand an interface at most so many frames as one packet (a connection heeds it as it opens)."""
    body = _link(index) + attribute(Ifla.GSO_MAX_SEGS, frames)
    return Request(f"burst of interface {index}", Kind.NEWLINK, Flag(0), body)


def interface_up(index: int, up: bool = True) -> Request:
    """Set an interface up, or down."""
    body = _link(index, _IFF_UP if up else 0, _IFF_UP)
    return Request(f"interface {index} {'up' if up else 'down'}", Kind.NEWLINK, Flag(0), body)


def address(index: int, ip: str) -> Request:
    """Give an interface the address `ip` alone: no route to a prefix comes with it."""
    packed = IPv4Address(ip).packed
    body = _ADDRESS.pack(socket.AF_INET, 32, 0, _SCOPE_UNIVERSE, index)
    body += attribute(Ifa.LOCAL, packed) + attribute(Ifa.ADDRESS, packed)
    return Request(f"address {ip}", Kind.NEWADDR, Flag.CREATE | Flag.EXCL, body)


def neighbour(index: int, ip: str, mac: str) -> Request:
    """Make the MAC of a neighbour known for good: nobody asks for it."""
    body = _NEIGHBOUR.pack(socket.AF_INET, index, _NUD_PERMANENT, 0, 0)
    body += attribute(Nda.DST, IPv4Address(ip).packed) + attribute(Nda.LLADDR, _mac(mac))
    return Request(f"neighbour {ip}", Kind.NEWNEIGH, Flag.CREATE | Flag.REPLACE, body)


def route(
    prefix: str,
    index: int | None,
    via: str | None = None,
    table: int = MAIN_TABLE,
    metrics: bytes = b"",
    delete: bool = False,
    replace: bool = False,
) -> Request:
    """Route to `prefix` by interface `index`, through the neighbour `via` or straight; without an interface: discard.

    `metrics`, as `route_metrics` packs them, are what connections over it are given. `replace` one to the same prefix:
    there is always one or the other.
    """
    network = IPv4Network(prefix)
    kind = _BLACKHOLE if index is None else _UNICAST
    scope = _SCOPE_LINK if index is not None and via is None else _SCOPE_UNIVERSE
    flags = _ONLINK if via else 0
    body = _ROUTE.pack(socket.AF_INET, network.prefixlen, 0, 0, table, _STATIC, scope, kind, flags)
    body += attribute(Rta.DST, network.network_address.packed) if network.prefixlen else b""
    body += attribute(Rta.OIF, index) if index is not None else b""
    body += attribute(Rta.GATEWAY, IPv4Address(via).packed) if via else b""
    body += attribute(Rta.METRICS, metrics) if metrics else b""
    name = f"route to {prefix} (table {table})"
    if delete:
        return Request(f"removing {name}", Kind.DELROUTE, Flag(0), body)
    return Request(name, Kind.NEWROUTE, Flag.REPLACE if replace else Flag.CREATE | Flag.EXCL, body)


def route_metrics(rto_min_ms: int, congestion_control: str | None = None) -> bytes:
    """Pack the least retransmission time-out, and the congestion control of sockets that ask for none."""
    # The kernel heeds the time-out only if it is locked.
    packed = attribute(Rtax.LOCK, 1 << Rtax.RTO_MIN) + attribute(Rtax.RTO_MIN, rto_min_ms)
    return packed + (attribute(Rtax.CC_ALGO, congestion_control) if congestion_control else b"")


def mark_rule(priority: int, mark: int, table: int) -> Request:
    """Have packets with exactly this mark routed by `table`."""
    body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, table, 0, 0, _TO_TABLE, 0)
    body += attribute(Fra.PRIORITY, priority) + attribute(Fra.FWMARK, mark) + attribute(Fra.FWMASK, _WHOLE_MARK)
    return Request(f"rule for mark {mark}", Kind.NEWRULE, Flag.CREATE | Flag.EXCL, body)


def _link(index: int, flags: int = 0, change: int = 0) -> bytes:
    return _LINK.pack(socket.AF_UNSPEC, index, flags, change)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
