"""What a plan's connections are given, and what TCP says of them, as the kernel tells."""

from __future__ import annotations

import ctypes
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from replaying import (
    FABRIC,
    MB,
    QUICK,
    FaultySockets,
    plan_of,
    play,
)

from emulator.errors import EmulatorError
from emulator.topology import LeafSpine
from traffic.collectives import build_schedule
from traffic.connections import Connections
from traffic.loopback import LoopbackSockets
from traffic.payload import Anything
from traffic.plan import LISTEN_PORT
from traffic.schedule import Flow
from traffic.tcpinfo import ConnectionResult
from traffic.transport import Transport, window_bytes


def test_both_ends_of_a_connection_are_what_the_plan_says() -> None:
    plan = plan_of(build_schedule("alltoall", "direct", ranks=4, size_bytes=4 * MB), "ethereal")
    sockets = LoopbackSockets(FABRIC)
    connections = Connections(plan, FABRIC, sockets, Transport(congestion_control="reno"))
    connections.open()
    try:
        assert {connection.path_tag for connection in plan.connections} == {0, 1, 2}
        for connection, sender, receiver in zip(
            plan.connections, connections.senders.values(), connections.receivers.values(), strict=True
        ):
            source = (sockets.address(connection.src_host), connection.src_port)
            target = (sockets.address(connection.dst_host), LISTEN_PORT)
            assert (sender.getsockname(), sender.getpeername()) == (source, target)
            assert (receiver.getsockname(), receiver.getpeername()) == (target, source)
            for end in (sender, receiver):
                assert end.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == connection.path_tag * 4
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
                assert not end.getblocking()
    finally:
        connections.close()
    assert {end.fileno() for end in (*connections.senders.values(), *connections.receivers.values())} == {-1}


def test_nothing_is_left_of_a_connection_that_was_closed() -> None:
    """Not even TIME_WAIT, or the next run could not connect the same ports."""
    sockets = LoopbackSockets(FABRIC)
    play(plan_of([Flow(0, 0, 1, 1000)]), sockets=sockets)
    source = f"{int.from_bytes(socket.inet_aton(sockets.address(0)), sys.byteorder):08X}:{10_000:04X}"
    assert source not in Path("/proc/net/tcp").read_text()


def test_windows_are_fitted_to_the_queue_the_link_and_the_number_of_connections() -> None:
    fabric = LeafSpine(2, 2, 2, host_rate_bps=10_000_000, queue_bytes=4_000_000)
    assert window_bytes(fabric, 1) == 500_000  # what 10 Mb/s carry in 0.4 s
    assert window_bytes(fabric, 4) == 125_000
    assert window_bytes(replace(fabric, queue_bytes=200_000), 1) == 100_000  # half of the queue
    assert window_bytes(fabric, 10_000) == 2 * (9000 - 52)  # two segments at least


def test_connections_begin_with_fitted_windows_where_they_are_asked_for() -> None:
    """Ten connections to a host whose queue holds a megabyte. (What Linux makes of a window later is its own.)"""
    fabric = replace(FABRIC, queue_bytes=1_000_000)
    plan = plan_of([Flow(number, 0, 1, MB, channel=number) for number in range(10)])
    for windows in ("fitted", "default"):
        connections = Connections(plan, fabric, LoopbackSockets(fabric), replace(QUICK, windows=windows))
        connections.open()
        clamps = [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP) for end in connections.receivers.values()]
        connections.close()
        assert (set(clamps) == {50_000}) == (windows == "fitted")


def test_connections_that_do_not_open_are_counted_and_the_first_is_named() -> None:
    class Unreachable(LoopbackSockets):
        """Host 3 listens where nobody looks for it."""

        def address(self, host: int) -> str:
            self.asked = getattr(self, "asked", 0) + (host == 3)
            return super().address(host + 10 * (host == 3 and self.asked > 1))

    plan = plan_of([Flow(0, 0, 1, 1000), Flow(1, 2, 3, 1000), Flow(2, 0, 3, 1000)])
    connections = Connections(plan, FABRIC, Unreachable(FABRIC), QUICK)
    began = time.monotonic()
    with pytest.raises(EmulatorError) as caught:
        connections.open(timeout_s=0.3)
    assert str(caught.value) == "2 of 3 connections did not open in 0.3 s, the first from h3 to h4"
    assert 0.3 <= time.monotonic() - began < 1
    assert {sender.fileno() for sender in connections.senders.values()} == {-1}


