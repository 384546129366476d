"""What an experiment may say of reactions; what a controller is told and when; and connections that hosts move."""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replaying import QUICK

from emulator.errors import EmulatorError
from emulator.faults import Reaction
from emulator.faults.reaction import Reactor
from emulator.topology import LeafSpine, Link
from experiments.runs.loads.programs import Program, Programs
from experiments.runs.loads.replays import Replays
from experiments.spec.experiment import Experiment, load_experiment, restore_experiment
from experiments.spec.messages import SpecError
from traffic.connections import Connections
from traffic.loopback import LoopbackSockets
from traffic.plan import plan_traffic
from traffic.repath import Mover, Repath
from traffic.schedule import Flow, Schedule
from traffic.schemes import scheme_of

HEAD = "fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2}\ntraffic: [{collective: alltoall, size: 4MB}]\nseeds: [1]\n"
FABRIC = LeafSpine(2, 4, 1)
REPATH = Repath(after_s=0.3, mask_s=2.0)


def load(folder: Path, text: str) -> Experiment:
    (folder / "r.yaml").write_text(HEAD + text)
    return load_experiment(str(folder / "r.yaml"))


def test_a_reaction_reaches_every_job_and_a_manifest(tmp_path: Path) -> None:
    experiment = load(tmp_path, "reaction: {network: controller, detect: 20ms, hosts: {repath_after: 300ms, mask: 2s}}")
    for each in (experiment, restore_experiment(experiment.as_json(), "manifest.json")):
        work = Replays(each)
        work.prepare(work.runs[0])
        job: Any = work.job(work.runs[0], tmp_path)  # type: ignore[arg-type]
        assert job.reaction == Reaction(detect_s=0.02) and job.load.repath == REPATH
    assert load(tmp_path, "reaction: {network: local}").network_reaction() == Reaction(detect_s=0.01, local=True)


def test_reactions_take_as_much_longer_as_their_fabric(tmp_path: Path) -> None:
    slower = load(tmp_path, "reaction: {network: controller, hosts: {repath_after: 1ms}}").at_scale(100)
    assert slower.network_reaction() == Reaction(detect_s=1.0)
    assert slower.repath() == Repath(after_s=0.1, mask_s=1000.0)


def test_without_it_nobody_reacts(tmp_path: Path) -> None:
    for text in ("", "reaction: {network: none}\n"):
        experiment = load(tmp_path, text)
        assert experiment.network_reaction() is None and experiment.repath() is None


@pytest.mark.parametrize(
    ("reaction", "said"),
    [
        ("{network: controler}", "controller"),
        ("{detect: soon}", "is not a time"),
        ("{hosts: {mask: 2s}}", "repath_after: is missing"),
        ("{hosts: {repath_after: 0}}", "is not a time"),
    ],
)
def test_what_is_no_reaction_is_refused_in_one_sentence(tmp_path: Path, reaction: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        load(tmp_path, f"reaction: {reaction}\n")
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1


def test_programs_connections_are_not_moved(tmp_path: Path) -> None:
    experiment = load(tmp_path, "reaction: {hosts: {repath_after: 300ms}}\n")
    with pytest.raises(SpecError, match=r"^reaction.hosts: programs open their own connections"):
        Programs(experiment, Program(("true",), (0,), 1.0))


@given(st.data())
def test_leaves_avoid_what_they_can_and_every_two_keep_a_spine(data: st.DataObject) -> None:
    fabric = LeafSpine(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)), 1)
    down = data.draw(st.sets(st.sampled_from(list(fabric.links()))))
    left = fabric.avoiding(down)
    pairs = [(one, other) for one in range(fabric.leaves) for other in range(fabric.leaves) if one != other]
    assert all(left.live_spines(*pair) for pair in pairs)
    assert left.failed <= down
    if all(fabric.without(down).live_spines(*pair) for pair in pairs):
        assert left.failed == down


class Told:
    """As much of a fabric as a controller needs; it keeps when it was told to avoid what."""

    def __init__(self, problem: str = "") -> None:
        self.told: list[tuple[float, Collection[Link]]] = []
        self.noticed: list[Collection[Link]] = []
        self._problem = problem

    def avoid(self, links: Collection[Link]) -> None:
        if self._problem:
            raise EmulatorError(self._problem)
        self.told.append((time.monotonic(), links))

    def notice(self, links: Collection[Link]) -> None:
        self.noticed.append(links)


def test_leaves_are_told_in_order_and_no_sooner_than_it_is_heard() -> None:
    fabric: Any = Told()
    reactor = Reactor(Reaction(detect_s=0.05), fabric)
    heard = [time.monotonic(), time.monotonic() + 0.01]
    reactor.heard(heard[0], {(0, 0)})
    reactor.heard(heard[1], set())
    time.sleep(0.2)
    reactor.halt()
    assert [links for _, links in fabric.told] == [{(0, 0)}, set()]
    assert all(told_s - heard_s >= 0.05 for (told_s, _), heard_s in zip(fabric.told, heard, strict=True))
    first = reactor.to(heard[0])
    assert first and heard[0] + 0.05 <= first.asked_s <= first.confirmed_s
    reactor.heard(time.monotonic(), {(0, 0)})
    assert len(fabric.told) == 2, "what is over is over"


