"""Flows and computations as one graph: what waits for what, in the builder, the replay, the fluid model, the bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replaying import FABRIC as LOOPBACK
from replaying import MB, dependencies_kept, plan_of, play

from emulator.topology import LeafSpine
from experiments.theory.bound import bound_s
from experiments.theory.fluid import simulate
from experiments.theory.loads import choose_spines
from traffic.collectives import COLLECTIVES, build_schedule
from traffic.jobs import JOBS, MODELS, Training, draw_up
from traffic.jobs.graph import Graph, JobError, Scale
from traffic.plan import plan_traffic
from traffic.schedule import Compute, Flow, Schedule
from traffic.schemes import scheme_of

FABRIC = LeafSpine(2, 2, 4, 10_000_000, 10_000_000)


def fluid_s(schedule: Schedule, scheme: str = "spray") -> float:
    plan = plan_traffic(schedule, FABRIC, range(schedule.ranks), scheme_of(scheme))
    return simulate(plan, FABRIC, choose_spines(plan, FABRIC, 1)).cct_s


def ancestors(schedule: Schedule) -> list[set[int]]:
    """Of every task, all that must be done before it."""
    tasks = schedule.tasks
    found: list[set[int]] = [set() for _ in tasks]
    for id in schedule.order:
        for awaited in tasks[id].waits_for:
            found[id] |= found[awaited] | {awaited}
    return found


def by_hand(flows: list[Flow], computes: list[Compute], ranks: int = 4) -> Schedule:
    return Schedule("test", "test", ranks, 1, sum(flow.size_bytes for flow in flows), flows, computes=computes)


def chain() -> Schedule:
    """Rank 0 computes 0.2 s, sends 1 MB to rank 1, which then computes 0.1 s; rank 2 computes 0.05 s meanwhile."""
    return by_hand(
        [Flow(0, 0, 1, MB, waits_for=(1,))], [Compute(1, 0, 0.2), Compute(2, 1, 0.1, (0,)), Compute(3, 2, 0.05)]
    )


def test_a_replay_computes_before_it_sends_and_sends_before_it_computes() -> None:
    plan = plan_of(chain())
    result, _ = play(plan)
    assert result.finished_s[1] - result.started_s[1] == pytest.approx(0.2, abs=0.03)
    assert result.started_s[0] >= result.finished_s[1] and result.started_s[2] >= result.finished_s[0]
    assert result.finished_s[2] - result.started_s[2] == pytest.approx(0.1, abs=0.03)
    assert min(b - a for a, b in zip(result.started_s[1:], result.finished_s[1:], strict=True)) >= 0.05
    assert result.cct_s == max(result.finished_s) - min(result.started_s)


def test_computing_for_longer_than_the_stall_time_out_is_no_stall() -> None:
    flows = [Flow(0, 0, 1, 1000, waits_for=(1,))]
    result, _ = play(plan_of(by_hand(flows, [Compute(1, 0, 0.7)])))
    assert result.finished_s[0] - result.started_s[1] >= 0.7


def test_theory_adds_computing_to_sending() -> None:
    wire_s = FABRIC.wire_bytes(MB) * 8 / FABRIC.host_rate_bps
    assert bound_s(chain(), FABRIC, range(4)) == pytest.approx(0.3 + wire_s)
    assert fluid_s(chain()) == pytest.approx(0.3 + wire_s)


def test_computing_that_nothing_waits_for_is_hidden() -> None:
    wire_s = FABRIC.wire_bytes(MB) * 8 / FABRIC.host_rate_bps
    hidden = by_hand([Flow(0, 0, 1, MB)], [Compute(1, 0, wire_s / 2), Compute(2, 0, wire_s / 4, (1,))])
    assert [bound_s(hidden, FABRIC, range(4)), fluid_s(hidden)] == pytest.approx([wire_s, wire_s])


def test_tasks_in_a_circle_are_found() -> None:
    with pytest.raises(ValueError, match="wait for each other in a circle"):
        _ = by_hand([Flow(0, 0, 1, MB, waits_for=(1,))], [Compute(1, 0, 0.2, (0,))]).order


@pytest.mark.parametrize("straggler", range(4))
@pytest.mark.parametrize(
    ("collective", "algorithm"), [(name, each) for name, kind in COLLECTIVES.items() for each in kind.algorithms]
)
def test_no_flow_of_a_straggler_is_sent_either_way_before_it_has_computed(
    collective: str, algorithm: str, straggler: int
) -> None:
    graph = Graph(6, algorithms={collective: algorithm})
    ranks = [4, 1, 5, 2]
    computed = {rank: graph.compute(rank, 1.0) for rank in ranks}
    done = graph.collective(collective, 64_000, ranks, {rank: [computed[rank]] for rank in ranks})
    for rank in ranks:
        graph.compute(rank, 1.0, [done[rank]], "next")
    schedule = graph.schedule("job", "test")
    before = ancestors(schedule)
    slow = ranks[straggler]
    (gate,) = [each.id for each in schedule.computes if each.rank == slow and each.seconds and each.label == ""]
    touching = [flow.id for flow in schedule.flows if slow in (flow.src, flow.dst)]
    assert touching and all(gate in before[flow] for flow in touching)
    (following,) = [each.id for each in schedule.computes if each.rank == slow and each.label == "next"]
    assert set(touching) <= before[following]


def test_collectives_of_one_communicator_follow_each_other_at_every_rank_and_those_of_two_do_not() -> None:
    graph = Graph(4)
    for _ in range(2):
        graph.collective("allreduce", 4000, range(4), {}, "data")
    graph.collective("allreduce", 4000, range(4), {}, "model")
    schedule = graph.schedule("job", "test")
    count = len(schedule.flows) // 3
    before = ancestors(schedule)
    for late in schedule.flows[count : 2 * count]:
        early = [flow.id for flow in schedule.flows[:count] if {late.src, late.dst} & {flow.src, flow.dst}]
        assert set(early) <= before[late.id]
    assert not any(before[flow.id] & set(range(2 * count)) for flow in schedule.flows[2 * count :])
    channels = [{flow.channel for flow in schedule.flows[part * count : (part + 1) * count]} for part in range(3)]
    assert channels[0] == channels[1] and not channels[0] & channels[2]


def test_a_collective_of_a_graph_is_the_collective_relabelled() -> None:
    graph = Graph(8)
    graph.collective("allreduce", 8000, [7, 5, 3, 1], {})
    placed = graph.schedule("job", "test").flows
    plain = build_schedule("allreduce", ranks=4, size_bytes=8000).flows
    assert [(flow.src, flow.dst, flow.size_bytes, flow.step) for flow in placed] == [
        (7 - 2 * flow.src, 7 - 2 * flow.dst, flow.size_bytes, flow.step) for flow in plain
    ]


def test_bytes_and_seconds_are_scaled_and_a_straggler_computes_longer() -> None:
    graph = Graph(2, scale=Scale(0.5, 3.0, {1: 1.5}))
    computed = [graph.compute(rank, 2.0) for rank in range(2)]
    graph.send(0, 1, 1000, computed)
    schedule = graph.schedule("job", "test")
    assert [each.seconds for each in schedule.computes] == [6.0, 9.0]
    assert schedule.flows[0].size_bytes == 500


@pytest.mark.parametrize(
    ("draw_up", "sentence"),
    [
        (lambda graph: graph.compute(4, 1.0), "rank 4 is out of range: with 4 ranks, they are 0 to 3"),
        (lambda graph: graph.compute(0, float("nan")), "nan s of computation at rank 0: write 0 or more"),
        (lambda graph: graph.send(0, 1, -1), "-1 bytes cannot be sent: write 0 or more"),
        (lambda graph: graph.send(2, 2, 1), "rank 2 sends to itself"),
        (lambda graph: graph.collective("allreduce", 1, [0, 1, 0], {}), "a group has a rank twice: 0, 0, 1"),
        (lambda graph: graph.schedule("job", "test"), "nothing is sent"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(draw_up: object, sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        draw_up(Graph(4))  # type: ignore[operator]


@st.composite
def jobs(draw: st.DrawFn) -> Schedule:
    """A few computations and collectives, in groups, on communicators, as they come."""
    graph = Graph(4)
    handles: list[int] = []
    for _ in range(draw(st.integers(1, 6))):
        after = draw(st.lists(st.sampled_from(handles), max_size=2)) if handles else []
        if draw(st.booleans()):
            handles.append(graph.compute(draw(st.integers(0, 3)), draw(st.sampled_from([0.0, 0.01, 0.05])), after))
        else:
            ranks = draw(st.permutations(range(4)))[: draw(st.integers(2, 4))]
            name = draw(st.sampled_from(["allreduce", "alltoall", "broadcast"]))
            size, communicator = draw(st.integers(1, 50_000)), draw(st.sampled_from("ab"))
            handles += graph.collective(name, size, ranks, {ranks[0]: after}, communicator).values()
    graph.send(0, 1, 100, handles)
    return graph.schedule("job", "drawn")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(schedule=jobs(), scheme=st.sampled_from(["ecmp", "spray", "ethereal"]))
def test_any_job_ends_no_sooner_than_its_bound(schedule: Schedule, scheme: str) -> None:
    assert all(
        awaited < flow.id for flow in schedule.flows for awaited in flow.waits_for if awaited < len(schedule.flows)
    )
    least_s = bound_s(schedule, FABRIC, range(4))
    chain_s = bound_s(
        replace(schedule, flows=[replace(flow, size_bytes=0) for flow in schedule.flows]), FABRIC, range(4)
    )
    assert chain_s <= least_s <= fluid_s(schedule, scheme) * (1 + 1e-9)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(schedule=jobs())
def test_any_job_is_played_in_its_order(schedule: Schedule) -> None:
    plan = plan_of(schedule)
    result, _ = play(plan)
    assert dependencies_kept(plan, result)
    for compute in schedule.computes:
        assert result.finished_s[compute.id] - result.started_s[compute.id] >= compute.seconds - 1e-6


@pytest.mark.parametrize("slower", [1.0, 1.3])
def test_a_straggler_delays_every_rank_of_a_replay_as_the_graph_says(slower: float) -> None:
    """Emulated over predicted, of the end of every rank's last iteration."""
    slow = Scale(1e-4, 1.0, {0: slower})
    schedule = draw_up(JOBS["ddp"], Training(MODELS["resnet50"], 0.25), 4, iterations=2, scale=slow)
    plan = plan_of(schedule)
    result, _ = play(plan)
    predicted = simulate(plan, LOOPBACK, choose_spines(plan, LOOPBACK, 1)).end_s
    ends = [each.id for each in schedule.computes if each.label == "update" and each.iteration == 1]
    assert len(ends) == 4 and min(predicted[id] for id in ends) >= 2 * 0.25 * slower
    begun_s = min(result.started_s)
    for id in ends:
        assert 0.95 <= (result.finished_s[id] - begun_s) / predicted[id] <= 1.08
