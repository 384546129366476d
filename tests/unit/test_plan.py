"""The runs of an experiment: all of them, once, in an order that an interruption does not spoil."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import EVERY_SCHEME

from experiments.runs.plan import Run, estimate_s, plan_runs
from experiments.spec.experiment import Experiment, load_experiment

ENTRIES: list[dict[str, object]] = [
    {"collective": "alltoall", "size": "4MB"},
    {"collective": "alltoall", "size": "4MB"},
    {"collective": "alltoall", "size": "4MB", "window": 2},
    {"collective": "allreduce", "algorithm": "direct"},
    {"matrix": "a/some perm (ü).cm"},
    {"matrix": "b/some perm (ü).cm"},
]


def experiment(entries: list[dict[str, object]], schemes: list[str], seeds: list[int]) -> Experiment:
    fabric = {"leaves": 2, "spines": 2, "hosts_per_leaf": 2}
    return Experiment.model_validate(
        {"name": "test", "fabric": fabric, "traffic": entries, "schemes": schemes, "seeds": seeds}
    )


experiments = st.builds(
    experiment,
    st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=6),
    st.lists(st.sampled_from(EVERY_SCHEME), min_size=1, unique=True),
    st.lists(st.integers(0, 65_535), min_size=1, max_size=20, unique=True),
)
quickly = settings(max_examples=60, deadline=None, derandomize=True)


@quickly
@given(experiments)
def test_runs_are_the_product_of_traffic_schemes_and_seeds(spec: Experiment) -> None:
    cases = [(run.traffic, run.scheme, run.seed) for run in plan_runs(spec)]
    assert sorted(cases) == sorted(product(range(len(spec.traffic)), spec.schemes, spec.seeds))


@quickly
@given(experiments)
def test_an_id_is_one_file_name_unique_and_in_order(spec: Experiment) -> None:
    ids = [run.run_id for run in plan_runs(spec)]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9A-Za-z._-]{1,150}", run_id) for run_id in ids)
    assert ids == [run.run_id for run in plan_runs(spec)]


@quickly
@given(experiments)
def test_a_label_tells_the_entries_of_traffic_apart(spec: Experiment) -> None:
    labels = {(run.traffic, run.label) for run in plan_runs(spec)}
    assert len({label for _, label in labels}) == len(labels) == len(spec.traffic)


@quickly
@given(experiments, st.integers(1, 200))
def test_an_interruption_leaves_seeds_whole_but_for_the_last(spec: Experiment, finished: int) -> None:
    done = plan_runs(spec)[:finished]
    whole = len(spec.traffic) * len(spec.schemes)
    per_seed = [sum(run.seed == seed for run in done) for seed in spec.seeds]
    assert sum(0 < count < whole for count in per_seed) <= 1
    assert per_seed == sorted(per_seed, reverse=True)


def test_more_than_999_runs_still_sort_in_order() -> None:
    ids = [run.run_id for run in plan_runs(experiment(ENTRIES[:1], ["ecmp"], list(range(1200))))]
    assert ids == sorted(ids)


def test_quick_is_27_runs_named_for_what_they_are() -> None:
    runs = plan_runs(load_experiment("quick"))
    assert len(runs) == 27
    assert runs[0] == Run("001-permutation-ecmp-s1", 0, "permutation", "ecmp", seed=1)
    assert runs[8].run_id == "009-perm_16n_16c_2MB-ethereal-s1"


def test_settings_that_differ_are_in_the_label() -> None:
    runs = plan_runs(experiment([ENTRIES[0], ENTRIES[2], ENTRIES[3]], ["ecmp"], [1]))
    assert [run.label for run in runs] == ["alltoall", "alltoall-window-2", "allreduce-direct"]


@pytest.mark.parametrize("scheme", EVERY_SCHEME)
def test_no_run_is_estimated_below_its_bound_and_longer_bounds_take_longer(scheme: str) -> None:
    spec = experiment(ENTRIES[:1], [scheme], [1])
    (run,) = plan_runs(spec)
    estimates = [estimate_s(spec, run, bound_s) for bound_s in (0.0, 1.0, 10.0)]
    assert all(estimate > bound for estimate, bound in zip(estimates, (0.0, 1.0, 10.0), strict=True))
    assert estimates == sorted(estimates)


def test_quick_is_estimated_to_take_about_what_it_took() -> None:
    """On two cores, all of its runs took 64 s; the bounds are those of that run."""
    quick = load_experiment("quick")
    bounds_s = [1.612, 1.511, 1.612]
    assert sum(estimate_s(quick, run, bounds_s[run.traffic]) for run in plan_runs(quick)) == pytest.approx(64, rel=0.15)
