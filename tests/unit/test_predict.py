"""Predictions: complete, never below the bound, shaped as the paper says, and the same whether listed or counted."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from emulator.topology import LeafSpine
from experiments import predict as prediction
from experiments.benchmarks import predict as benchmark
from experiments.bound import bound_s
from experiments.congestion import choose_spines, congestion_ratio, ideal_link_bytes, leaf_bytes, link_bytes
from experiments.plan import plan_runs
from experiments.predict import beside_results, predict, prediction_table, predictions
from experiments.scale import count_traffic
from experiments.spec import Experiment, restore_experiment
from traffic.collectives import COLLECTIVES, build_schedule
from traffic.placement import PLACEMENTS, place
from traffic.schemes import plan_traffic

COUNTED = [
    ("alltoall", "direct"), ("allgather", "direct"), ("reducescatter", "direct"), ("allreduce", "direct"),
    ("allgather", "ring"), ("reducescatter", "ring"), ("allreduce", "ring"), ("permutation", "shift"),
]  # fmt: skip


def experiment(**changes: Any) -> Experiment:
    content = {
        "name": "small",
        "fabric": {"leaves": 4, "spines": 4, "hosts_per_leaf": 4},
        "traffic": [
            {"collective": "permutation", "channels": 4, "size": "4MB"},
            {"collective": "alltoall", "size": "4MB"},
        ],
        "schemes": ["ecmp", "spray", "ethereal", "subflow-4"],
        "seeds": [1, 2, 3],
    }
    return restore_experiment(content | changes, "test")


def medians(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.groupby(["collective", "scheme"], sort=False).predicted_cct_over_bound.median().unstack()


# The frame


def test_there_is_a_row_for_every_run_in_its_order() -> None:
    small = experiment()
    frame = predict(small)
    assert frame.run_id.tolist() == [run.run_id for run in plan_runs(small)]
    assert (frame.predicted_cct_over_bound * frame.bound_s).tolist() == pytest.approx(frame.predicted_cct_s.tolist())
    assert (frame.algbw_bps * frame.predicted_cct_s).tolist() == pytest.approx((frame.size_bytes * 8).tolist())
    busbw_factor = frame.collective.map(lambda name: COLLECTIVES[name].busbw_factor(16))
    assert frame.busbw_bps.tolist() == pytest.approx((frame.algbw_bps * busbw_factor).tolist())
    assert (frame.fct_p50_s <= frame.fct_p99_s).all() and (frame.fct_p99_s <= frame.predicted_cct_s).all()
    assert set(frame.ranks) == {16} and set(frame.flows) == {64, 240}


def test_what_nothing_hashes_is_the_same_for_every_seed_and_what_is_hashed_is_not() -> None:
    frame = predict(experiment(seeds=[1, 2, 3, 4, 5]))
    distinct = frame.groupby("scheme").congestion_ratio.nunique()
    assert distinct["ecmp"] > 2 and distinct["subflow-4"] > 2
    optimal = frame[frame.scheme.isin(["spray", "ethereal"])]
    assert optimal.congestion_ratio.tolist() == pytest.approx([1.0] * len(optimal))
    assert optimal.predicted_cct_over_bound.tolist() == pytest.approx([1.0] * len(optimal))


def test_each_seed_has_its_own_placement_and_order() -> None:
    shuffled = experiment(traffic=[{"collective": "permutation", "channels": 3, "size": "4MB"}], placement="random")
    alone = [predict(shuffled.model_copy(update={"seeds": (seed,)})).set_index("scheme") for seed in shuffled.seeds]
    together = predict(shuffled).set_index(["seed", "scheme"])
    for seed, frame in zip(shuffled.seeds, alone, strict=True):
        for scheme in shuffled.schemes:
            assert together.loc[(seed, scheme)].predicted_cct_s == frame.loc[scheme].predicted_cct_s


def test_unpaced_flows_take_up_what_others_leave() -> None:
    traffic = [{"collective": "allreduce", "algorithm": "double-binary-tree"}]
    paced, free = (
        predict(experiment(traffic=traffic, schemes=["ecmp"], transport={"pacing": pacing})).predicted_cct_s
        for pacing in ("fair", "none")
    )
    assert (free <= paced * (1 + 1e-9)).all()
    assert (free < paced * 0.99).any()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    leaves=st.integers(2, 4), spines=st.integers(1, 5), hosts_per_leaf=st.integers(1, 3),
    rate=st.sampled_from(["5mbit", "20mbit", "80mbit"]), kind=st.sampled_from(sorted(COLLECTIVES)),
    channels=st.integers(1, 3), placement=st.sampled_from(PLACEMENTS), pacing=st.sampled_from(["fair", "none"]),
)
def test_no_prediction_is_below_its_bound(
    leaves: int, spines: int, hosts_per_leaf: int, rate: str, kind: str, channels: int, placement: str, pacing: str
) -> None:
    frame = predict(
        experiment(
            fabric={"leaves": leaves, "spines": spines, "hosts_per_leaf": hosts_per_leaf, "fabric_rate": rate},
            traffic=[{"collective": kind, "channels": channels, "size": "100KB"}],
            placement=placement,
            transport={"pacing": pacing},
            seeds=[7],
        )
    )
    assert (frame.bound_s > 0).all()
    assert (frame.predicted_cct_over_bound >= 1 - 1e-7).all()


# Beside an emulation


def test_emulated_runs_are_found_by_what_they_were() -> None:
    predicted = predict(experiment())
    emulated = predicted[predicted.scheme == "ecmp"].assign(run_id="other", experiment="other", fidelity="pass")
    emulated["cct_s"] = emulated.predicted_cct_s * 1.1
    emulated["congestion_ratio"] *= 1.01
    elsewhere = emulated.assign(host_rate_bps=1, scheme="ethereal")
    joined = beside_results(predicted, pd.concat([emulated.drop(columns="predicted_cct_s"), elsewhere]))
    assert len(joined) == len(predicted)
    ecmp = joined.scheme == "ecmp"
    assert joined[ecmp].cct_over_predicted.tolist() == pytest.approx([1.1] * 6)
    assert joined[ecmp].measured_congestion_ratio.tolist() == pytest.approx(
        (joined[ecmp].congestion_ratio * 1.01).tolist())
    assert joined[~ecmp].cct_s.isna().all()


def rendered(frame: pd.DataFrame) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(prediction_table(frame))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_the_table_shows_medians_of_what_can_be_trusted() -> None:
    predicted = predict(experiment(traffic=[{"collective": "alltoall", "size": "4MB"}], schemes=["ethereal"]))
    text = rendered(predicted)
    assert "alltoall" in text and "ethereal" in text and "1.51 s" in text and "emulated" not in text
    emulated = predicted.assign(cct_s=predicted.predicted_cct_s * [1.04, 1.06, 9.0], fidelity=["pass", "pass", "fail"])
    assert "1.05" in rendered(beside_results(predicted, emulated))
    assert "alltoall" in rendered(beside_results(predicted, pd.DataFrame()))


# As the paper says, in shape


def test_hashing_is_slow_where_it_collides_and_single_paths_are_not() -> None:
    over_bound = medians(predict(experiment()))
    assert over_bound.loc["permutation", "ecmp"] > over_bound.loc["permutation", "subflow-4"] > 1.1
    assert over_bound.loc["permutation", "ethereal"] == pytest.approx(1.0)
    assert over_bound.loc["permutation", "ecmp"] > over_bound.loc["alltoall", "ecmp"] > 1.05


@pytest.mark.parametrize("algorithm", ["ring", "double-binary-tree"])
def test_schemes_differ_little_where_a_leaf_has_one_crossing_flow_per_spine(algorithm: str) -> None:
    # Packed, with as many channels as spines: one flow a channel leaves each leaf at a time.
    traffic = [{"collective": "allreduce", "algorithm": algorithm, "channels": 4, "size": "4MB"}]
    packed, interleaved = (predict(experiment(traffic=traffic, placement=kind)) for kind in ("packed", "interleaved"))
    assert packed.predicted_cct_s.max() <= 1.02 * packed.predicted_cct_s.min()
    assert packed.congestion_ratio.max() > 1.2, "the hash did collide"
    assert interleaved.predicted_cct_s.max() > 1.2 * interleaved.predicted_cct_s.min()


# By counting


@pytest.mark.parametrize("collective, algorithm", COUNTED)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_counts_say_what_a_list_of_flows_says(collective: str, algorithm: str, placement: str, channels: int) -> None:
    fabric = LeafSpine(3, 4, 4)
    hosts = place(placement, fabric, 12, seed=5)
    size_bytes = 12 * 3 * 4 * 48  # every cut is exact
    schedule = build_schedule(collective, algorithm, ranks=12, size_bytes=size_bytes, channels=channels)
    counted = count_traffic(collective, algorithm, fabric, hosts, size_bytes=size_bytes, channels=channels)
    assert counted.total_flows == len(schedule.flows)
    assert counted.bound_s() == pytest.approx(bound_s(schedule, fabric, hosts))
    ideal = ideal_link_bytes(leaf_bytes(schedule, fabric, hosts), fabric)
    np.testing.assert_allclose(counted.ideal_link_bytes(), ideal)
    for scheme in ("ethereal", "spray", "ecmp", "subflow-3"):
        plan = plan_traffic(schedule, fabric, hosts, scheme)
        assert counted.subflows(scheme) == len(plan.subflows)
        assert counted.cut_flows(scheme) == plan.cut_flows
        loads = counted.link_bytes(scheme, seed=1)
        listed = link_bytes(plan, fabric, choose_spines(plan, fabric, 1))
        if scheme in ("ethereal", "spray"):
            np.testing.assert_allclose(loads, listed)
        else:  # another draw of as many bytes
            np.testing.assert_allclose(loads.up.sum(axis=1), listed.up.sum(axis=1))
            np.testing.assert_allclose(loads.down.sum(axis=1), listed.down.sum(axis=1))


@pytest.mark.parametrize("scheme", ["ecmp", "subflow-4"])
@pytest.mark.parametrize("collective, algorithm", [("alltoall", "direct"), ("permutation", "shift")])
def test_counted_hashing_is_distributed_as_the_switches_hashing(collective: str, algorithm: str, scheme: str) -> None:
    fabric, hosts = LeafSpine(8, 8, 8), range(64)
    schedule = build_schedule(collective, algorithm, ranks=64, size_bytes=64_000, channels=2)
    counted = count_traffic(collective, algorithm, fabric, hosts, size_bytes=64_000, channels=2)
    plan = plan_traffic(schedule, fabric, hosts, scheme)
    listed = [congestion_ratio(link_bytes(plan, fabric, choose_spines(plan, fabric, seed)), schedule, fabric, hosts)
              for seed in range(40)]
    drawn = [counted.congestion_ratio(scheme, seed) for seed in range(40)]
    spread = np.hypot(np.std(listed), np.std(drawn)) / np.sqrt(40)
    assert abs(np.mean(listed) - np.mean(drawn)) < 4 * spread


def test_traffic_beyond_the_fluid_model_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = predict(experiment(seeds=[1]))
    monkeypatch.setattr(prediction, "MAX_FLOWS", 10)
    counted = predict(experiment(seeds=[1]))
    assert counted[["predicted_cct_s", "algbw_bps", "busbw_bps", "fct_p50_s"]].isna().all(axis=None)
    assert counted.columns.tolist() == listed.columns.tolist()
    for column in ("run_id", "flows", "subflows", "cut_flows", "bound_s"):
        assert counted[column].tolist() == pytest.approx(listed[column].tolist())
    exact = listed.scheme.isin(["spray", "ethereal"])
    assert counted[exact].congestion_ratio.tolist() == pytest.approx(listed[exact].congestion_ratio.tolist())
    assert "1.00" in rendered(counted)


def test_what_can_be_neither_counted_nor_simulated_still_has_its_congestion(monkeypatch: pytest.MonkeyPatch) -> None:
    windowed = experiment(traffic=[{"collective": "alltoall", "window": 2, "size": "4MB"}], seeds=[1])
    listed = predict(windowed)
    monkeypatch.setattr(prediction, "MAX_PIECES", 10)
    monkeypatch.setattr(prediction, "MAX_FLOWS", 10)
    unsimulated = predict(windowed)
    assert unsimulated.predicted_cct_s.isna().all()
    assert unsimulated.congestion_ratio.tolist() == pytest.approx(listed.congestion_ratio.tolist())


def test_65536_hosts_are_counted() -> None:
    [ecmp, ethereal] = sorted(
        predictions(benchmark.experiment_of(65_536, "alltoall", ["ecmp", "ethereal"])), key=lambda row: row["scheme"]
    )
    assert ethereal["flows"] == 65_536 * 65_535
    assert ethereal["congestion_ratio"] == pytest.approx(1.0)
    assert 1.0 < ecmp["congestion_ratio"] < 1.05, "many small flows even out"
    assert ethereal["predicted_cct_s"] is None


def test_the_benchmark_says_what_it_measured() -> None:
    rows = benchmark.run(hosts=[16])
    assert [row["traffic"] for row in rows] == ["permutation", "alltoall"]
    assert [row["flows"] for row in rows] == [64, 240]
    assert all(row["time_s"] > 0 and row["peak_memory_bytes"] > 10_000_000 and row["model"] == "fluid" for row in rows)
    with pytest.raises(ValueError, match="use a square such as 16"):
        benchmark.experiment_of(17, "alltoall")
