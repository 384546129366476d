"""Captures packets while a run is under way: one process, one packet socket and one classic pcap file a port.

Where a capture sees a packet. The kernel shows a packet socket what a port sends when the port hands it to the link,
after the queueing discipline: an outgoing packet's time is when it left the queue, and a packet that the queue dropped
is not there. What a port receives is seen as it arrives. Both ends of a link therefore see the same packets within
microseconds of each other, so every link is captured once, at its lower end, the one nearer the hosts:

- `uplinks`: the leaves' ports to the spines. Every crossing of the fabric, up and down.
- `hosts`: the hosts' own interfaces. What TCP saw, on both sides of the fabric.
- `all`: both, and so every link. Every queue of a switch is between two of these captures; matching a packet in them
  gives its delay (`experiments.captures.queueing`). A leaf's queue to a spine: the host (sent), the uplink (sent). A
  spine's queue to a leaf: the one leaf's uplink (sent), the other's (received). A leaf's queue to a host: the uplink
  (received), the host (received). The host's own queue is before the first capture.

A file holds both directions. A packet was sent by its port if its source address is the host's own or, on an uplink, in
the leaf's prefix. The original lengths in a file add up to what the interface's counters count, received plus sent.
Processors write into one file side by side: the times of neighbouring packets may be out of order by microseconds.

Why not tcpdump, but the library it is made of (libpcap, by its C interface). On a SIGINT tcpdump ends without the
packets of the kernel's unfinished block: of 100 packets whose last was half a second old, it wrote none. Here `stop`
returns when every packet that the kernel has counted is in the file. And that a capture is live is known from the calls
that make it so (socket bound, buffer mapped, filter attached) having returned, not from a message.

What it costs, on two cores that had other work too; tcpdump's figures are alike except where given. A packet takes
0.8 us in the kernel and 0.25 to 0.6 us in the capturing process, at each port it is captured on. 16 hosts at 20 Mb/s on
userspace Open vSwitch: 12 ms of that process for `uplinks` and 19 ms for `all` in a run of 1.7 s, whose completion time
did not change beyond its spread. 16 hosts at 100 Mb/s on Linux routers: 50 and 90 ms in 1.3 s, completion time with
`uplinks` 1.015 times that without (medians of 15), with `all` 1.003 times (least of 10, on a machine too busy for
medians). 64 ports: live after 0.3 s (64 tcpdumps: 1.1 s), 0.18 s of CPU from start to stop (0.35 s), and 4 MiB a port.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from emulator.caller import become_caller
from emulator.child import Child
from emulator.errors import EmulatorError
from emulator.files import Folder
from emulator.namespaces import inside
from emulator.ports import Port

if TYPE_CHECKING:
    import pandas as pd

Which = Literal["none", "uplinks", "hosts", "all"]

SNAP_BYTES = 128  # Ethernet, IPv4 and the longest TCP header take 94
BUFFER_BYTES = 4 << 20  # of each port: room for some 20,000 headers
_PERIOD_S = 0.25  # how often the kernel hands over what was captured, and its buffer is emptied
_FLUSH_TIMEOUT_S = 5.0
_REPLY_TIMEOUT_S = 60.0
_PARALLEL = 32


def capture_points(ports: Sequence[Port], which: Which) -> list[Port]:
    """Return the ports to capture on: every link of that kind once, at its lower end."""
    uplinks = [port for port in ports if port.up and port.spine is not None]
    hosts = [port for port in ports if port.up and port.host is not None]
    return {"none": [], "uplinks": uplinks, "hosts": hosts, "all": hosts + uplinks}[which]


class Captures:
    """The captures of one run, into `directory`/<port name>.pcap with times in nanoseconds.

    As a context manager it is live inside the block; `stop` ends it and says what came of it. Left without `stop`, it
    ends too. Under sudo, the directory and the files belong to the user who called it. Of each packet `snap_bytes` are
    kept; `buffer_bytes` is what may wait for the capturing process in the kernel, a port.
    """

    def __init__(
        self,
        points: Sequence[Port],
        directory: Folder,
        log: TextIO,
        snap_bytes: int = SNAP_BYTES,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self._order = (list(points), directory, snap_bytes, buffer_bytes)
        self._log = log
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """Return the number of the capturing process, while there is one."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Return once every capture is live: a packet sent from now on is in its file.

        Raises EmulatorError when a port cannot be captured on or a file cannot be written.
        """
        if not self._order[0]:
            return
        self._child = Child("emulator.meters.capture", "the capturing process", self._log)
        self._ask(self._child, self._order)

    def stop(self) -> pd.DataFrame:
        """End the captures and count, for each `port` (its name), `packets` in its file and `drops_packets` not in it.

        Every packet that crossed a port before the call is in its file or counted as a drop. Raises EmulatorError when
        a file could not be written to its end.
        """
        import pandas as pd  # the capturing process is this module too, and starts faster without

        rows = []
        if self._child:
            rows = self._ask(self._child, "stop")
            self._end()
        return pd.DataFrame(rows, columns=["port", "packets", "drops_packets"])

    def __enter__(self) -> Captures:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _ask(self, child: Child, what: object) -> Any:
        try:
            return child.ask(what, _REPLY_TIMEOUT_S)
        except EmulatorError:
            self._end()
            raise

    def _end(self) -> None:
        if self._child:
            self._child.end(_FLUSH_TIMEOUT_S)
            self._child = None


# What follows runs in the capturing process.


class _Statistics(ctypes.Structure):
    """struct pcap_stat. On Linux `received` includes what was dropped."""

    _fields_ = (("received", ctypes.c_uint), ("dropped", ctypes.c_uint), ("dropped_by_interface", ctypes.c_uint))


class _Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


_ERROR_BYTES = 256
_NANOSECONDS = 1
_ANY_NETMASK = 0xFFFFFFFF
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "pcap_create": (ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]),
    "pcap_set_snaplen": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
    "pcap_set_buffer_size": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
    "pcap_set_timeout": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
    "pcap_set_tstamp_precision": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
    "pcap_activate": (ctypes.c_int, [ctypes.c_void_p]),
    "pcap_statustostr": (ctypes.c_char_p, [ctypes.c_int]),
    "pcap_geterr": (ctypes.c_char_p, [ctypes.c_void_p]),
    "pcap_compile": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint],
    ),
    "pcap_setfilter": (ctypes.c_int, [ctypes.c_void_p, ctypes.POINTER(_Program)]),
    "pcap_freecode": (None, [ctypes.POINTER(_Program)]),
    "pcap_setnonblock": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]),
    "pcap_dispatch": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]),
    "pcap_stats": (ctypes.c_int, [ctypes.c_void_p, ctypes.POINTER(_Statistics)]),
    "pcap_close": (None, [ctypes.c_void_p]),
    "pcap_dump_fopen": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]),
    "pcap_dump_file": (ctypes.c_void_p, [ctypes.c_void_p]),
    "pcap_dump_flush": (ctypes.c_int, [ctypes.c_void_p]),
    "pcap_dump_close": (None, [ctypes.c_void_p]),
}
_libc = ctypes.CDLL(None)
_libc.ferror.argtypes = [ctypes.c_void_p]
_libc.fdopen.argtypes, _libc.fdopen.restype = [ctypes.c_int, ctypes.c_char_p], ctypes.c_void_p


@functools.cache
def _libpcap() -> Any:
    for name in ("libpcap.so.0.8", "libpcap.so.1"):  # Debian's name for it, everybody else's
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, (result, arguments) in _SIGNATURES.items():
            getattr(library, function).restype = result
            getattr(library, function).argtypes = arguments
        return library
    raise EmulatorError("captures need libpcap, which comes with tcpdump: run ./spraylab once as root to install it")


class _Capture:
    """One port's packet socket and file. Live once made."""

    def __init__(self, point: Port, snap_bytes: int, buffer_bytes: int) -> None:
        self.name = point.name
        self.packets = 0
        self._pcap = _libpcap()
        message = ctypes.create_string_buffer(_ERROR_BYTES)
        with inside(point.pid):
            self._handle = self._pcap.pcap_create(point.name.encode(), message)
            if not self._handle:
                raise EmulatorError(f"cannot capture on {self.name}: {message.value.decode()}")
            self._pcap.pcap_set_snaplen(self._handle, snap_bytes)
            self._pcap.pcap_set_buffer_size(self._handle, buffer_bytes)
            self._pcap.pcap_set_timeout(self._handle, round(_PERIOD_S * 1000))
            self._pcap.pcap_set_tstamp_precision(self._handle, _NANOSECONDS)
            status = self._pcap.pcap_activate(self._handle)
        if status < 0:
            why = self._pcap.pcap_geterr(self._handle) or self._pcap.pcap_statustostr(status)
            raise EmulatorError(f"cannot capture on {self.name}: {why.decode()}")
        # The filter takes everything; it is what makes the kernel copy no more than the snap length.
        program = _Program()
        self._check(self._pcap.pcap_compile(self._handle, program, b"", 1, _ANY_NETMASK))
        self._check(self._pcap.pcap_setfilter(self._handle, program))
        self._pcap.pcap_freecode(program)
        self._check(self._pcap.pcap_setnonblock(self._handle, 1, message))

    def _check(self, status: int) -> None:
        if status < 0:
            raise EmulatorError(f"cannot capture on {self.name}: {self._pcap.pcap_geterr(self._handle).decode()}")

    def open_file(self, directory: Folder) -> None:
        name = f"{self.name}.pcap"
        self._path = directory.path / name
        with directory.empty(name) as file:
            stream = _libc.fdopen(os.dup(file.fileno()), b"wb")
        self._file = self._pcap.pcap_dump_fopen(self._handle, stream)
        if not self._file:
            raise EmulatorError(f"cannot write a capture: {self._pcap.pcap_geterr(self._handle).decode()}")

    def drain(self) -> None:
        """Write what the kernel has ready; no Python runs for a packet."""
        write = ctypes.cast(self._pcap.pcap_dump, ctypes.c_void_p)
        packets = self._pcap.pcap_dispatch(self._handle, -1, write, self._file)
        self._check(packets)
        self.packets += packets

    def seen_and_dropped(self) -> tuple[int, int]:
        """Return the packets since the capture went live, and how many of them found the buffer full."""
        statistics = _Statistics()
        self._check(self._pcap.pcap_stats(self._handle, statistics))
        return statistics.received, statistics.dropped

    def close_file(self) -> None:
        flushed = self._pcap.pcap_dump_flush(self._file)
        failed = flushed < 0 or _libc.ferror(self._pcap.pcap_dump_file(self._file))
        self._pcap.pcap_dump_close(self._file)
        if failed:
            raise EmulatorError(f"{self._path} could not be written to its end: is the disk full?")

    def close(self) -> None:
        self._pcap.pcap_close(self._handle)


