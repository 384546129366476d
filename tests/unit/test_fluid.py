"""The fluid model: fair where the definition says so, exact where the answer is known, never faster than the bound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from emulator.topology import LeafSpine
from experiments.theory.bound import bound_s
from experiments.theory.fairness import ProportionalRates, max_min_rates
from experiments.theory.fluid import FluidResult, simulate
from experiments.theory.loads import Routes, choose_spines, leaf_bytes, link_capacities_bps, routes, total
from traffic.collectives import COLLECTIVES, ScheduleError, build_schedule
from traffic.placement import PLACEMENTS, place
from traffic.plan import Connection, Piece, TrafficPlan, plan_traffic
from traffic.schedule import Flow, Schedule
from traffic.schemes import scheme_of

FABRIC = LeafSpine(leaves=4, spines=4, hosts_per_leaf=4)
SCHEMES = ("ecmp", "spray", "ethereal", "subflow-4")


def schedule_of(flows: Iterable[Flow]) -> Schedule:
    flows = list(flows)
    return Schedule("by hand", "by hand", 16, 1, sum(flow.size_bytes for flow in flows), flows)


def run(
    schedule: Schedule,
    scheme: str = "ecmp",
    fabric: LeafSpine = FABRIC,
    hosts: Sequence[int] = range(16),
    *,
    seed: int = 1,
    tolerance: float = 0.0,
) -> FluidResult:
    plan = plan_traffic(schedule, fabric, hosts, scheme_of(scheme))
    spines = choose_spines(plan, fabric, seed)
    return simulate(plan, fabric, spines, tolerance=tolerance)


def seconds(payload_bytes: float) -> float:
    return FABRIC.wire_bytes(payload_bytes) * 8 / FABRIC.host_rate_bps


# Fairness


def by_linear_programs(crossed: Routes, capacities: np.ndarray) -> np.ndarray:
    """Max-min fair rates from their definition: raise all, fix those that cannot have more, raise the others."""
    flows = len(crossed.links)
    use = np.zeros((len(capacities), flows))
    for flow in range(flows):
        np.add.at(use[:, flow], crossed.links[flow], crossed.weights[flow])
    fixed: dict[int, float] = {}
    while len(fixed) < flows:
        free = [flow for flow in range(flows) if flow not in fixed]
        # variables: the rates, and the least rate of those not fixed
        above = np.zeros((len(free), flows + 1))
        for row, flow in enumerate(free):
            above[row, flow], above[row, flows] = -1, 1
        matrix = np.vstack([np.column_stack([use, np.zeros(len(use))]), above])
        room = np.concatenate([capacities, np.zeros(len(free))])
        bounds = [(fixed[flow], fixed[flow]) if flow in fixed else (0, None) for flow in range(flows)]
        least = linprog([0] * flows + [-1], matrix, room, bounds=[*bounds, (0, None)]).x[flows]
        for flow in free:
            goal = np.zeros(flows + 1)
            goal[flow] = -1
            if linprog(goal, matrix, room, bounds=[*bounds, (least * (1 - 1e-9), None)]).x[flow] <= least * (1 + 1e-6):
                fixed[flow] = least
    return np.array([fixed[flow] for flow in range(flows)])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_rates_are_max_min_fair_by_definition(data: st.DataObject) -> None:
    links, flows = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    number = st.integers(1, 20).map(float)
    capacities = np.array(data.draw(st.lists(number, min_size=links, max_size=links)))
    crossing = st.lists(st.integers(0, links - 1), min_size=3, max_size=3)
    weight = st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=3, max_size=3)
    crossed = Routes(
        np.array(data.draw(st.lists(crossing, min_size=flows, max_size=flows))),
        np.array(data.draw(st.lists(weight, min_size=flows, max_size=flows))),
    )
    np.testing.assert_allclose(max_min_rates(crossed, capacities), by_linear_programs(crossed, capacities), rtol=1e-5)


def test_the_text_book_example() -> None:
    # One long flow over two links, one short flow on each: the slower link's two share it, the other takes the rest.
    crossed = Routes(np.array([[0, 1], [0, 2], [1, 2]]), np.ones((3, 2)))
    assert max_min_rates(crossed, np.array([1.0, 2.0, np.inf])) == pytest.approx([0.5, 0.5, 1.5])


def test_a_flow_that_waits_in_two_queues_gets_half_of_what_waits_in_one() -> None:
    crossed = Routes(np.array([[0, 1], [0, 2], [1, 2]]), np.ones((3, 2)))
    rates = ProportionalRates()(crossed, np.array([1.0, 1.0, np.inf]))
    assert rates == pytest.approx([1 / 3, 2 / 3, 2 / 3], rel=0.01)


def test_where_nobody_has_two_bottlenecks_all_fairness_is_one() -> None:
    crossed = Routes(np.array([[0, 2], [0, 2], [0, 2], [1, 2], [2, 2]]), np.array([[1.0, 1]] * 4 + [[0.0, 0]]))
    capacities = np.array([1.0, 2.0, np.inf])
    fair = ProportionalRates()
    for _ in range(2):  # prices are kept, and lead to the same again
        assert fair(crossed, capacities)[:4] == pytest.approx(max_min_rates(crossed, capacities)[:4], rel=0.01)
    assert np.isinf(fair(crossed, capacities)[4])


# Known answers


def test_flows_alone_take_their_size_over_their_rate() -> None:
    result = run(schedule_of([Flow(0, 0, 1, 100_000), Flow(1, 4, 9, 300_000)]))
    assert result.fct_s == pytest.approx([seconds(100_000), seconds(300_000)])
    assert result.cct_s == pytest.approx(seconds(300_000))


def test_two_flows_on_one_uplink_take_twice_as_long_and_on_two_do_not() -> None:
    plan = plan_traffic(
        schedule_of([Flow(0, 0, 4, 100_000), Flow(1, 1, 5, 100_000)]), FABRIC, range(16), scheme_of("ecmp")
    )
    together, apart = (simulate(plan, FABRIC, np.array(spines)) for spines in ([2, 2], [2, 3]))
    assert together.cct_s == pytest.approx(2 * apart.cct_s) == pytest.approx(2 * seconds(100_000))
    assert together.link_bytes.up[0] == pytest.approx([0, 0, 2 * FABRIC.wire_bytes(100_000), 0])
    assert apart.link_bytes.down[1] == pytest.approx([0, 0, *[FABRIC.wire_bytes(100_000)] * 2])


def test_a_flow_waits_for_all_it_waits_for() -> None:
    result = run(schedule_of([Flow(0, 0, 1, 100_000), Flow(1, 2, 1, 300_000), Flow(2, 1, 3, 50_000, 1, 0, (0, 1))]))
    assert result.start_s[2] == pytest.approx(seconds(400_000)) == pytest.approx(result.end_s[1])
    assert result.cct_s == pytest.approx(seconds(450_000))


def test_start_times_are_kept_and_count_from_the_earliest() -> None:
    result = run(schedule_of([Flow(0, 0, 1, 100_000, start_s=7.0), Flow(1, 0, 2, 100_000, start_s=9.0)]))
    assert result.start_s == pytest.approx([0.0, 2.0])
    assert result.cct_s == pytest.approx(2.0 + seconds(100_000))
    assert run(schedule_of([Flow(0, 0, 1, 0, start_s=1.0), Flow(1, 0, 1, 0, 0, 0, (0,), start_s=4.0)])).cct_s == 3.0


@pytest.mark.parametrize("scheme", ["spray", "ethereal"])
def test_starts_that_lie_close_together_are_taken_together_and_cost_next_to_nothing(scheme: str) -> None:
    draw = np.random.default_rng(7)
    late_s = draw.uniform(0, seconds(200_000), 256).tolist()
    flows = [Flow(i, i % 16, (i + 4) % 16, 100_000, channel=i // 16, start_s=late_s[i]) for i in range(256)]
    schedule = schedule_of([replace(flow, start_s=flow.start_s - min(late_s)) for flow in flows])
    exact, lumped = run(schedule, scheme), run(schedule, scheme, tolerance=0.005)
    assert lumped.cct_s == pytest.approx(exact.cct_s, rel=0.005)
    assert len(np.unique(exact.start_s)) == 256 > 2 * len(np.unique(lumped.start_s))
    lateness_s = lumped.start_s - exact.start_s
    assert lateness_s.min() >= 0 and lateness_s.max() <= 0.005 * seconds(1_600_000) * (1 + 1e-9)


def test_a_mouse_among_elephants_starts_when_it_is_due() -> None:
    elephants = [Flow(i, i, i + 4, 10_000_000) for i in range(4)]
    mice = [Flow(4 + i, 8 + i, 12 + i, 1_000, start_s=seconds(1_000 * (1 + i))) for i in range(4)]
    due_s = [mouse.start_s for mouse in mice]
    assert run(schedule_of([*elephants, *mice]), tolerance=0.005).start_s[4:] == pytest.approx(due_s, rel=0.01)


def test_a_nic_is_shared_by_connection_and_what_one_leaves_is_the_others() -> None:
    schedule = schedule_of([Flow(0, 0, 1, 100_000), Flow(1, 0, 2, 300_000)])
    assert run(schedule).fct_s == pytest.approx([seconds(200_000), seconds(400_000)])
    # Of four connections that leave host 0, flow 0 has three: it gets three quarters.
    pieces = [Piece(0, number, 100_000 * number, 100_000) for number in range(3)] + [Piece(1, 3, 0, 300_000)]
    connections = [Connection(number, 0, 1 + (number == 3), 10_000 + number, 0) for number in range(4)]
    flows = schedule_of([Flow(0, 0, 1, 300_000), Flow(1, 0, 2, 300_000)])
    plan = TrafficPlan(flows, range(16), scheme_of("ecmp"), connections, pieces)
    result = simulate(plan, FABRIC, choose_spines(plan, FABRIC, 1))
    assert result.fct_s == pytest.approx([seconds(400_000), seconds(600_000)])


def test_pieces_of_one_subflow_go_one_after_the_other() -> None:
    schedule = schedule_of([Flow(0, 0, 4, 100_000), Flow(1, 0, 4, 100_000), Flow(2, 4, 0, 0), Flow(3, 0, 4, 0, 1)])
    pieces = [Piece(0, 0, 0, 100_000), Piece(1, 0, 0, 100_000)]
    plan = TrafficPlan(schedule, range(16), scheme_of("ecmp"), [Connection(0, 0, 4, 10_000, 0)], pieces)
    result = simulate(plan, FABRIC, np.array([0]))
    assert result.end_s == pytest.approx([seconds(100_000), seconds(200_000), 0.0, 0.0])


def test_nothing_to_send_and_ranks_on_one_host_take_no_time() -> None:
    assert run(schedule_of([])).cct_s == 0.0
    assert run(schedule_of([Flow(0, 0, 1, 100_000)]), hosts=[3] * 16).cct_s == 0.0


@pytest.mark.parametrize("scheme", ["spray", "ethereal"])
@pytest.mark.parametrize(("collective", "algorithm"), [
    ("allreduce", "ring"), ("allreduce", "direct"), ("allreduce", "halving-doubling"), ("allgather", "ring"),
    ("allgather", "recursive-doubling"), ("reducescatter", "recursive-halving"), ("alltoall", "direct"),
    ("broadcast", "ring"), ("broadcast", "tree"), ("permutation", "shift"),
])  # fmt: skip
@pytest.mark.parametrize("placement", ["packed", "interleaved"])
def test_optimal_schemes_reach_the_bound(collective: str, algorithm: str, scheme: str, placement: str) -> None:
    schedule = build_schedule(collective, algorithm, ranks=16, size_bytes=1_024_000)
    hosts = place(placement, FABRIC, 16)
    assert run(schedule, scheme, hosts=hosts).cct_s == pytest.approx(bound_s(schedule, FABRIC, hosts), rel=1e-9)


# What holds for all traffic


@st.composite
def any_traffic(draw: st.DrawFn) -> tuple[Schedule, LeafSpine, list[int], str]:
    fabric = LeafSpine(
        draw(st.integers(1, 4)),
        draw(st.integers(1, 5)),
        draw(st.integers(2, 4)),
        draw(st.sampled_from([20_000_000, 50_000_000])),
        draw(st.sampled_from([20_000_000, 5_000_000])),
    )
    collective = draw(st.sampled_from(sorted(COLLECTIVES)))
    algorithm = draw(st.sampled_from(sorted(COLLECTIVES[collective].algorithms)))
    ranks = draw(st.integers(2, min(fabric.hosts, 9)))
    size_bytes, channels = draw(st.integers(1_000, 1_000_000)), draw(st.integers(1, 3))
    try:
        schedule = build_schedule(collective, algorithm, ranks=ranks, size_bytes=size_bytes, channels=channels)
    except ScheduleError:  # not for this many ranks
        schedule = build_schedule(collective, algorithm, ranks=2, size_bytes=size_bytes, channels=channels)
    hosts = place(draw(st.sampled_from(PLACEMENTS)), fabric, schedule.ranks, draw(st.integers(0, 9)))
    dead = draw(st.integers(0, fabric.spines - 1))
    failed = frozenset((leaf, spine) for leaf in range(fabric.leaves) for spine in range(dead))
    return schedule, fabric.without(failed), hosts, draw(st.sampled_from(SCHEMES))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(any_traffic(), st.integers(0, 99), st.sampled_from([0.0, 0.005, 0.05]))
def test_nothing_beats_the_bound_and_every_byte_arrives(
    traffic: tuple[Schedule, LeafSpine, list[int], str], seed: int, tolerance: float
) -> None:
    schedule, fabric, hosts, scheme = traffic
    result = run(schedule, scheme, fabric, hosts, seed=seed, tolerance=tolerance)
    assert result.cct_s >= bound_s(schedule, fabric, hosts) * (1 - 1e-7)
    assert (result.end_s >= result.start_s).all()
    for flow in schedule.flows:
        assert all(result.end_s[before] <= result.start_s[flow.id] * (1 + 1e-12) for before in flow.waits_for)
    between = leaf_bytes(schedule, fabric, hosts)
    assert result.link_bytes.up.sum(axis=1) == pytest.approx(between.sum(axis=1))
    assert result.link_bytes.down.sum(axis=1) == pytest.approx(between.sum(axis=0))
    # no link carried more than it can in the time it had
    busiest = max(result.link_bytes.up.max(), result.link_bytes.down.max())
    assert busiest * 8 <= result.cct_s * fabric.fabric_rate_bps * (1 + 1e-7)
    assert result.link_bytes.up[[leaf for leaf, _ in fabric.failed], [spine for _, spine in fabric.failed]].sum() == 0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(any_traffic(), st.integers(0, 99), st.data())
def test_every_connection_is_held_by_a_full_link_that_gives_none_more(
    traffic: tuple[Schedule, LeafSpine, list[int], str], seed: int, data: st.DataObject
) -> None:
    schedule, fabric, hosts, scheme = traffic
    plan = plan_traffic(schedule, fabric, hosts, scheme_of(scheme))
    crossed = routes(plan, fabric, choose_spines(plan, fabric, seed))
    busy = np.flatnonzero(
        data.draw(st.lists(st.booleans(), min_size=len(plan.connections), max_size=len(plan.connections)))
    )
    links, weights = crossed.links[busy], crossed.weights[busy]
    capacities = link_capacities_bps(fabric)
    crossing = Routes(links, weights)
    proportional = ProportionalRates()(crossing, capacities)
    assert (total(links, weights * proportional[:, None], len(capacities)) <= capacities * (1 + 1e-7)).all()
    rates = max_min_rates(crossing, capacities)
    used = total(links, weights * rates[:, None], len(capacities))
    assert (used <= capacities * (1 + 1e-7)).all()
    full, most = used >= capacities * (1 - 1e-7), np.zeros(len(capacities))
    np.maximum.at(most, links, np.where(weights > 0, rates[:, None], 0.0))
    holds = full[links] & (rates[:, None] >= most[links] * (1 - 1e-7)) & (weights > 0)
    assert holds.any(axis=1).all()
    for nic in range(fabric.hosts):  # the first links are the hosts' sending sides
        mine = links[:, 0] == nic
        assert full[nic] or (holds & (links != nic))[mine].any(axis=1).all(), "idle with a connection held by nothing"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), channels=st.integers(1, 4))
def test_taking_ends_together_costs_little(seed: int, channels: int) -> None:
    schedule = build_schedule("alltoall", ranks=16, size_bytes=1_600_000, channels=channels)
    exact = run(schedule, seed=seed)
    assert run(schedule, seed=seed, tolerance=0.005).cct_s == pytest.approx(exact.cct_s, rel=0.01)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), factor=st.integers(2, 9))
def test_time_grows_as_size_and_shrinks_as_rate(seed: int, factor: int) -> None:
    once, more = (build_schedule("alltoall", ranks=16, size_bytes=16_000 * times) for times in (1, factor))
    faster = LeafSpine(4, 4, 4, FABRIC.host_rate_bps * factor, FABRIC.fabric_rate_bps * factor)
    cct_s = run(once, seed=seed).cct_s
    assert run(more, seed=seed).cct_s == pytest.approx(factor * cct_s)
    assert run(once, seed=seed, fabric=faster).cct_s == pytest.approx(cct_s / factor)
