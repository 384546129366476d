"""Frontiers: along any key, by theory in seconds, with a sentence for whatever is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from click.testing import CliRunner

from experiments.cli import main
from experiments.runs.frontier import Axis, Frontier, Times, frontiers, predicted
from experiments.runs.loads.replays import Replays
from experiments.spec.experiment import Experiment, restore_experiment
from experiments.spec.messages import SpecError
from experiments.theory.crossing import Crossing

BASE: dict[str, Any] = {
    "name": "small",
    "fabric": {"leaves": 2, "spines": 2, "hosts_per_leaf": 2, "host_rate": "10mbit"},
    "traffic": [{"collective": "alltoall", "size": "1MB"}, {"collective": "permutation", "channels": 3}],
    "strain": {"jitter": {"each": "flow"}},
}
JITTER = Axis("strain.jitter.share", 0, 100, "%")


def experiment(**changes: Any) -> Experiment:
    return restore_experiment({**BASE, **changes}, "test")


def planted(place: float, seen: list[str]) -> Any:
    """Splitting that is 20 % behind from `place` of the axis on."""

    def measure(work: Replays) -> Times:
        seen.extend(run.run_id for run in work.runs)
        share = next(iter(work.experiment.strains)).share if work.experiment.strains else 0.0  # type: ignore[attr-defined]
        slow = 1.2 if share > place else 1.0
        return {(run.seed, run.scheme): slow if run.scheme == "ethereal" else 1.0 for run in work.runs}

    return measure


def test_a_planted_frontier_is_found_for_every_traffic_and_no_run_has_the_id_of_another() -> None:
    seen: list[str] = []
    found = list(frontiers(experiment(), JITTER, 0.05, planted(0.3, seen), most_seeds=20))
    assert [each.traffic for each in found] == ["alltoall", "permutation"]
    for each in found:
        assert each.found.low is not None and each.found.high is not None
        assert each.found.low <= 30 <= each.found.high and each.found.high - each.found.low < 1
        assert str(each).startswith(f"{each.traffic}: ethereal falls more than 5 % behind spray between 29.")
    assert len(seen) == len(set(seen)), "the folder that keeps them would take two for one"


def test_the_experiments_own_schemes_are_compared() -> None:
    compared = experiment(schemes=["spray-random", "ethereal"])
    one = next(iter(frontiers(compared, JITTER, 0.05, planted(2, []), most_seeds=11)))
    assert (one.splitting, one.spraying) == ("ethereal", "spray-random")
    assert str(one) == (
        "alltoall: ethereal stays within 5 % of spray-random up to 100% of strain.jitter.share "
        "(95 % confidence, 55 pairs of runs)."
    )


def test_what_nobody_could_tell_is_said() -> None:
    unclear = next(iter(frontiers(experiment(), JITTER, 0.05, lambda work: {}, most_seeds=11)))
    assert str(unclear).endswith("but at 0%, 25%, 50%, 75%, 100% of strain.jitter.share seeds do not tell.")
    at_once = Frontier("ring", "ethereal", "spray", 0.1, JITTER, Crossing(None, 0.0, 0.95, ()))
    assert "falls more than 10 % behind spray at 0% of strain.jitter.share or before" in str(at_once)


def test_theory_gives_what_predictions_give() -> None:
    from experiments.runs.predict import predict

    work = Replays(experiment(strain={"jitter": {"share": "40%", "each": "flow"}}, seeds=[1, 2]))
    rows = predict(work.experiment, 0.0)
    expected = {(row.seed, row.scheme): row.predicted_cct_s for row in rows[rows.traffic == "permutation"].itertuples()}
    work.runs = [run for run in work.runs if run.traffic == 1]
    assert predicted(work) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("from_", "to", "low", "high", "half"),
    [
        ("0", "100%", 0, 100, "50%"),
        ("5%", "10%", 5, 10, "7.5%"),
        ("1", "5", 1, 5, "3"),
        ("2.5mbit", "10 mbit", 2.5, 10, "6.25mbit"),
    ],
)
def test_an_axis_is_written_in_its_unit(from_: str, to: str, low: float, high: float, half: str) -> None:
    axis = Axis.of("key", from_, to)
    assert (axis.low, axis.high, axis.written((low + high) / 2)) == (low, high, half)


@pytest.mark.parametrize(
    ("axis", "from_", "to", "says"),
    [
        ("strain.jitter", "0", "x", "'x' is not a number with or without a unit"),
        ("strain.jitter", "5", "10%", "5 and 10% have different units"),
        ("strain.jitter", "10%", "5%", "from 10% to 5% there is nothing"),
        ("strain.jiter", "0", "100%", "unknown key 'jiter'; did you mean 'jitter'?"),
        ("strain.jitter", "0", "10mbit", "'0mbit' is not a share"),
        ("fabric.spines", "2", "100", "fabric.spines: 100 is too large"),
        ("strain.stragglers.slow", "0", "5", "0 is not a number from 1 to 100"),
    ],
)
def test_a_wrong_axis_is_one_sentence(axis: str, from_: str, to: str, says: str) -> None:
    command = ["frontier", "quick", "--predict", "--axis", axis, "--from", from_, "--to", to]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2 and says in done.output
    assert len(done.output.splitlines()) == 1 and "Traceback" not in done.output


def test_a_sweep_has_no_frontier() -> None:
    with pytest.raises(SpecError, match="sweep: a frontier has an axis of its own"):
        list(frontiers(experiment(sweep={"fabric.spines": [2]}), JITTER, 0.05, lambda work: {}, most_seeds=11))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(
        "fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2, host_rate: 10mbit, fabric_rate: 5mbit}\n"
        "traffic: [{collective: permutation, channels: 3, size: 1MB}]\nstrain: {jitter: {each: flow}}\n"
    )
    return tmp_path


def test_the_command_answers_and_writes_rows_and_figures(small: Path) -> None:
    command = ["frontier", "small.yaml", "--predict", "--axis", "strain.jitter.share", "--csv", "rows.csv"]
    done = CliRunner().invoke(main, [*command, "--figures", ".", "--most-seeds", "20"])
    assert done.exit_code == 0, done.output
    assert "Predicted: permutation: " in done.output
    rows = pd.read_csv("rows.csv")
    assert set(rows.side) <= {"within", "behind", "unclear"} and (rows.ratio > 0.5).all()
    ElementTree.parse(small / "frontier-1.svg")
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0 and "Predicted: permutation: " in again.output
