"""Strains: pure, seeded, as large as asked; they stack, and 0 of everything is none."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.topology import LeafSpine
from experiments.runs.loads.replays import Replays
from experiments.runs.predict import beside_results, predict
from experiments.spec.experiment import Experiment, restore_experiment
from experiments.spec.messages import SpecError
from experiments.theory.bound import bound_s
from experiments.theory.fluid import simulate
from experiments.theory.loads import choose_spines
from traffic.collectives import build_schedule
from traffic.plan import plan_traffic
from traffic.schedule import Compute, Flow, Schedule
from traffic.schemes import scheme_of
from traffic.strain import STRAINS, Strain, StrainError, strained
from traffic.strain.background import Background
from traffic.strain.jitter import StartJitter
from traffic.strain.order import Order
from traffic.strain.sizes import Sizes
from traffic.strain.stragglers import Stragglers

FABRIC = LeafSpine(leaves=4, spines=4, hosts_per_leaf=2)
HOSTS = list(range(FABRIC.hosts))
BOUND_S = 2.0

ALLTOALL = build_schedule("alltoall", "direct", ranks=8, size_bytes=800_000)
RING = build_schedule("allreduce", "ring", ranks=8, size_bytes=800_000, channels=2)
TREE = build_schedule("broadcast", "tree", ranks=8, size_bytes=800_000, chunks=2)
PERMUTATION = build_schedule("permutation", "shift", ranks=8, size_bytes=800_000, channels=3, shift=2)

schedules = st.sampled_from([ALLTOALL, RING, TREE, PERMUTATION])
seeds = st.integers(0, 65_535)
jitters = st.builds(
    StartJitter,
    st.floats(0, 3),
    st.sampled_from(["rank", "flow"]),
    st.sampled_from(["uniform", "exponential"]),
)
strains = st.lists(
    st.one_of(
        jitters,
        st.builds(Sizes, st.floats(0, 0.9), st.floats(0, 2)),
        st.builds(Stragglers, st.integers(0, 10), st.floats(1, 5)),
    ),
    max_size=4,
    unique_by=type,
)
quickly = settings(max_examples=80, deadline=None, derandomize=True)


def put(schedule: Schedule, *strains: Strain, seed: int = 1) -> Schedule:
    return strained(schedule, strains, bound_s=BOUND_S, seed=seed)


def starts_s(schedule: Schedule) -> np.ndarray:
    return np.array([flow.start_s for flow in schedule.flows])


def experiment(**changes: Any) -> Experiment:
    content: dict[str, Any] = {
        "name": "small",
        "fabric": {"leaves": 4, "spines": 4, "hosts_per_leaf": 2, "host_rate": "10mbit"},
        "traffic": [{"collective": "alltoall", "size": "1MB"}, {"collective": "permutation", "channels": 3}],
        "seeds": [1, 2],
    }
    return restore_experiment(content | changes, "test")


@quickly
@given(schedules, strains, seeds)
def test_a_strain_keeps_who_sends_to_whom_and_draws_the_same_again(
    schedule: Schedule, strains: list[Strain], seed: int
) -> None:
    found = put(schedule, *strains, seed=seed)
    assert found == put(schedule, *reversed(strains), seed=seed), "their order in the file is no matter"
    assert [(f.id, f.src, f.dst, f.channel, f.step, f.waits_for) for f in found.flows] == [
        (f.id, f.src, f.dst, f.channel, f.step, f.waits_for) for f in schedule.flows
    ]
    assert all(flow.size_bytes > 0 and flow.start_s >= 0 for flow in found.flows)


@quickly
@given(schedules, strains, seeds)
def test_the_first_send_is_at_zero_so_that_no_completion_time_beats_its_bound(
    schedule: Schedule, strains: list[Strain], seed: int
) -> None:
    found = put(schedule, *strains, seed=seed)
    assert min(flow.start_s for flow in found.flows if not flow.waits_for) == 0
    plan = plan_traffic(found, FABRIC, HOSTS, scheme_of("ethereal"))
    model = simulate(plan, FABRIC, choose_spines(plan, FABRIC, seed))
    assert model.start_s.min() == 0, "what a replay measures from is what the bound counts from"
    assert model.cct_s >= bound_s(found, FABRIC, HOSTS) * (1 - 1e-9)


@quickly
@given(schedules, strains, seeds)
def test_flows_of_one_connection_may_start_in_the_order_in_which_they_are_sent(
    schedule: Schedule, strains: list[Strain], seed: int
) -> None:
    sent: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for flow in put(schedule, *strains, seed=seed).flows:
        sent[flow.src, flow.dst, flow.channel].append(flow.start_s)
    assert all(times == sorted(times) for times in sent.values())


@pytest.mark.parametrize("each", ["rank", "flow"])
def test_jitter_is_a_share_of_the_bound(each: Any) -> None:
    schedule = build_schedule("alltoall", "direct", ranks=64, size_bytes=640_000)
    uniform = starts_s(put(schedule, StartJitter(0.1, each)))
    assert uniform.max() <= 0.1 * BOUND_S and uniform.max() == pytest.approx(0.1 * BOUND_S, rel=0.05)
    assert uniform.mean() == pytest.approx(0.05 * BOUND_S, rel=0.15)
    exponential = starts_s(put(schedule, StartJitter(0.1, each, "exponential")))
    assert exponential.mean() == pytest.approx(0.1 * BOUND_S, rel=0.15) and exponential.max() > 0.2 * BOUND_S
    late = {flow.src: flow.start_s for flow in put(schedule, StartJitter(0.1, each)).flows}
    together = all(flow.start_s == late[flow.src] for flow in put(schedule, StartJitter(0.1, each)).flows)
    assert together == (each == "rank")


def test_sizes_vary_by_as_much_as_asked_and_keep_their_mean() -> None:
    schedule = build_schedule("alltoall", "direct", ranks=64, size_bytes=6_400_000)
    size = schedule.flows[0].size_bytes
    spread = np.array([flow.size_bytes for flow in put(schedule, Sizes(spread=0.2)).flows]) / size
    assert 0.8 <= spread.min() < 0.81 and 1.19 < spread.max() <= 1.2
    assert spread.mean() == pytest.approx(1, abs=0.01)
    skewed = np.array([flow.size_bytes for flow in put(schedule, Sizes(skew=1.0)).flows]) / size
    assert skewed.mean() == pytest.approx(1, abs=0.1)
    assert np.log(skewed).std() == pytest.approx(1, abs=0.05)


def test_a_flow_of_no_bytes_stays_one_and_one_of_few_keeps_a_byte() -> None:
    flows = [Flow(0, 0, 1, 0), Flow(1, 1, 0, 1)]
    for seed in range(20):
        found = put(Schedule("toy", "toy", 2, 1, 1, flows), Sizes(spread=0.9, skew=2), seed=seed).flows
        assert found[0].size_bytes == 0 and found[1].size_bytes >= 1


def test_stragglers_are_as_many_as_asked_and_late_by_what_they_are_slower() -> None:
    found = put(ALLTOALL, Stragglers(ranks=2, slow=1.5))
    late = {flow.src for flow in found.flows if flow.start_s}
    assert len(late) == 2
    assert {flow.start_s for flow in found.flows if flow.src in late} == {0.5 * BOUND_S}
    assert (
        len({frozenset(f.src for f in put(ALLTOALL, Stragglers(), seed=s).flows if f.start_s) for s in range(20)}) > 2
    )
    assert set(starts_s(put(ALLTOALL, Stragglers(ranks=9)))) == {0.0}, "if all are late, none is"


@pytest.mark.parametrize("by", ["rotated", "synchronised"])
@pytest.mark.parametrize("window", [0, 3])
def test_an_order_is_that_of_an_alltoall_that_was_listed_so(by: Any, window: int) -> None:
    options = {"window": window} if window else {}
    listed = build_schedule("alltoall", "direct", ranks=8, size_bytes=800_000, order=by, **options)
    shuffled = build_schedule("alltoall", "direct", ranks=8, size_bytes=800_000, order="shuffled", seed=3)
    assert put(shuffled, Order(by, window)).flows == listed.flows


def test_an_order_leaves_traffic_alone_that_has_one_of_its_own() -> None:
    with pytest.raises(StrainError, match="allreduce ring wait for each other"):
        put(RING, Order("synchronised"))
    orders = {tuple(f.dst for f in put(ALLTOALL, Order("shuffled"), seed=s).flows if f.src == 0) for s in range(9)}
    assert len(orders) > 5 and {frozenset(order) for order in orders} == {frozenset(range(1, 8))}


def test_none_of_everything_is_row_for_row_what_no_strain_gives() -> None:
    none = {"jitter": 0, "sizes": {"spread": "0%", "skew": 0}, "stragglers": 0, "order": "listed", "background": 0}
    assert set(none) == {kind.key for kind in STRAINS}, "a new kind is tried here too"
    plain, zero = experiment(), experiment(strain=none)
    assert Replays(zero).ideal(Replays(zero).runs[0]) == Replays(plain).ideal(Replays(plain).runs[0])
    assert predict(zero).equals(predict(plain))
    assert "strain" not in plain.as_json() and restore_experiment(zero.as_json(), "again") == zero


def test_rows_say_what_strain_was_on_and_such_runs_are_not_those_without() -> None:
    plain, late = experiment(), experiment(strain={"jitter": "50%", "stragglers": {"ranks": 1, "slow": 2}})
    assert set(predict(late).strain) == {"jitter share=50% each=rank distribution=uniform, stragglers ranks=1 slow=2.0"}
    measured = predict(late).assign(cct_s=lambda rows: rows.predicted_cct_s, fidelity="pass")
    assert (beside_results(predict(late), measured).emulated_over_predicted == 1).all()
    with pytest.raises(Exception, match="strain is jitter share=50%"):
        beside_results(predict(plain), measured)


def test_a_strained_run_has_a_bound_and_a_prediction_of_its_own() -> None:
    rows = predict(experiment(strain={"stragglers": {"ranks": 1, "slow": 3}}))
    without = predict(experiment())
    assert (rows.bound_s > 2 * without.bound_s).all(), "nothing that starts at twice the bound is done before"
    assert (rows.predicted_cct_over_bound >= 1 - 1e-9).all()
    seeds = predict(experiment(strain={"jitter": {"share": "50%", "each": "flow"}}, schemes=["ethereal"]))
    assert seeds.predicted_cct_s.nunique() == len(seeds), "every seed draws its own"


@pytest.mark.parametrize(
    ("strain", "says"),
    [
        ({"jiter": "5%"}, "strain.jiter: unknown key 'jiter'; did you mean 'jitter'?"),
        ({"jitter": "50"}, "strain.jitter.share: '50' is not a share below 1000%"),
        ({"jitter": {"share": "5%", "each": "flows"}}, "did you mean 'flow'?"),
        ({"sizes": {"spread": "100%"}}, "strain.sizes.spread: '100%' is not a share below 100%"),
        ({"stragglers": 1.5}, "strain.stragglers.ranks: 1.5 is not a whole number from 0 up"),
        ({"stragglers": {"slow": 0.5}}, "strain.stragglers.slow: 0.5 is not a number from 1 to 100"),
        ({"order": {"window": True}}, "strain.order.window: true is not a whole number of flows"),
        (5, "strain: 5 is not a mapping such as {jitter: 5%}"),
    ],
)
def test_what_is_wrong_with_a_strain_is_said_at_its_key(strain: object, says: str) -> None:
    with pytest.raises(SpecError) as error:
        experiment(strain=strain)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_resized_flows_carry_no_data_that_could_be_checked() -> None:
    with pytest.raises(SpecError, match=r"strain: sizes changes what flows carry.*write 0, or verify: false"):
        experiment(verify=True, strain={"sizes": "20%"}, traffic=[{"collective": "alltoall", "size": "800KB"}])
    late = {"jitter": "20%", "order": "shuffled", "sizes": 0}
    assert experiment(verify=True, strain=late, traffic=[{"collective": "alltoall", "size": "800KB"}]).verify


def test_an_order_that_traffic_cannot_have_is_refused_before_anything_is_built() -> None:
    with pytest.raises(SpecError, match="strain: the flows of allreduce ring wait for each other"):
        experiment(strain={"order": "shuffled"}, traffic=[{"collective": "allreduce", "algorithm": "ring"}])


@quickly
@given(schedules, seeds, st.floats(0.01, 2), st.sampled_from(["permutation", "uniform"]))
def test_another_tenant_sends_its_load_beside_ours_and_changes_none_of_it(
    schedule: Schedule, seed: int, load: float, pattern: Any
) -> None:
    both = put(schedule, Background(load, pattern), seed=seed)
    assert both.own == schedule and both.own_tasks == len(schedule.flows)
    theirs = both.flows[len(schedule.flows) :]
    assert all(flow.src != flow.dst and 0 <= flow.start_s < 2 * BOUND_S for flow in theirs)
    assert {flow.channel for flow in theirs}.isdisjoint({flow.channel for flow in schedule.flows})
    within_bound = sum(flow.size_bytes for flow in theirs) / 2
    assert within_bound == pytest.approx(load * schedule.payload_bytes, rel=0.01)
    if pattern == "permutation":
        assert len({(flow.src, flow.dst) for flow in theirs}) == len({flow.dst for flow in theirs}) == schedule.ranks


@pytest.mark.parametrize("scheme", ["ecmp", "spray", "ethereal", "subflow-4"])
def test_no_scheme_moves_or_splits_what_another_tenant_sends_nor_minds_it_in_its_own(scheme: str) -> None:
    both = put(PERMUTATION, Background(0.3))
    plan, alone = (plan_traffic(each, FABRIC, HOSTS, scheme_of(scheme)) for each in (both, PERMUTATION))
    own = [piece for piece in plan.pieces if piece.flow < len(PERMUTATION.flows)]
    assert [(piece.flow, piece.size_bytes) for piece in own] == [(each.flow, each.size_bytes) for each in alone.pieces]
    theirs = [piece for piece in plan.pieces if piece.flow >= len(PERMUTATION.flows)]
    assert [piece.size_bytes for piece in theirs] == [flow.size_bytes for flow in both.flows[len(PERMUTATION.flows) :]]
    ecmp = plan_traffic(both, FABRIC, HOSTS, scheme_of("ecmp"))
    theirs_there = [piece for piece in ecmp.pieces if piece.flow >= len(PERMUTATION.flows)]
    tags, tags_there = (
        [each.connections[piece.connection].path_tag for piece in pieces]
        for each, pieces in ((plan, theirs), (ecmp, theirs_there))
    )
    assert tags == tags_there, "their paths are the same under all schemes"


def test_the_more_another_tenant_sends_the_later_ours_arrive_and_its_own_arrivals_do_not_count() -> None:
    times_s = []
    for load in (0.0, 0.2, 0.8):
        both = put(PERMUTATION, Background(load))
        plan = plan_traffic(both, FABRIC, HOSTS, scheme_of("spray"))
        bound = bound_s(both.own, FABRIC, HOSTS)
        found = simulate(plan, FABRIC, choose_spines(plan, FABRIC, 1))
        assert found.cct_s >= bound == bound_s(PERMUTATION, FABRIC, HOSTS)
        assert found.cct_s == found.end_s[: len(PERMUTATION.flows)].max()
        times_s.append(found.cct_s)
    assert times_s == sorted(times_s) and times_s[2] > times_s[0]


def test_what_computes_takes_no_background() -> None:
    job = Schedule("job", "ddp", 2, 1, 8, [Flow(0, 0, 1, 8)], computes=(Compute(1, 0, 1.0),))
    with pytest.raises(StrainError, match="ddp computes; write load: 0"):
        put(job, Background(0.3))
