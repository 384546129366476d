"""Sweeps: every point once, one table, one fabric as long as it is the same; an interruption loses nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import healthy_run, ports_of

from emulator.order import FabricOrder
from emulator.scripted import Scripted
from experiments.cli import main
from experiments.commands import performing
from experiments.commands.output import Console
from experiments.judge.evidence import Built, Measured, ReplayEvidence
from experiments.judge.rows import Judged, judge_replay
from experiments.results.curves import curves_of, number_of
from experiments.results.folder import ResultsFolder
from experiments.results.manifest import manifest as asked_of
from experiments.results.report import write_report
from experiments.results.verdict import of_results
from experiments.runs.loads.programs import Program, Programs
from experiments.runs.loads.replays import Replays
from experiments.runs.loads.sweeps import replay_work, works_of
from experiments.runs.messages import Event, Job
from experiments.runs.predict import predict
from experiments.runs.work import Seen, Work
from experiments.spec.experiment import Experiment, load_experiment, restore_experiment
from experiments.spec.messages import SpecError
from experiments.spec.sweep import read_sweep

BASE: dict[str, Any] = {
    "name": "small",
    "fabric": {"leaves": 2, "spines": 2, "hosts_per_leaf": 2, "host_rate": "10mbit"},
    "traffic": [{"collective": "alltoall", "size": "1MB"}],
    "schemes": ["spray", "ethereal"],
    "seeds": [1, 2, 3, 4, 5],
}
TWO_FABRICS = {"strain.jitter": [0, "5%", "20%"], "fabric.spines": [2, 4]}


def experiment(sweep: object = TWO_FABRICS, **changes: Any) -> Experiment:
    return restore_experiment({**BASE, **changes, "sweep": sweep}, "test")


def refused(sweep: object, **changes: Any) -> str:
    with pytest.raises(SpecError) as error:
        experiment(sweep, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


# Points

axes = st.dictionaries(
    st.sampled_from(["a.b", "c", "d.b", "e"]),
    st.lists(st.one_of(st.integers(), st.sampled_from(["1%", "5%", "x"])), min_size=1, max_size=4, unique_by=str),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(axes)
def test_a_sweep_is_the_product_of_its_values_and_each_point_has_a_label_of_its_own(content: dict[str, Any]) -> None:
    sweep = read_sweep(content)
    found = sweep.settings()
    assert len(found) == sweep.points == len({sweep.label(setting) for setting in found})
    for key, values in content.items():
        assert [setting[key] for setting in found].count(values[0]) == sweep.points / len(values)
    assert read_sweep(sweep.as_json()) == sweep


def test_with_zip_values_go_together() -> None:
    sweep = read_sweep({"fabric.spines": [2, 4], "fabric.leaves": [3, 5], "zip": True})
    assert [list(each.values()) for each in sweep.settings()] == [[2, 3], [4, 5]]
    assert sweep.points == 2 and read_sweep(sweep.as_json()) == sweep
    assert "all keys have as many values" in refused({"fabric.spines": [2], "fabric.leaves": [3, 5], "zip": True})


def test_a_point_is_the_experiment_with_its_keys_set() -> None:
    points = {point.label: point.experiment for point in experiment().points()}
    assert list(points)[:2] == ["jitter=0, spines=2", "jitter=0, spines=4"] and len(points) == 6
    by_hand = restore_experiment(
        {**BASE, "fabric": {**BASE["fabric"], "spines": 4}, "strain": {"jitter": "5%"}}, "by hand"
    )
    assert points["jitter=5%, spines=4"] == by_hand
    again = restore_experiment(experiment().as_json(), "manifest.json")
    assert again == experiment() and again.points() == experiment().points()


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        (5, "sweep: 5 is not a mapping such as {strain.jitter: [0, 5%]}"),
        ({}, "sweep: names no key"),
        ({"strain.jitter": "5%"}, "strain.jitter: '5%' is not a list such as [0, 5%]"),
        ({"strain.jitter": []}, "the list is empty"),
        ({"strain.jitter": ["5%", "5%"]}, "strain.jitter: 5% is there twice"),
        ({"seeds": [[1], [2]]}, "seeds is a list of its own"),
        ({"name": ["a", "b"]}, "name is the same for all points"),
        ({"fabric.host_rate": ["auto"]}, "fabric.host_rate: auto depends on the point"),
        ({"strain.jiter": [0, "5%"]}, "at jiter=0: strain.jiter: unknown key 'jiter'; did you mean 'jitter'?"),
        ({"strain.jitter": ["5%", "5x"]}, "at jitter=5x: strain.jitter.share: '5x' is not a share"),
        ({"traffic.3.size": ["1MB"]}, "sweep.traffic.3.size: traffic has no item '3'"),
        ({"fabric.spines": [2, 400]}, "at spines=400: fabric.spines: 400 is too large"),
        ({"strain.jitter": list(range(40)), "strain.sizes": list(range(40))}, "1,600 points are more than the 1,000"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_one_sentence(sweep: object, says: str) -> None:
    assert says in refused(sweep)


def test_files_of_a_sweep_are_beside_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(f"there/{name}.cm").write_text("Nodes 4\nConnections 1\n0->2 id 1 start 0 size 1000\n")
    Path("there/exp.yaml").write_text(
        "fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2}\ntraffic: [{matrix: a.cm}]\n"
        "sweep: {traffic.0.matrix: [a.cm, b.cm]}\n"
    )
    works = works_of(load_experiment("there/exp.yaml"))
    assert len({work.runs[0].label for work in works}) == 2


def test_programs_are_swept_by_nobody_and_strained_by_nobody() -> None:
    program = Program(("true",), (0,), 1.0)
    with pytest.raises(SpecError, match="sweep: changes what is replayed"):
        Programs(experiment(), program)
    with pytest.raises(SpecError, match="strain: changes what is replayed"):
        Programs(restore_experiment({**BASE, "strain": {"jitter": "5%"}}, "test"), program)


# Runs


def test_run_ids_name_the_point_and_number_all_runs_in_the_order_they_are_performed() -> None:
    work = replay_work(experiment())
    ids = [run.run_id for run in work.runs]
    assert len(ids) == 60 and ids == sorted(set(ids))
    assert (
        ids[0] == "001-alltoall-jitter-0-spines-2-spray-s1" and ids[2] == "003-alltoall-jitter-5pct-spines-2-spray-s1"
    )
    assert all(re.fullmatch(r"[0-9A-Za-z._-]+", run_id) for run_id in ids)
    parts = work.parts
    assert [part.topology.spines for part in parts] == [2, 4]
    assert [run.run_id for part in parts for run in part.runs] == ids
    assert [run.run_id for run in replay_work(experiment()).runs] == ids


def test_predictions_of_a_sweep_are_those_of_its_points() -> None:
    rows = predict(experiment(seeds=[1, 2])).set_index("run_id")
    assert len(rows) == 24 and set(rows["strain.jitter"]) == {"0", "5%", "20%"}
    assert set(rows.strain[rows["strain.jitter"] == "0"]) == {""}
    [alone] = [point for point in experiment(seeds=[1, 2]).points() if point.label == "jitter=20%, spines=4"]
    by_itself = predict(alone.experiment)
    assert list(rows.predicted_cct_s[rows.point == alone.label]) == list(by_itself.predicted_cct_s)


def judged(work: Replays, run: Any, measured: Measured[Any], seen: Seen) -> Judged:
    bound = work.bound_s(run)
    row = {
        **work.identity(run, work.plan(run), "none"),
        **{
            "cct_s": 1.1 * bound,
            "bound_s": bound,
            "cct_over_bound": 1.1,
            "congestion_ratio": 1.0,
            "predicted_cct_s": bound,
        },
        **{"fidelity": "pass", "fidelity_reasons": ""},
    }
    return Judged(row, frames())


@lru_cache
def frames() -> Mapping[str, pd.DataFrame]:
    return judge_replay(healthy_run("spray", size_bytes=1_000_000), {}).frames


@pytest.fixture
def quick_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replays, "judged", judged)
    monkeypatch.setattr(Replays, "predicts", False)


def performed(work: Work, folder: ResultsFolder, healthy: ReplayEvidence, most: int = 1000) -> list[int]:
    """Perform what `folder` lacks, until `most` runs are done and somebody interrupts; the spines of each fabric."""
    fabrics, done = [], 0

    def script(order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        nonlocal done
        fabrics.append(order.topology.spines)
        yield Built("none", "a test", None, {"ready": 0.1}, None, ports_of(order.topology), {})
        for job in jobs:
            if done == most:
                raise KeyboardInterrupt
            done += 1
            yield replace(healthy.measured, run_id=job.run_id)

    performing.conduct(work, folder, Console(StringIO()), Scripted(script))
    return fabrics


@pytest.mark.usefixtures("quick_judge")
def test_sixty_runs_killed_in_the_middle_resume_to_exactly_the_rows(tmp_path: Path, healthy: ReplayEvidence) -> None:
    whole = ResultsFolder.create(tmp_path / "whole", asked_of(experiment()))
    assert performed(replay_work(experiment()), whole, healthy) == [2, 4]
    for most in (7, 30, 41):
        folder = ResultsFolder.create(tmp_path / f"killed-{most}", asked_of(experiment()))
        with pytest.raises(KeyboardInterrupt):
            performed(replay_work(experiment()), folder, healthy, most)
        assert len(folder.runs()) == most
        again = replay_work(restore_experiment(folder.manifest()["experiment"], "manifest.json"))
        assert performed(again, folder, healthy) == ([2, 4] if most < 30 else [4])
        assert (folder.path / "runs.csv").read_text() == (whole.path / "runs.csv").read_text()


@pytest.mark.usefixtures("quick_judge")
def test_one_folder_one_table_and_a_curve_for_every_other_setting(tmp_path: Path, healthy: ReplayEvidence) -> None:
    swept = experiment(seeds=[1, 2])
    folder = ResultsFolder.create(tmp_path / "r", asked_of(swept))
    performed(replay_work(swept), folder, healthy)
    verdict = of_results(folder.runs(), folder.manifest())
    assert verdict.asked.runs == 24 and verdict.asked.collectives == 6 == len(verdict.lines)
    curves = curves_of(folder.runs())
    assert [(curve.name, len(curve.runs)) for curve in curves] == [
        ("alltoall, spines=2", 12),
        ("alltoall, spines=4", 12),
    ]
    assert curves[0].places == {"0": 0.0, "5%": 0.05, "20%": 0.2}
    write_report([folder], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "What the sweep changes" in page and "alltoall, spines=4" in page
    assert (folder.path / "figures" / "sweep-02-alltoall-spines-4.svg").exists()


def test_values_stand_where_their_numbers_are() -> None:
    texts = ["0", "5%", "20mbit", "4MB", "10ms", "ecmp", "5.5"]
    assert [number_of(text) for text in texts] == [0, 0.05, 20e6, 4e6, 0.01, None, 5.5]


def test_a_sweep_is_predicted_and_planned_by_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = "sweep={strain.jitter: [0, 10%]}"
    dry = CliRunner().invoke(main, ["run", "quick", "--set", sweep, "--dry-run", "--set", "seeds=[1]"])
    assert dry.exit_code == 0 and "18 runs" in dry.output and "s in all; nothing was built" in dry.output
    done = CliRunner().invoke(
        main, ["predict", "quick", "--set", "sweep={fabric.spines: [2, 4]}", "--set", "seeds=[1]", "--jitter", "0"]
    )
    assert done.exit_code == 0 and "spines=4" in done.output
