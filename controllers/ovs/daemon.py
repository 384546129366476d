"""An Open vSwitch of our own inside the sandbox, and the buffers that its userspace datapath needs."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TextIO

from emulator.command import run
from emulator.errors import EmulatorError
from emulator.inherited import environment
from emulator.proc import packet_sockets, read_table, sockets_of
from emulator.vigil import watch

_RUN = Path("/run/openvswitch")
_START_TIMEOUT_S = 15.0
PACKET_BUFFER_BYTES = 64 << 20

# glibc would return the memory of every large frame to the kernel and fault it in again for the next one.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(256 << 20), "MALLOC_TOP_PAD_": str(16 << 20)}

_SYS_PIDFD_GETFD = 438  # the same number on every architecture
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_libc = ctypes.CDLL(None, use_errno=True)


class OpenVSwitch:
    """A running Open vSwitch, ovsdb-server and ovs-vswitchd, which ends with the sandbox."""

    def __init__(self, log: TextIO) -> None:
        _RUN.mkdir(parents=True, exist_ok=True)
        database, sockets = _RUN / "conf.db", _RUN / "db.sock"
        surroundings = environment(**_MALLOC, OVS_RUNDIR=str(_RUN), OVS_LOGDIR=str(_RUN), OVS_DBDIR=str(_RUN))
        run(["ovsdb-tool", "create", str(database), _schema()])
        self._server = subprocess.Popen(
            ["ovsdb-server", f"--remote=punix:{sockets}", str(database)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=surroundings,
        )  # fmt: skip
        _wait_for(sockets, self._server, "ovsdb-server")
        watch(self._server.pid, "ovsdb-server")
        run(["ovs-vsctl", "--no-wait", "init"])
        self.daemon = subprocess.Popen(
            ["ovs-vswitchd", f"unix:{sockets}", f"--unixctl={_RUN}/vswitchd.ctl", "-vpoll_loop:err"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=surroundings,
        )  # fmt: skip
        _wait_for(_RUN / "vswitchd.ctl", self.daemon, "ovs-vswitchd")
        watch(self.daemon.pid, "ovs-vswitchd")
        self.version = run(["ovs-vswitchd", "--version"]).split("\n", 1)[0].split()[-1]

    def raise_buffers(self) -> int:
        """Give the daemon's packet sockets deep buffers; return the smallest send or receive buffer read back, bytes.

        The userspace datapath sends every port's packets through one AF_PACKET socket, and whatever waits in any qdisc
        counts against that socket's send buffer: at the default, about a dozen large frames fill it and the rest is
        lost without a trace. The socket is made when the first packet leaves, so call this after one has passed.
        The system-wide default cannot be raised for one namespace, hence the daemon's own sockets.
        """
        pid = self.daemon.pid
        open_sockets = sockets_of(pid)
        inodes = {each.inode for each in packet_sockets(read_table(f"/proc/{pid}/net/packet"))} & open_sockets.keys()
        pidfd = os.pidfd_open(pid)
        try:
            return min((_deepen(pidfd, open_sockets[inode]) for inode in inodes), default=0)
        finally:
            os.close(pidfd)

    def count_often(self) -> None:
        """Have the counters of rules be a tenth of a second old at most, the least that Open vSwitch takes.

        At its own half a second, one who asks more often finds that nothing was sent.
        """
        run(["ovs-vsctl", "--no-wait", "set", "Open_vSwitch", ".", "other_config:max-revalidator=100"])

    def disable_sequence_checks(self) -> None:
        """Have the userspace datapath count TCP packets to their connection whatever their sequence numbers.

        What is late, as sprayed packets are, would belong to none.
        """
        run(["ovs-appctl", "-t", str(_RUN / "vswitchd.ctl"), "dpctl/ct-disable-tcp-seq-chk"])


def _schema() -> str:
    for candidate in ("/usr/share/openvswitch/vswitch.ovsschema", "/usr/local/share/openvswitch/vswitch.ovsschema"):
        if Path(candidate).exists():
            return candidate
    raise EmulatorError("Open vSwitch's database schema (vswitch.ovsschema) is missing: reinstall openvswitch-switch")


def _wait_for(path: Path, process: subprocess.Popen[bytes], name: str) -> None:
    """Until somebody listens at `path`; the file alone is there a moment earlier."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _listens(path):
        if process.poll() is not None:
            raise EmulatorError(f"{name} ended with exit status {process.returncode}; its last words are in run.log")
        if time.monotonic() > deadline:
            raise EmulatorError(f"{name} was not ready in {_START_TIMEOUT_S:g} s")
        time.sleep(0.005)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _deepen(pidfd: int, number: int) -> int:
    """Force the buffers of another process's socket; returns the smaller of the two as the kernel now has them."""
    copied = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
    if copied < 0:
        code = ctypes.get_errno()
        raise EmulatorError(f"cannot reach the switch's packet sockets: pidfd_getfd: {os.strerror(code)}")
    with socket.socket(fileno=copied) as packet_socket:
        packet_socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, PACKET_BUFFER_BYTES)
        packet_socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, PACKET_BUFFER_BYTES)
        return min(
            packet_socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
            packet_socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
        )
