"""The kernel's Multipath TCP (RFC 8684), told over generic netlink which subflows to open.

Names are those of linux/mptcp_pm.h and linux/mptcp.h, without the prefix that the class stands for. Left to itself, the
kernel opens subflows from either end, from ports of its own choice: then nobody could say which paths they are to take.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import socket
import struct
from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv4Address

from emulator.errors import EmulatorError
from emulator.namespaces import inside, set_sysctls

PATH_MANAGER = "net.mptcp.pm_type"  # 0: the kernel's; 1: in user space
_SINCE, _SINCE_SAID = (6, 5), "Linux 6.5 or later"  # the path manager came with 5.19, MPTCP's count of bytes with this

_NETLINK_GENERIC, _CONTROLLER = 16, 16
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME, _GROUPS, _GROUP_NAME, _GROUP_ID = 3, 1, 2, 7, 1, 2
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_REQUEST_ACK = 0x1 | 0x4
_HEADERS = struct.Struct("=IHHIIBBxx")  # nlmsghdr and genlmsghdr: length, type, flags, sequence, port; command, version
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_ERROR = 2
_ANSWER_BYTES = 1 << 16
_TIMEOUT_S = 5.0

_SOL_MPTCP, _INFO, _TCPINFO = 284, 1, 2  # getsockopt(2)
_INFO_BYTES = 256
_TOKEN, _WRITTEN, _BYTES_RECEIVED = (
    12,
    16,
    64,
)  # offsets in struct mptcp_info
_SUBFLOW_DATA = struct.Struct("=4I")  # mptcp_subflow_data: its size, subflows, the kernel's and our bytes for each
_MOST_SUBFLOWS = 16
_ESTABLISHED = 1  # the first byte of a tcp_info

_libc = ctypes.CDLL(None, use_errno=True)


class Attr(IntEnum):
    """The attributes of a request: MPTCP_PM_ATTR_."""

    ADDR, TOKEN, ADDR_REMOTE = 1, 4, 6


class AddrAttr(IntEnum):
    """The attributes of an address: MPTCP_PM_ADDR_ATTR_."""

    FAMILY, ID, ADDR4, PORT = 1, 2, 3, 5


_SUBFLOW_CREATE = 10


def without_mptcp() -> str | None:
    """Return why this kernel cannot open subflows as it is told; None: it can."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP).close()
    except OSError as error:
        return f"this kernel opens no MPTCP sockets ({error.strerror}): it takes CONFIG_MPTCP, and net.mptcp.enabled=1"
    release = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    if release < _SINCE:
        return f"MPTCP of Linux {platform.release()} cannot be told and asked all that it takes: {_SINCE_SAID} can"
    return None


class PathManager:
    """Opens subflows of connections that begin in the network namespace of process `pid`, and lets others in.

    The kernel lets subflows in for as long as somebody listens to what it tells of them, read or not.
    """

    def __init__(self, pid: int) -> None:
        """Raises EmulatorError."""
        with inside(pid):
            self._socket, self._events = (
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) for _ in range(2)
            )
        self._socket.settimeout(_TIMEOUT_S)
        answer = self._ask(_CONTROLLER, _GET_FAMILY, _attribute(_FAMILY_NAME, b"mptcp_pm\0"))
        family = _attributes(answer[_HEADERS.size :])
        (self._family,) = struct.unpack_from("=H", family[_FAMILY_ID])
        groups = [_attributes(group) for group in _attributes(family[_GROUPS]).values()]
        (events,) = (group[_GROUP_ID] for group in groups if group[_GROUP_NAME] == b"mptcp_pm_events\0")
        self._events.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, struct.unpack("=I", events)[0])

    def close(self) -> None:
        self._socket.close()
        self._events.close()

    def open_subflow(self, token: int, number: int, local: tuple[str, int], remote: tuple[str, int]) -> None:
        """Have the connection of `token` open one more subflow, from and to these addresses; it is on its way then.

        Raises EmulatorError.
        """
        attributes = _attribute(Attr.TOKEN, struct.pack("=I", token))
        attributes += _attribute(Attr.ADDR | _NESTED, _address(*local) + _attribute(AddrAttr.ID, bytes([number])))
        attributes += _attribute(Attr.ADDR_REMOTE | _NESTED, _address(*remote))
        self._ask(self._family, _SUBFLOW_CREATE, attributes)

    def _ask(self, kind: int, command: int, attributes: bytes) -> bytes:
        """Return the first thing that the kernel says to it; raises EmulatorError if that, or its end, is an error."""
        self._socket.send(
            _HEADERS.pack(_HEADERS.size + len(attributes), kind, _REQUEST_ACK, 0, 0, command, 1) + attributes
        )
        first = b""
        while True:
            answer = self._socket.recv(_ANSWER_BYTES)
            first = first or answer
            _, said, *_ = _HEADERS.unpack_from(answer)
            if said != _ERROR:
                continue
            (code,) = struct.unpack_from("=i", answer, 16)
            if code:
                raise EmulatorError(f"MPTCP's path manager refuses to open a subflow: {os.strerror(-code)}")
            return first