def test_leaves_that_react_by_themselves_are_told_nothing() -> None:
    fabric: Any = Told()
    reactor = Reactor(Reaction(detect_s=0.001, local=True), fabric)
    reactor.silence()
    reactor.heard(time.monotonic(), {(0, 0)})
    time.sleep(0.1)
    assert (fabric.noticed, fabric.told) == ([{(0, 0)}], [])
    reactor.returned(time.monotonic())
    time.sleep(0.1)
    reactor.halt()
    assert [links for _, links in fabric.told] == [()] and fabric.noticed[-1] == {(0, 0)}, (
        "what it holds stays in force"
    )


def test_what_comes_about_without_a_controller_is_reacted_to_once_it_is_back() -> None:
    fabric: Any = Told()
    reactor = Reactor(Reaction(detect_s=0.001), fabric)
    reactor.silence()
    heard = [time.monotonic(), time.monotonic() + 0.001]
    reactor.heard(heard[0], {(0, 0)})
    reactor.heard(heard[1], {(0, 0), (1, 1)})
    time.sleep(0.1)
    assert not fabric.told
    reactor.returned(back_s := time.monotonic())
    time.sleep(0.1)
    reactor.halt()
    assert [links for _, links in fabric.told] == [{(0, 0), (1, 1)}], "as links are by then"
    reacted = [reactor.to(each) for each in (*heard, back_s)]
    assert all(each and each.asked_s >= back_s for each in reacted)


def test_a_controller_that_returns_has_switches_hold_what_they_should_whoever_reacts() -> None:
    fabric: Any = Told()
    reactor = Reactor(None, fabric)
    reactor.heard(time.monotonic(), {(0, 0)})
    reactor.silence()
    reactor.returned(time.monotonic())
    time.sleep(0.1)
    reactor.halt()
    assert [set(links) for _, links in fabric.told] == [set()]


def test_leaves_that_cannot_be_told_fail_the_run() -> None:
    fabric: Any = Told("leaf1 refused")
    reactor = Reactor(Reaction(detect_s=0.001), fabric)
    reactor.heard(time.monotonic(), {(0, 0)})
    time.sleep(0.1)
    with pytest.raises(EmulatorError, match=r"^leaf1 refused$"):
        reactor.halt()


def test_what_nobody_reacts_to_tells_nobody() -> None:
    fabric: Any = Told()
    reactor = Reactor(None, fabric)
    reactor.heard(time.monotonic(), {(0, 0)})
    reactor.halt()
    assert fabric.told == []


@contextmanager
def moving(scheme: str = "ethereal", flows: int = 1) -> Iterator[tuple[Mover, Connections]]:
    schedule = Schedule("x", "x", 2, 1, 1, [Flow(number, 0, 1, 4000, channel=number) for number in range(flows)])
    connections = Connections(
        plan_traffic(schedule, FABRIC, range(2), scheme_of(scheme)),
        FABRIC,
        LoopbackSockets(FABRIC),
        QUICK,
    )
    connections.open()
    try:
        yield Mover(REPATH, connections), connections
    finally:
        connections.close()


def tags(connections: Connections, number: int = 0) -> list[int]:
    ends = (connections.senders[number], connections.receivers[number])
    return [end.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) >> 2 for end in ends]


def test_a_connection_that_brings_nothing_moves_with_both_its_ends_once_its_time_is_over() -> None:
    with moving() as (mover, connections):
        before = tags(connections)
        mover.look(10.0, lambda _: (1, 4000))
        mover.look(10.2, lambda _: (1, 3000))
        mover.look(10.4, lambda _: (1, 3000))
        assert tags(connections) == before, "it brought something at 10.2"
        mover.look(10.5, lambda _: (1, 3000))
        after = tags(connections)
        assert after[0] == after[1] != before[0] and after[0] in range(1, 5)
        assert mover.moves == [1] * len(connections.senders)


def test_a_path_on_which_nothing_was_sent_is_not_to_blame() -> None:
    """TCP may wait for its time-out much longer than hosts do for progress."""
    with moving() as (mover, connections):
        for tick in range(20):
            mover.look(10.0 + tick / 10, lambda _: (1, 4000))
        assert mover.moves[0] == 1
        connections.senders[0].send(b"x" * 100)
        for tick in range(20, 26):
            mover.look(10.0 + tick / 10, lambda _: (1, 4000))
        assert mover.moves[0] == 2


def test_a_path_that_failed_is_avoided_for_a_while() -> None:
    with moving(flows=4) as (mover, connections):
        count = len(connections.senders)
        old = [tags(connections, number)[0] for number in range(count)]
        stuck = {0, 1, 2}
        for now_s in (10.0, 10.3):
            mover.look(now_s, lambda number: (1, 1) if number in stuck else None)
        left = (set(range(1, 5)) - {old[number] for number in stuck}).pop()
        assert tags(connections, 2) == [left, left], "the others had failed before"


@pytest.mark.parametrize("scheme", ["spray", "switch-spray"])
def test_what_takes_many_paths_stays(scheme: str) -> None:
    with moving(scheme) as (mover, connections):
        for now_s in (10.0, 10.3, 10.6):
            mover.look(now_s, lambda _: (1, 1))
        assert set(mover.moves) == {0} and tags(connections) == [0, 0]


def test_what_waits_for_nothing_stays() -> None:
    with moving() as (mover, _):
        for now_s in (10.0, 10.3, 10.6):
            mover.look(now_s, lambda _: None)
        assert set(mover.moves) == {0}
