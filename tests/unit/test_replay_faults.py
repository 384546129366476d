"""Replays over the loopback that cannot go on: sockets that misbehave, and what is said of them."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
from replaying import (
    Faulty,
    FaultySockets,
    plan_of,
    play,
)

from emulator.errors import EmulatorError
from traffic.schedule import Flow
from traffic.transport import Transport


class Swallowing(Faulty):
    def fault(self, data: memoryview) -> int:
        return len(data)


class Closing(Faulty):
    def fault(self, data: memoryview) -> int:
        self.shutdown(socket.SHUT_WR)
        return len(data)


class Broken(Faulty):
    def fault(self, data: memoryview) -> int:
        raise ConnectionResetError(104, "Connection reset by peer")


class FullForEver(Faulty):
    def fault(self, data: memoryview) -> int:
        raise BlockingIOError


class Repeating(Faulty):
    limit = 59_999

    def fault(self, data: memoryview) -> int:
        socket.socket.send(self, b"ab")
        return 1


@pytest.mark.parametrize("kind", [Swallowing, FullForEver])
def test_a_replay_in_which_nothing_arrives_names_the_stuck_flows(kind: type[socket.socket]) -> None:
    flows = [
        Flow(0, 0, 1, 20_000),
        Flow(1, 0, 1, 40_000),
        Flow(2, 0, 1, 4000),
        Flow(3, 2, 3, 4000),
        Flow(4, 3, 2, 4000, waits_for=(2,)),
    ]
    began = time.monotonic()
    with pytest.raises(EmulatorError) as caught:
        play(plan_of(flows), sockets=FaultySockets(kind))
    assert str(caught.value) == (
        "no byte has arrived for 0.4 s; stuck: "
        "flow 1 h1 -> h2 (10000 of 40000 bytes), flow 2 h1 -> h2 (0 of 4000 bytes)"
    )
    assert 0.4 <= time.monotonic() - began < 2


def test_of_many_stuck_flows_five_are_named() -> None:
    with pytest.raises(EmulatorError, match=r"\(0 of 9000 bytes\) and 3 more$") as caught:
        play(plan_of([Flow(number, 0, 1, 9000) for number in range(11)]), sockets=FaultySockets(Swallowing))
    assert str(caught.value).count("->") == 5
    with pytest.raises(EmulatorError, match=r"\(0 of 9000 bytes\)$"):
        play(plan_of([Flow(number, 0, 1, 9000) for number in range(8)]), sockets=FaultySockets(Swallowing))


class Delaying(socket.socket):
    """Takes what it is given, and sends it after as many milliseconds as it has hundreds of bytes."""

    def send(self, data: Any, flags: int = 0) -> int:
        threading.Timer(len(data) / 100_000, super().send, [bytes(data), flags]).start()
        return len(data)


def test_bytes_that_trickle_in_are_no_stall() -> None:
    """Something arrives every 50 ms, though the last of it only after twice the stall time-out."""
    flows = [Flow(number, 0, 1, 5000 * (number + 1), channel=number) for number in range(8)]
    result, _ = play(plan_of(flows), sockets=FaultySockets(Delaying), transport=Transport(stall_timeout_s=0.2))
    assert result.cct_s >= 0.39


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Closing, "was closed by its sender"),
        (Broken, "broke: Connection reset by peer"),
        (Repeating, "delivered more than was sent"),
    ],
)
def test_a_connection_that_ends_is_named(kind: type[socket.socket], said: str) -> None:
    with pytest.raises(EmulatorError) as caught:
        play(plan_of([Flow(0, 0, 3, 60_000)]), sockets=FaultySockets(kind))
    assert str(caught.value) == f"the connection from h1 (port 10000) to h4 {said}"


class Reset(socket.socket):
    """Listens as it should; what it accepts breaks when it is read."""

    def accept(self) -> tuple[socket.socket, Any]:
        made, peer = super().accept()
        return Reset(fileno=made.detach()), peer

    def recv_into(self, *_: Any) -> int:
        raise ConnectionResetError(104, "Connection reset by peer")


def test_a_receiver_that_is_reset_is_named() -> None:
    with pytest.raises(EmulatorError) as caught:
        play(plan_of([Flow(0, 3, 0, 60_000)]), sockets=FaultySockets(Reset))
    assert str(caught.value) == "the connection from h4 (port 10000) to h1 broke: Connection reset by peer"


def test_an_unknown_congestion_control_is_named_and_nothing_stays_open() -> None:
    plan = plan_of([Flow(0, 0, 1, 1000)])
    with pytest.raises(EmulatorError, match=r"^transport.congestion_control: this kernel has no nosuch$"):
        play(plan, transport=Transport(congestion_control="nosuch"))
    play(plan)  # the same ports