def manage_paths(pids: Sequence[int], *, in_user_space: bool) -> None:
    """Have MPTCP in the network namespaces of these processes open subflows by itself, or as it is told."""
    for pid in pids:
        with inside(pid):
            set_sysctls({PATH_MANAGER: str(int(in_user_space))})


def token(opened: socket.socket) -> int:
    """Return what the path manager knows a connection by."""
    (found,) = struct.unpack_from("=I", _info(opened), _TOKEN)
    return int(found)


def subflows(opened: socket.socket) -> int:
    """Return how many subflows of a connection are up."""
    return sum(info[0] == _ESTABLISHED for info in tcp_infos(opened, 1))


def all_acknowledged(opened: socket.socket) -> bool:
    """Return whether the other end has acknowledged all that was sent, as a connection and not only by subflow."""
    written, acknowledged = struct.unpack_from("=QQ", _info(opened), _WRITTEN)
    return bool(written == acknowledged)


def received_bytes(opened: socket.socket) -> int:
    """Return the bytes that a connection has received, however many of its subflows brought them."""
    (found,) = struct.unpack_from("=Q", _info(opened), _BYTES_RECEIVED)
    return int(found)


def tcp_infos(opened: socket.socket, size_bytes: int) -> list[bytes]:
    """Return so much of the tcp_info of every subflow. Raises EmulatorError."""
    head = _SUBFLOW_DATA.pack(_SUBFLOW_DATA.size, 0, 0, size_bytes)
    buffer = ctypes.create_string_buffer(head, _SUBFLOW_DATA.size + _MOST_SUBFLOWS * size_bytes)
    length = ctypes.c_uint32(len(buffer))
    if _libc.getsockopt(opened.fileno(), _SOL_MPTCP, _TCPINFO, buffer, ctypes.byref(length)) != 0:
        raise EmulatorError(f"this kernel's MPTCP says nothing of subflows: {os.strerror(ctypes.get_errno())}")
    _, count, *_ = _SUBFLOW_DATA.unpack_from(buffer)
    starts = (_SUBFLOW_DATA.size + number * size_bytes for number in range(count))
    return [buffer.raw[start : start + size_bytes] for start in starts]


def _info(opened: socket.socket) -> bytes:
    try:
        return opened.getsockopt(_SOL_MPTCP, _INFO, _INFO_BYTES)
    except OSError as error:
        raise EmulatorError(f"a connection fell back from MPTCP to TCP: {error.strerror}") from error


def _address(ip: str, port: int) -> bytes:
    return (
        _attribute(AddrAttr.FAMILY, struct.pack("=H", socket.AF_INET))
        + _attribute(AddrAttr.ADDR4, IPv4Address(ip).packed)
        + _attribute(AddrAttr.PORT, struct.pack("=H", port))
    )


def _attributes(data: bytes) -> dict[int, bytes]:
    """Return what is in each attribute, by its type."""
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        found[kind & ~_NESTED] = data[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, -(-length // 4) * 4)
    return found


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)
