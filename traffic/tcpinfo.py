"""What TCP counts of an open connection (struct tcp_info), as results and reactions read it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from emulator import mptcp
from traffic.multipath import HELLO

_TCP_INFO, _INFO_BYTES = 11, 256  # offsets are those of struct tcp_info in linux/tcp.h
_TOTAL_RETRANS, _BYTES_RECEIVED, _MIN_RTT, _BYTES_RETRANS, _REORD_SEEN, _RCV_OOOPACK = 100, 128, 148, 208, 220, 224
_TOTAL_RTO, _DATA_SEGS_OUT = 240, 156


@dataclass(frozen=True)
class ConnectionResult:
    """What TCP says of one connection; `out_of_order_segments` and `received_bytes` are the receiver's counts.

    `timeouts` are retransmission time-outs, counted from Linux 6.7 on; 0 before. It was moved to another path `moves`
    times.
    """

    retransmitted_segments: int
    retransmitted_bytes: int
    timeouts: int
    reordering_seen: int
    out_of_order_segments: int
    received_bytes: int
    min_rtt_s: float
    moves: int = 0

    def __add__(self, other: ConnectionResult) -> ConnectionResult:
        """Put together what was read of a connection's ends by the processes that have them."""
        return ConnectionResult(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))


def result_of(sender: socket.socket | None, receiver: socket.socket | None, moves: int) -> ConnectionResult:
    """Read what TCP has counted at both ends of a connection; of MPTCP, on all its subflows together.

    Of an end that another process has, nothing is counted.
    """
    sent, got = _tcp_infos(sender), _tcp_infos(receiver)
    return ConnectionResult(
        retransmitted_segments=sum(_numbers("=I", sent, _TOTAL_RETRANS)),
        retransmitted_bytes=sum(_numbers("=Q", sent, _BYTES_RETRANS)),
        timeouts=sum(_numbers("=H", sent, _TOTAL_RTO)),
        reordering_seen=sum(_numbers("=I", sent, _REORD_SEEN)),
        out_of_order_segments=sum(_numbers("=I", got, _RCV_OOOPACK)),
        received_bytes=(
            mptcp.received_bytes(receiver) - len(HELLO)
            if receiver and receiver.proto == socket.IPPROTO_MPTCP
            else sum(_numbers("=Q", got, _BYTES_RECEIVED))
        ),
        min_rtt_s=min(_numbers("=I", sent, _MIN_RTT)) / 1e6,
        moves=moves,
    )


def data_segments_sent(sender: socket.socket) -> int:
    """Read how many segments with data a connection has sent, those sent again included."""
    return sum(_numbers("=I", _tcp_infos(sender), _DATA_SEGS_OUT))


def _tcp_infos(opened: socket.socket | None) -> list[bytes]:
    """One of every subflow. Zeros stand for what an older kernel does not tell."""
    if not opened:
        return [bytes(_INFO_BYTES)]
    if opened.proto == socket.IPPROTO_MPTCP:
        return mptcp.tcp_infos(opened, _INFO_BYTES)
    return [opened.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_BYTES).ljust(_INFO_BYTES, b"\0")]


def _numbers(layout: str, infos: Sequence[bytes], offset: int) -> list[int]:
    return [int(struct.unpack_from(layout, info, offset)[0]) for info in infos]