def _finish(captures: Sequence[_Capture]) -> list[tuple[str, int, int]]:
    """Wait for the kernel to hand over what it has seen by now (at most two periods), and close the files."""
    seen = {capture: capture.seen_and_dropped()[0] for capture in captures}
    waiting = set(captures)
    deadline = time.monotonic() + _FLUSH_TIMEOUT_S
    while waiting and time.monotonic() < deadline:
        for capture in list(waiting):
            _, dropped = capture.seen_and_dropped()
            capture.drain()
            if capture.packets + dropped >= seen[capture]:
                waiting.discard(capture)
        time.sleep(_PERIOD_S / 10)
    for capture in captures:
        capture.close_file()
    return [(each.name, each.packets, max(each.seen_and_dropped()[1], seen[each] - each.packets)) for each in captures]


def serve(channel: Connection) -> None:
    """Capture what the first order names until there is a second, then send what came of it."""
    points, directory, snap_bytes, buffer_bytes = channel.recv()
    _libpcap()
    # At once: the kernel takes some 10 ms to make a packet socket and as much to end it, most of which is waiting.
    with ThreadPoolExecutor(_PARALLEL) as pool:
        captures = list(pool.map(lambda point: _Capture(point, snap_bytes, buffer_bytes), points))
    become_caller()
    try:
        directory.make()
        for capture in captures:
            capture.open_file(directory)
    except OSError as error:
        raise EmulatorError(f"cannot write captures to {error.filename or directory.path}: {error.strerror}") from error
    channel.send(None)
    while not channel.poll(_PERIOD_S):
        for capture in captures:
            capture.drain()
    result = _finish(captures)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(_Capture.close, captures))
    channel.recv()
    channel.send(result)