def test_a_stranger_who_knocks_is_sent_away() -> None:
    class Visited(LoopbackSockets):
        """Before the first connection, a stranger comes to host 1."""

        stranger: socket.socket | None = None

        def socket(self, host: int) -> socket.socket:
            if host == 0 and not self.stranger:
                self.stranger = super().socket(0)
                self.stranger.connect_ex((self.address(1), LISTEN_PORT))
            return super().socket(host)

    sockets = Visited(FABRIC)
    result, _ = play(plan_of([Flow(0, 0, 1, 1000)]), sockets=sockets)
    assert [connection.received_bytes for connection in result.connections] == [1000]
    assert sockets.stranger
    sockets.stranger.settimeout(5)
    assert sockets.stranger.recv(1) == b""
    sockets.stranger.close()


class TcpInfo(ctypes.Structure):
    """struct tcp_info, as linux/tcp.h has it."""

    _fields_ = (
        *((f"byte_{number}", ctypes.c_uint8) for number in range(8)),
        *((name, ctypes.c_uint32) for name in (
            "rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets", "last_data_sent",
            "last_ack_sent", "last_data_recv", "last_ack_recv", "pmtu", "rcv_ssthresh", "rtt", "rttvar",
            "snd_ssthresh", "snd_cwnd", "advmss", "reordering", "rcv_rtt", "rcv_space", "total_retrans",
        )),
        *((name, ctypes.c_uint64) for name in ("pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received")),
        *((name, ctypes.c_uint32) for name in ("segs_out", "segs_in", "notsent_bytes", "min_rtt", "data_segs_in",
                                               "data_segs_out")),
        *((name, ctypes.c_uint64) for name in ("delivery_rate", "busy_time", "rwnd_limited", "sndbuf_limited")),
        *((name, ctypes.c_uint32) for name in ("delivered", "delivered_ce")),
        *((name, ctypes.c_uint64) for name in ("bytes_sent", "bytes_retrans")),
        *((name, ctypes.c_uint32) for name in ("dsack_dups", "reord_seen", "rcv_ooopack", "snd_wnd", "rcv_wnd",
                                               "rehash")),
        *((name, ctypes.c_uint16) for name in ("total_rto", "total_rto_recoveries")),
    )  # fmt: skip


class Told(socket.socket):
    """A sender of which the kernel tells what was planted."""

    def getsockopt(self, *arguments: Any) -> Any:
        if arguments[:2] != (socket.IPPROTO_TCP, socket.TCP_INFO):
            return super().getsockopt(*arguments)
        return bytes(TcpInfo(total_retrans=3, bytes_retrans=1 << 33, total_rto=2, reord_seen=7, min_rtt=1500,
                             bytes_received=99, rcv_ooopack=99))  # fmt: skip


def test_what_tcp_says_is_read_from_the_end_that_knows() -> None:
    result, _ = play(plan_of([Flow(0, 0, 1, 1000)]), sockets=FaultySockets(Told))
    assert result.connections == [
        ConnectionResult(
            retransmitted_segments=3,
            retransmitted_bytes=1 << 33,
            timeouts=2,
            reordering_seen=7,
            out_of_order_segments=0,
            received_bytes=1000,
            min_rtt_s=0.0015,
        )
    ]


def test_an_older_kernel_that_tells_less_is_taken_for_zeros() -> None:
    class Older(Told):
        def getsockopt(self, *arguments: Any) -> Any:
            told = super().getsockopt(*arguments)
            return told[: TcpInfo.bytes_retrans.offset] if isinstance(told, bytes) else told

    result, _ = play(plan_of([Flow(0, 0, 1, 1000)]), sockets=FaultySockets(Older))
    (connection,) = result.connections
    assert (connection.retransmitted_segments, connection.retransmitted_bytes, connection.timeouts) == (3, 0, 0)


class Dripping(socket.socket):
    """Takes what it is given and sends 2 KB of it every few milliseconds."""

    def send(self, data: Any, flags: int = 0) -> int:
        threading.Thread(target=self._drip, args=(bytes(data),)).start()
        return len(data)

    def _drip(self, data: bytes) -> None:
        for start in range(0, len(data), 2000):
            super().send(data[start : start + 2000])
            time.sleep(0.004)


@pytest.mark.parametrize("size_bytes", [40_000, 85_000])
def test_a_receiver_is_woken_once_a_batch_and_not_once_a_packet(size_bytes: int) -> None:
    """A batch is 64 KiB, or the rest of a piece: whoever waited for more would wait for ever."""

    class Noted(Anything):
        receive_flags = 0

        def __init__(self) -> None:
            super().__init__()
            self.reads: list[int] = []

        def arrived(self, flow: int, offset: int, data: memoryview) -> None:
            self.reads.append(len(data))

    payload = Noted()
    play(plan_of([Flow(0, 0, 1, size_bytes)]), payload, FaultySockets(Dripping))
    assert sum(payload.reads) == size_bytes
    assert len(payload.reads) == 1 + (size_bytes > 1 << 16)
