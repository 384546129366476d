"""Replays over the loopback that cannot go on: sockets that misbehave, and what is said of them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import re
import select
import socket
import threading
import time
from typing import Any

import pytest
from replaying import (
    FABRIC,
    QUICK,
    Faulty,
    FaultySockets,
    plan_of,
    play,
)

from emulator.errors import EmulatorError
from traffic.abreast import Abreast
from traffic.loopback import LoopbackSockets
from traffic.payload import Anything
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


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", [Swallowing, FullForEver])
def test_a_replay_in_which_nothing_arrives_names_the_stuck_flows(kind: type[socket.socket], processes: int) -> None:
    flows = [
        Flow(0, 0, 1, 20_000),
        Flow(1, 0, 1, 40_000),
        Flow(2, 0, 1, 4000),
        Flow(3, 2, 3, 4000),
        Flow(4, 3, 2, 4000, waits_for=(2,)),
    ]
    began = time.monotonic()
    with pytest.raises(EmulatorError) as caught:
        play(plan_of(flows), sockets=FaultySockets(kind), processes=processes)
    # Less than what its receiver is woken for may have arrived and not been read.
    assert re.fullmatch(
        r"no byte has arrived for 0\.4 s; stuck: "
        r"flow 1 h1 -> h2 \((0|10000) of 40000 bytes\), flow 2 h1 -> h2 \(0 of 4000 bytes\)",
        str(caught.value),
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


@pytest.mark.parametrize("processes", [1, 2])
def test_bytes_that_trickle_in_are_no_stall(processes: int) -> None:
    """Something arrives every 50 ms, though the last of it only after twice the stall time-out."""
    flows = [Flow(number, 0, 1, 5000 * (number + 1), channel=number) for number in range(8)]
    result, _ = play(
        plan_of(flows), sockets=FaultySockets(Delaying), transport=Transport(stall_timeout_s=0.2), processes=processes
    )
    assert result.cct_s >= 0.39


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Closing, "was closed by its sender"),
        (Broken, "broke: Connection reset by peer"),
        (Repeating, "delivered more than was sent"),
    ],
)
def test_a_connection_that_ends_is_named(kind: type[socket.socket], said: str, processes: int) -> None:
    with pytest.raises(EmulatorError) as caught:
        play(plan_of([Flow(0, 0, 3, 60_000)]), sockets=FaultySockets(kind), processes=processes)
    assert str(caught.value) == f"the connection from h1 (port 10000) to h4 {said}"


class Reset(socket.socket):
    """Listens as it should; what it accepts breaks when it is read."""

    def accept(self) -> tuple[socket.socket, Any]:
        made, peer = super().accept()
        return Reset(fileno=made.detach()), peer

    def recv_into(self, *_: Any) -> int:
        raise ConnectionResetError(104, "Connection reset by peer")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_receiver_that_is_reset_is_named(processes: int) -> None:
    with pytest.raises(EmulatorError) as caught:
        play(plan_of([Flow(0, 3, 0, 60_000)]), sockets=FaultySockets(Reset), processes=processes)
    assert str(caught.value) == "the connection from h4 (port 10000) to h1 broke: Connection reset by peer"


@pytest.mark.parametrize("processes", [1, 2])
def test_an_unknown_congestion_control_is_named_and_nothing_stays_open(processes: int) -> None:
    plan = plan_of([Flow(0, 0, 1, 1000)])
    with pytest.raises(EmulatorError, match=r"^transport.congestion_control: this kernel has no nosuch$"):
        play(plan, transport=Transport(congestion_control="nosuch"), processes=processes)
    play(plan, processes=processes)  # the same ports


def test_a_process_that_is_killed_ends_the_replay_with_a_sentence_and_the_others_with_it() -> None:
    plan = plan_of([Flow(0, 0, 3, 1000), Flow(1, 3, 0, 1000, start_s=30.0)])
    sockets = LoopbackSockets(FABRIC)
    with Abreast(plan, FABRIC, sockets, QUICK, processes=2) as replay:
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        threading.Timer(0.3, workers[1].kill).start()
        with pytest.raises(EmulatorError) as caught:
            for _ in replay.run():
                pass
    assert re.fullmatch(r"process [12] of 2 that replay the traffic was ended by SIGKILL", str(caught.value))
    assert multiprocessing.active_children() == []
    quick = plan_of([Flow(0, 0, 3, 1000), Flow(1, 3, 0, 1000)])
    play(quick, sockets=sockets, processes=2)  # the same ports


def test_nothing_is_left_of_a_replay_by_several_that_is_given_up() -> None:
    with Abreast(plan_of([Flow(0, 0, 3, 1000, start_s=30.0)]), FABRIC, LoopbackSockets(FABRIC), QUICK) as replay:
        next(replay.run())
    assert multiprocessing.active_children() == []


def test_processes_end_with_the_one_that_started_them() -> None:
    """It is killed, and so can tell nobody."""
    ours, theirs = multiprocessing.Pipe()
    starter = multiprocessing.get_context("fork").Process(target=_start_and_wait, args=(theirs,))
    starter.start()
    pidfds = [os.pidfd_open(pid) for pid in ours.recv()]
    starter.kill()
    starter.join()
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 5)[0]
        os.close(pidfd)


def _start_and_wait(channel: multiprocessing.connection.Connection) -> None:
    with Abreast(plan_of([Flow(0, 0, 3, 1000, start_s=30.0)]), FABRIC, LoopbackSockets(FABRIC), QUICK) as replay:
        channel.send([worker.pid for worker in multiprocessing.active_children()])
        for _ in replay.run():
            pass


def test_what_a_process_cannot_do_is_in_the_log_and_said_in_a_sentence() -> None:
    class Clumsy(Anything):
        def next(self, connection: int, limit: int) -> memoryview:
            raise ZeroDivisionError

    with pytest.raises(EmulatorError, match=r"process 1 of 2 .* ended unexpectedly \(exit status 1\)"):
        play(plan_of([Flow(0, 0, 3, 1000), Flow(1, 3, 0, 0)]), Clumsy(), processes=2)
