"""Predictions: complete, never below the bound, shaped as the paper says, and the same whether listed or counted."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from results_example import results_folder
from rich.console import Console
from synthetic import EVERY_SCHEME

from emulator.topology import LeafSpine
from experiments.cli import main
from experiments.machine.benchmarks import predict as benchmark
from experiments.results.folder import ResultsError
from experiments.runs import predict as prediction
from experiments.runs.plan import plan_runs
from experiments.runs.predict import beside_results, predict, prediction_table, predictions
from experiments.spec.experiment import Experiment, restore_experiment
from experiments.theory import prediction as one_run
from experiments.theory.bound import bound_s
from experiments.theory.counting import count_traffic
from experiments.theory.loads import choose_spines, congestion_ratio, ideal_link_bytes, leaf_bytes, link_bytes
from traffic.collectives import COLLECTIVES, build_schedule, outline
from traffic.placement import PLACEMENTS, place
from traffic.plan import UNTAGGED, plan_traffic
from traffic.schemes import scheme_of

COUNTED = [
    (name, algorithm)
    for name, kind in COLLECTIVES.items()
    for algorithm in kind.algorithms
    if outline(name, algorithm, ranks=4, size_bytes=64)
]


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
    frame = predict(experiment(seeds=[1, 2, 3, 4, 5]), jitter=0)
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


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    leaves=st.integers(2, 4),
    spines=st.integers(1, 5),
    hosts_per_leaf=st.integers(1, 3),
    rate=st.sampled_from(["5mbit", "20mbit", "80mbit"]),
    kind=st.sampled_from(sorted(COLLECTIVES)),
    channels=st.integers(1, 3),
    placement=st.sampled_from(PLACEMENTS),
)
def test_no_prediction_is_below_its_bound(
    leaves: int, spines: int, hosts_per_leaf: int, rate: str, kind: str, channels: int, placement: str
) -> None:
    frame = predict(
        experiment(
            fabric={"leaves": leaves, "spines": spines, "hosts_per_leaf": hosts_per_leaf, "fabric_rate": rate},
            traffic=[{"collective": kind, "channels": channels, "size": "100KB"}],
            placement=placement,
            seeds=[7],
        )
    )
    assert (frame.bound_s > 0).all()
    assert (frame.predicted_cct_over_bound >= 1 - 1e-7).all()
    assert (frame.predicted_low_s <= frame.predicted_cct_s).all()
    assert (frame.predicted_cct_s <= frame.predicted_high_s).all()


# Ranges


def in_order(window: int, **changes: Any) -> Experiment:
    """Every host serves the others in turn: equal pieces alone keep the hosts out of each other's way."""
    traffic = [{"collective": "alltoall", "size": "2MB", "window": window}]
    return experiment(traffic=traffic, **{"schemes": ["ethereal"], "seeds": [1], **changes})


def test_a_knife_edge_has_a_wide_range_and_an_even_load_does_not() -> None:
    [edge] = predict(in_order(1)).itertuples()
    assert edge.predicted_cct_over_bound == pytest.approx(1.0)
    assert edge.predicted_low_s == pytest.approx(edge.bound_s)
    assert edge.predicted_high_s > 1.3 * edge.bound_s
    [steadier] = predict(in_order(4)).itertuples()
    assert steadier.predicted_high_s < 1.2 * steadier.predicted_low_s
    even = predict(experiment(schemes=["ethereal", "spray"], seeds=[1]))
    assert (even.predicted_high_s < 1.05 * even.predicted_low_s).all()


def test_without_jitter_the_range_is_the_exact_figure_and_the_more_of_it_the_wider() -> None:
    [none], [little], [much] = (list(predict(in_order(1), jitter).itertuples()) for jitter in (0.0, 0.001, 0.05))
    assert none.predicted_low_s == none.predicted_cct_s == none.predicted_high_s
    assert none.predicted_cct_s == little.predicted_cct_s == much.predicted_cct_s
    assert none.predicted_high_s * 1.003 < little.predicted_high_s < 0.9 * much.predicted_high_s


