"""How the hosts of a replay are shared out among processes, and what these tell each other."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from replaying import FABRIC, plan_of

from traffic.abreast import most_processes, owners
from traffic.board import Part, Post
from traffic.collectives import build_schedule
from traffic.schedule import Flow

sizes = st.lists(st.integers(0, 1000), min_size=12, max_size=12)


@given(sizes=sizes, processes=st.integers(1, 6))
def test_neighbours_are_together_and_no_process_is_beyond_those_there_are(sizes: list[int], processes: int) -> None:
    pairs = [(src, dst) for src in range(4) for dst in range(4) if src != dst]
    plan = plan_of([Flow(number, *pair, size) for number, (pair, size) in enumerate(zip(pairs, sizes, strict=True))])
    found = owners(plan, FABRIC.hosts, processes)
    assert len(found) == FABRIC.hosts
    assert all(one <= next for one, next in pairwise(found))
    assert set(found) <= set(range(processes))


def test_hosts_that_move_as_much_are_shared_out_evenly() -> None:
    plan = plan_of(build_schedule("alltoall", "direct", ranks=4, size_bytes=4000))
    assert owners(plan, 4, 2) == [0, 0, 1, 1]
    assert owners(plan, 4, 4) == [0, 1, 2, 3]


def test_a_host_that_moves_as_much_as_all_others_is_by_itself() -> None:
    incast = plan_of([Flow(number, number + 1, 0, 1000) for number in range(3)])
    assert owners(incast, 4, 2) == [0, 1, 1, 1]


def test_there_are_no_more_processes_than_hosts_that_send() -> None:
    incast = plan_of([Flow(number, number + 1, 0, 1000) for number in range(3)])
    assert [most_processes(cores, incast) for cores in (1, 2, 64)] == [1, 2, 3]
    assert most_processes(64, plan_of([])) == 1


def test_every_task_starts_and_ends_in_one_process() -> None:
    flows = [Flow(0, 0, 3, 1000), Flow(1, 3, 0, 0), Flow(2, 1, 0, 5)]
    part = Part.whole(plan_of(flows), FABRIC.hosts)
    halves = Part(part.plan, part.board, [0, 0, 1, 1])
    assert halves.starts() == [0, 1, 0]
    assert halves.ends() == [1, 1, 0]  # of no bytes, none arrives


@given(told=st.lists(st.integers(0, 2**32 - 1), max_size=5000))
def test_notices_arrive_as_they_were_sent_and_at_nobody_else(told: list[int]) -> None:
    post = Post(3)
    try:
        for task_id in told:
            post.put(2, task_id)
        assert post.send()
        assert (post.take(0), post.take(1)) == ([], [])
        heard: list[int] = []
        while some := post.take(2):
            heard += some
        assert heard == told
    finally:
        post.close()


def test_notices_that_find_no_room_are_sent_when_there_is() -> None:
    post = Post(2)
    told, heard = list(range(100_000)), []
    try:
        for task_id in told:
            post.put(1, task_id)
        assert not post.send()
        while some := post.take(1):
            heard += some
            post.send()
        assert heard == told
    finally:
        post.close()
