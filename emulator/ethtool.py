"""What an interface leaves to its hardware, or a virtual one to its peer, switched off (ethtool(8), by ioctl)."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from ctypes import addressof, create_string_buffer
from enum import IntEnum

from emulator.errors import EmulatorError

_SIOCETHTOOL = 0x8946
_COMMAND = struct.Struct("@II")  # ethtool_value: command, value
_REQUEST = struct.Struct("@16sP16x")  # ifreq: an interface's name, where the command is


class Offload(IntEnum):
    """What can be switched off, by the command that does so (ETHTOOL_S... of linux/ethtool.h)."""

    CHECKSUMS_SENT = 0x17
    TCP_SEGMENTATION = 0x1F
    GENERIC_SEGMENTATION = 0x24
    GENERIC_MERGING = 0x2C


def switch_off(interfaces: Iterable[str], offloads: Iterable[Offload]) -> None:
    """Switch `offloads` off at interfaces of the calling thread's network namespace. Raises EmulatorError."""
    offloads = list(offloads)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        for interface in interfaces:
            for offload in offloads:
                command = create_string_buffer(_COMMAND.pack(offload, 0))
                try:
                    fcntl.ioctl(control, _SIOCETHTOOL, _REQUEST.pack(os.fsencode(interface), addressof(command)))
                except OSError as error:
                    what = offload.name.lower().replace("_", " ")
                    raise EmulatorError(f"{what} of {interface} cannot be switched off: {error.strerror}") from error
