"""Real data, without a network: pieces of any size in any order end as promised, and a wrong byte is found."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.topology import LeafSpine
from traffic.collectives import COLLECTIVES, build_schedule
from traffic.payload import Anything, RealData
from traffic.plan import TrafficPlan, plan_traffic
from traffic.schemes import scheme_of

ALL = [(name, algorithm) for name, kind in COLLECTIVES.items() for algorithm in kind.algorithms]
TOPOLOGY = LeafSpine(2, 3, 2)
quick = settings(max_examples=80, deadline=None, derandomize=True)


def plan_of(collective: str, algorithm: str, scheme: str, size_bytes: int = 3200) -> TrafficPlan:
    schedule = build_schedule(collective, algorithm, ranks=4, size_bytes=size_bytes, channels=2)
    return plan_traffic(schedule, TOPOLOGY, range(4), scheme_of(scheme))


def play(plan: TrafficPlan, data: RealData, random: Random, wrong_flow: int | None = None) -> None:
    """Every flow in turn: its pieces leave in bits, and the bits arrive in any order; of one flow, a byte is wrong."""
    for flow in plan.schedule.flows:
        arriving: list[tuple[int, bytes]] = []
        for piece in (piece for piece in plan.pieces if piece.flow == flow.id):
            data.release(piece)
            offset = piece.offset_bytes
            while offset < piece.offset_bytes + piece.size_bytes:
                bits = bytes(data.next(piece.connection, random.randint(1, 500)))
                data.sent(piece.connection, len(bits))
                arriving.append((offset, bits))
                offset += len(bits)
        random.shuffle(arriving)
        for offset, bits in arriving:
            if flow.id == wrong_flow:
                bits, wrong_flow = bytes([bits[0] ^ 1, *bits[1:]]), None
            data.arrived(flow.id, offset, memoryview(bits))
        data.complete(flow.id)


@quick
@given(case=st.sampled_from(ALL), scheme=st.sampled_from(["ecmp", "ethereal", "subflow-3"]), seed=st.integers(0, 99))
def test_all_that_arrives_in_any_order_ends_as_promised(case: tuple[str, str], scheme: str, seed: int) -> None:
    plan = plan_of(*case, scheme)
    data = RealData(plan, seed)
    play(plan, data, Random(seed))
    assert data.problems(range(4)) == []


@pytest.mark.parametrize(("collective", "algorithm"), ALL)
def test_a_wrong_byte_is_found(collective: str, algorithm: str) -> None:
    plan = plan_of(collective, algorithm, "ethereal")
    for flow in plan.schedule.flows:
        data = RealData(plan, seed=1)
        play(plan, data, Random(1), wrong_flow=flow.id)
        assert data.problems(range(4)), f"flow {flow.id}"


def test_what_never_arrives_is_missed_by_the_ranks_that_wait_for_it() -> None:
    data = RealData(plan_of("broadcast", "tree", "ecmp"), seed=1)
    assert [problem.split(":")[0] for problem in data.problems(range(4))] == ["rank 1", "rank 2", "rank 3"]


def test_bytes_leave_as_they_were_when_released_whatever_arrives_after() -> None:
    plan = plan_of("allreduce", "ring", "ecmp")
    data = RealData(plan, seed=1)
    piece = plan.pieces[0]
    flow = plan.schedule.flows[piece.flow]
    later = next(
        each
        for each in plan.schedule.flows
        if (each.dst, each.dst_offset_bytes) == (flow.src, flow.src_offset_bytes) and not each.reduce
    )
    data.release(piece)
    before = bytes(data.next(piece.connection, piece.size_bytes))
    data.arrived(later.id, 0, memoryview(bytes(later.size_bytes)))
    data.complete(later.id)
    assert bytes(data.next(piece.connection, piece.size_bytes)) == before
    data.sent(piece.connection, piece.size_bytes)
    data.release(piece)
    assert bytes(data.next(piece.connection, piece.size_bytes)) == bytes(later.size_bytes) != before


def test_what_is_not_looked_at_is_never_more_than_asked_for_and_found_neither_right_nor_wrong() -> None:
    anything = Anything()
    assert [len(anything.next(0, limit)) for limit in (1, 5000)] == [1, 5000]
    assert anything.problems(range(4)) is None
