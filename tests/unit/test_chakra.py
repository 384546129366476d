"""Chakra execution traces: what a graph they are, what is wrong with real ones and mended, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from format_files import node, shape, trace, zipped

from traffic.formats import FORMATS, FormatError
from traffic.jobs.graph import Graph
from traffic.schedule import Compute, Schedule

COMPUTE, SEND, RECEIVE, COLLECTIVE = 4, 5, 6, 7
SIZE = 4096


def read(data: bytes, folder: Path, ranks: int = 2, **options: str) -> Schedule:
    path = folder / "job.et"
    path.write_bytes(data)
    return FORMATS["chakra"].read(path, ranks=ranks, **options)


def ring(rank: int, ranks: int) -> bytes:
    """Each computes, and sends to the next."""
    return trace(
        node(5, COMPUTE, lasts_us=100 + rank),
        node(7, SEND, 5, comm_dst=(rank + 1) % ranks, comm_tag=3, comm_size=SIZE),
        node(9, RECEIVE, comm_src=(rank - 1) % ranks, comm_tag=3, comm_size=SIZE),
        node(11, COMPUTE, 9, lasts_us=50),
    )


def test_sends_and_receives_are_flows_between_computations(tmp_path: Path) -> None:
    schedule = read(zipped(**{f"r{rank}": ring(rank, 3) for rank in range(3)}), tmp_path)
    expected = Graph(3)
    first = [expected.compute(rank, (100 + rank) * 1e-6) for rank in range(3)]
    sent = [expected.send(rank, (rank + 1) % 3, SIZE, [first[rank]]) for rank in range(3)]
    for rank in range(3):
        expected.compute(rank, 50e-6, [sent[rank - 1]])
    assert shape(schedule) == shape(expected.schedule("chakra", "job")) and not schedule.repairs


def test_a_single_file_is_what_all_ranks_do_gzip_or_not(tmp_path: Path) -> None:
    one = trace(node(1, COMPUTE, lasts_us=100), node(2, COLLECTIVE, 1, comm_type=0, comm_size=SIZE))
    schedule = read(one, tmp_path, 4)
    assert [tuple(placed) for placed in schedule.collectives] == [("allreduce", 4, SIZE)]
    assert sum(compute.seconds for compute in schedule.computes) == pytest.approx(4e-4)
    assert shape(read(gzip.compress(one), tmp_path, 4)) == shape(schedule)
    assert shape(read(zipped(**{f"r{rank}": one for rank in range(4)}), tmp_path)) == shape(schedule)


@pytest.mark.parametrize(("said", "size_bytes"), [("shard", 2 * SIZE), ("total", SIZE)])
def test_the_bytes_of_a_gathering_are_a_shard_or_all(said: str, size_bytes: int, tmp_path: Path) -> None:
    one = trace(node(1, COLLECTIVE, comm_type=2, comm_size=SIZE))
    assert read(one, tmp_path, 2, allgather=said).collectives[0].size_bytes == size_bytes


def test_groups_have_collectives_of_their_own_in_their_order(tmp_path: Path) -> None:
    def rank_of(group: str) -> bytes:
        return trace(*(node(id, COLLECTIVE, comm_type=0, comm_size=SIZE, pg_name=group) for id in (1, 2)))

    files = {"r0": rank_of("a"), "r1": rank_of("b"), "r2": rank_of("a"), "r3": rank_of("b")}
    schedule = read(zipped(**files, groups=b'{"a": [0, 2], "b": [1, 3]}'), tmp_path)
    assert [tuple(placed)[:2] for placed in schedule.collectives] == [("allreduce", 2)] * 4
    assert {frozenset((flow.src, flow.dst)) for flow in schedule.flows} == {frozenset((0, 2)), frozenset((1, 3))}


def test_what_traces_of_pytorch_have_wrong_is_mended_and_counted(tmp_path: Path) -> None:
    of_gpu = {"is_cpu_op": 0, "stream": 7}
    one = trace(
        node(1, COLLECTIVE, 99, comm_type=0, comm_size=SIZE, is_cpu_op=1, start_us=1),
        node(2, COMPUTE, lasts_us=100, start_us=2, **of_gpu),
        node(3, COLLECTIVE, 1, comm_type=0, comm_size=SIZE, start_us=3, **of_gpu),
        node(4, COMPUTE, num_ops=5, start_us=4, **of_gpu),
    )
    schedule = read(one, tmp_path)
    assert len(schedule.collectives) == 1
    assert schedule.repairs == (
        "2 waits for nodes that are not there are left out",
        "2 computations with operations and no duration take no time",
        "4 nodes wait for the one before on their stream, which they did not say",
        "2 collectives that the host lists as well count once",
    )
    first = min(schedule.flows, key=lambda flow: flow.id)
    before = [schedule.tasks[other] for other in _before(schedule, first.id)]
    assert any(isinstance(task, Compute) and task.seconds == pytest.approx(1e-4) for task in before)


def _before(schedule: Schedule, id: int) -> set[int]:
    """The computations that a task waits for, through joins."""
    found = set()
    for other in schedule.tasks[id].waits_for:
        if other >= len(schedule.flows):
            found |= {other} | _before(schedule, other)
    return found


COLLECTIVES = [node(1, COLLECTIVE, comm_type=0, comm_size=SIZE, pg_name="a")]
COLLECTIVES.append(node(2, COLLECTIVE, 1, comm_type=0, comm_size=SIZE, pg_name="b"))
TURNED = [node(1, COLLECTIVE, comm_type=0, comm_size=SIZE, pg_name="b")]
TURNED.append(node(2, COLLECTIVE, 1, comm_type=0, comm_size=SIZE, pg_name="a"))
BOTH = b'{"a": [0, 1], "b": [0, 1]}'


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (trace(node(1, SEND, comm_dst=1, comm_tag=1, comm_size=9), node(2, COMPUTE))[:-2], "where"),
        (trace(), "has no node"),
        (zipped(r0=ring(0, 2), r2=ring(1, 2)), "has no trace a rank"),
        (zipped(r0=ring(0, 2), r1=trace(node(1, COMPUTE))), "rank 0 receives from rank 1 what is never sent"),
        (ring(0, 2), "what is never sent: a file alone is what all ranks do, so put those of all ranks in a zip"),
        (zipped(r0=trace(*COLLECTIVES), r1=trace(*TURNED), groups=BOTH), "waits for itself, through others or other"),
        (zipped(r0=trace(*COLLECTIVES), r1=trace(COLLECTIVES[0]), groups=BOTH), "rank 1 has other collectives"),
        (zipped(r0=trace(*COLLECTIVES), groups=b'{"a": [0, 5]}'), "comm_group.json is not groups of ranks 0 to 0"),
        (trace(node(1, COLLECTIVE, comm_type=1, comm_size=9)), "has comm_type 1 and comm_size 9: types are 0, 2, 5"),
        (trace(node(1, COMPUTE), node(1, COMPUTE)), "rank 0 has two nodes of one id"),
        (gzip.compress(b"abc" * 99)[:20], "it is not whole gzip"),
    ],
)
def test_what_is_no_job_is_refused_in_a_sentence(data: bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as error:
        read(data, tmp_path)
    assert sentence in str(error.value) and str(error.value).isprintable()