def test_a_range_is_drawn_from_the_seed() -> None:
    first, again = (predict(in_order(1, seeds=[1, 2])) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert first.predicted_high_s.nunique() == 2 and first.predicted_cct_s.nunique() == 1


def test_large_traffic_has_a_range_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ranged = predict(in_order(1))
    for module in (prediction, one_run):
        monkeypatch.setattr(module, "MAX_JITTERED_PIECES", 10)
    unasked = predict(in_order(1))
    assert unasked[["predicted_low_s", "predicted_high_s"]].isna().all(axis=None)
    assert unasked.predicted_cct_s.tolist() == ranged.predicted_cct_s.tolist()
    assert predict(in_order(1), 0.05).predicted_high_s.tolist() == ranged.predicted_high_s.tolist()
    assert "1.00" in rendered(unasked)


# Beside an emulation


def test_emulated_runs_are_found_by_what_they_were() -> None:
    predicted = predict(experiment())
    emulated = predicted[predicted.scheme == "ecmp"].assign(run_id="other", experiment="other", fidelity="pass")
    emulated["cct_s"] = emulated.predicted_cct_s * 1.09
    emulated["congestion_ratio"] *= 1.01
    elsewhere = emulated.assign(host_rate_bps=1, scheme="ethereal")
    joined = beside_results(predicted, pd.concat([emulated.drop(columns="predicted_cct_s"), elsewhere]))
    assert len(joined) == len(predicted)
    ecmp = joined.scheme == "ecmp"
    assert joined[ecmp].emulated_over_predicted.tolist() == pytest.approx([1.09] * 6)
    assert set(joined[ecmp].explained) == {"yes"} and set(joined[~ecmp].explained) == {""}
    assert joined[ecmp].measured_congestion_ratio.tolist() == pytest.approx(
        (joined[ecmp].congestion_ratio * 1.01).tolist()
    )
    assert joined[~ecmp].cct_s.isna().all()


@pytest.mark.parametrize(("changes", "said"), [
    ({"traffic": [{"collective": "allreduce", "algorithm": "ring"}]},
     "traffic is allreduce-ring there and permutation, alltoall here"),
    ({"fabric": {"leaves": 8, "spines": 2, "hosts_per_leaf": 2}}, "leaves is 8 there and 4 here; spines is 2 there"),
    ({"schemes": ["subflow-2"], "seeds": [7]}, "scheme is subflow-2 there and ecmp, spray, ethereal and 1 more here"),
])  # fmt: skip
def test_results_of_another_experiment_are_told_from_it(changes: dict[str, Any], said: str) -> None:
    elsewhere = predict(experiment(**changes), jitter=0).assign(cct_s=1.0, fidelity="pass")
    with pytest.raises(ResultsError, match=f"^results/other holds no run of this experiment: .*{said}"):
        beside_results(predict(experiment(), jitter=0), elsewhere, "results/other")


def test_results_without_a_run_are_told() -> None:
    with pytest.raises(ResultsError, match=r"none has finished$"):
        beside_results(predict(experiment(seeds=[1])), pd.DataFrame())


def rendered(frame: pd.DataFrame, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
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


def test_the_table_shows_a_range_where_it_is_wide_and_fits_80_columns() -> None:
    long = [{"collective": "alltoall", "size": size, "window": window, "order": order}
            for size, window, order in (("2MB", 1, "rotated"), ("1999999B", 4, "synchronised"))]  # fmt: skip
    frame = predict(experiment(traffic=long, schemes=["ethereal", "spray"], seeds=[1]))
    for shown in (frame, beside_results(frame, frame.assign(cct_s=frame.predicted_cct_s * 1.02, fidelity="pass"))):
        text = rendered(shown, width=80)
        assert re.search(r"ethereal .* 1\.00-1\.[3-9]", text) and "…" not in text
        assert "1999999B" in "".join(line[:40].strip() for line in text.splitlines()), "a long name goes on below"
        assert max(map(len, text.splitlines())) <= 80


# The command


def predicted_by(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["predict", "quick", "--set", "seeds=[1]", *arguments])


def test_standard_output_takes_the_rows_and_nothing_else() -> None:
    done = predicted_by("--csv", "-", "--jitter", "0")
    assert done.exit_code == 0
    frame = pd.read_csv(io.StringIO(done.stdout))
    assert len(frame) == 9 and (frame.predicted_low_s == frame.predicted_high_s).all()
    assert "Predicted" in done.stderr and "run_id" not in done.stderr


def test_a_wrong_jitter_and_other_results_end_with_a_sentence(tmp_path: Path) -> None:
    results_folder(tmp_path / "other")
    wrong_jitter, other_results = ("--jitter", "5x"), ("--results", f"{tmp_path}/other")
    for arguments, said in ((wrong_jitter, "--jitter: '5x' is not"), (other_results, "holds no run of this")):
        done = predicted_by(*arguments)
        assert done.exit_code == 2 and not done.stdout.strip()
        [sentence] = done.stderr.splitlines()
        assert sentence.startswith("spraylab: ") and said in sentence


# As the paper says, in shape


def test_hashing_is_slow_where_it_collides_and_single_paths_are_not() -> None:
    over_bound = medians(predict(experiment(), jitter=0))
    assert over_bound.loc["permutation", "ecmp"] > over_bound.loc["permutation", "subflow-4"] > 1.1
    assert over_bound.loc["permutation", "ethereal"] == pytest.approx(1.0)
    assert over_bound.loc["permutation", "ecmp"] > over_bound.loc["alltoall", "ecmp"] > 1.05


@pytest.mark.parametrize("algorithm", ["ring", "double-binary-tree"])
def test_schemes_differ_little_where_a_leaf_has_one_crossing_flow_per_spine(algorithm: str) -> None:
    # Packed, with as many channels as spines: one flow a channel leaves each leaf at a time.
    traffic = [{"collective": "allreduce", "algorithm": algorithm, "channels": 4, "size": "4MB"}]
    packed, interleaved = (
        predict(experiment(traffic=traffic, placement=kind, seeds=[3]), jitter=0) for kind in ("packed", "interleaved")
    )
    assert packed.predicted_cct_s.max() <= 1.02 * packed.predicted_cct_s.min()
    assert packed.congestion_ratio.max() > 1.2, "the hash did collide"
    assert interleaved.predicted_cct_s.max() > 1.2 * interleaved.predicted_cct_s.min()


# By counting


@pytest.mark.parametrize(("collective", "algorithm"), COUNTED)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_counts_say_what_a_list_of_flows_says(collective: str, algorithm: str, placement: str, channels: int) -> None:
    fabric = LeafSpine(3, 4, 4)
    hosts = place(placement, fabric, 12, seed=5)
    size_bytes = 12 * 3 * 4 * 48  # every cut is exact
    schedule = build_schedule(collective, algorithm, ranks=12, size_bytes=size_bytes, channels=channels)
    unlisted = outline(collective, algorithm, ranks=12, size_bytes=size_bytes, channels=channels)
    assert unlisted is not None
    counted = count_traffic(unlisted, fabric, hosts)
    assert counted.total_flows == len(schedule.flows)
    listed_flows = np.zeros((12, 3), dtype=int)
    for flow in schedule.flows:
        listed_flows[hosts[flow.src], fabric.leaf_of(hosts[flow.dst])] += 1
    np.testing.assert_array_equal(counted.flows * counted.rounds, listed_flows)
    assert counted.bound_s() == pytest.approx(bound_s(schedule, fabric, hosts))
    ideal = ideal_link_bytes(leaf_bytes(schedule, fabric, hosts), fabric)
    np.testing.assert_allclose(counted.ideal_link_bytes(), ideal)
    for scheme in map(scheme_of, (*EVERY_SCHEME, "subflow-3")):
        plan = plan_traffic(schedule, fabric, hosts, scheme)
        assert counted.connections(scheme) == len(plan.connections)
        assert counted.cut_flows(scheme) == plan.cut_flows
        loads = counted.link_bytes(scheme, seed=1)
        listed = link_bytes(plan, fabric, choose_spines(plan, fabric, 1))
        if scheme.spreads or all(UNTAGGED not in tags for tags in scheme.tags(12, range(4))):
            np.testing.assert_allclose(loads, listed)
        else:  # another draw of as many bytes
            np.testing.assert_allclose(loads.up.sum(axis=1), listed.up.sum(axis=1))
            np.testing.assert_allclose(loads.down.sum(axis=1), listed.down.sum(axis=1))


@pytest.mark.parametrize("scheme", ["ecmp", "subflow-4"])
@pytest.mark.parametrize(("collective", "algorithm"), [("alltoall", "direct"), ("permutation", "shift")])
def test_counted_hashing_is_distributed_as_the_switches_hashing(collective: str, algorithm: str, scheme: str) -> None:
    fabric, hosts = LeafSpine(8, 8, 8), range(64)
    schedule = build_schedule(collective, algorithm, ranks=64, size_bytes=64_000, channels=2)
    unlisted = outline(collective, algorithm, ranks=64, size_bytes=64_000, channels=2)
    assert unlisted is not None
    counted = count_traffic(unlisted, fabric, hosts)
    plan = plan_traffic(schedule, fabric, hosts, scheme_of(scheme))
    listed = [
        congestion_ratio(link_bytes(plan, fabric, choose_spines(plan, fabric, seed)), schedule, fabric, hosts)
        for seed in range(40)
    ]
    drawn = [counted.congestion_ratio(scheme_of(scheme), seed) for seed in range(40)]
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
    monkeypatch.setattr(one_run, "MAX_PIECES", 10)
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
