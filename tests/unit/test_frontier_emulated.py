"""Frontiers by emulation, with a sandbox that is played: what is asked for, kept, gone on with, and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from experiments.cli import main
from experiments.commands import performing
from experiments.judge.rows import FAIL, PASS, Judged
from experiments.results.folder import ResultsFolder
from experiments.runs.loads.replays import Replays

CROSSING = 0.3
AXIS = ["frontier", "small.yaml", "--axis", "strain.jitter.share", "--most-seeds", "15", "--halvings", "2"]


class Played:
    """Runs whose splitting is 20 % behind from CROSSING on; where `untrusted`, every fifth seed tells the contrary."""

    def __init__(self, ends_after: int = 10**6, *, untrusted: bool = False) -> None:
        self.left, self.untrusted = ends_after, untrusted
        self.performed: list[str] = []

    def __call__(self, work: Replays, folder: ResultsFolder, _console: Any) -> list[Any]:
        strain = next(iter(work.experiment.strains), None)
        behind = strain is not None and strain.share > CROSSING  # type: ignore[attr-defined]
        for run in work.runs:
            if run.run_id in set(folder.runs().get("run_id", [])):
                continue
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            lies = self.untrusted and run.seed % 5 == 0
            slow = 1.2 if run.scheme == "ethereal" and behind != lies else 1.0
            fidelity = FAIL if lies else PASS
            row = {
                **work.named(run), "seed": run.seed, "cct_s": slow, "bound_s": 1.0, "cct_over_bound": slow,
                "congestion_ratio": 1.0, "fidelity": fidelity, "fidelity_reasons": "machine: busy" if lies else "",
            }  # fmt: skip
            folder.append(Judged(row, {}))
            self.performed.append(run.run_id)
        return []


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.commands.frontier.become_root", lambda: None)
    (tmp_path / "small.yaml").write_text(
        "fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2, host_rate: 10mbit, fabric_rate: 5mbit}\n"
        "traffic: [{collective: permutation, channels: 3, size: 1MB}]\nstrain: {jitter: {each: flow}}\n"
    )
    return tmp_path


def told(command: list[str], played: Played, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr(performing, "conduct", played)
    return CliRunner().invoke(main, command)


@pytest.mark.parametrize("untrusted", [False, True])
def test_only_trusted_runs_count_and_both_series_are_kept(
    small: Path, monkeypatch: pytest.MonkeyPatch, *, untrusted: bool
) -> None:
    done = told([*AXIS, "--out", "out"], Played(untrusted=untrusted), monkeypatch)
    assert done.exit_code == 0, done.output
    rows = pd.read_csv("out/frontier.csv")
    assert set(rows.how) == {"predicted", "emulated"}
    emulated = rows[rows.how == "emulated"]
    places = emulated["strain.jitter.share"].str.rstrip("%").astype(float) / 100
    assert ((places > CROSSING) == (emulated.ratio > 1.05)).all(), "what cannot be trusted is not asked"
    assert "predicted" in (small / "out/figures/frontier-1.svg").read_text()
    assert "permutation, strain.jitter.share: " in done.output and " emulated; they " in done.output


def test_what_was_interrupted_goes_on_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, first, rest = Played(), Played(ends_after=30), Played()
    told([*AXIS, "--out", "whole"], whole, monkeypatch)
    cut = told([*AXIS, "--out", "cut"], first, monkeypatch)
    assert cut.exit_code != 0 and "go on with: spraylab frontier --resume cut" in cut.output
    done = told(["frontier", "--resume", "cut"], rest, monkeypatch)
    assert done.exit_code == 0, done.output
    assert first.performed + rest.performed == whole.performed
    assert Path("cut/frontier.csv").read_text() == Path("whole/frontier.csv").read_text()


def test_a_dry_run_says_how_long_it_takes_and_builds_nothing(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()
    done = told([*AXIS, "--dry-run", "--out", "out"], played, monkeypatch)
    assert done.exit_code == 0 and " s if runs are as predicted" in done.output and "Predicted: " in done.output
    assert not played.performed and not (small / "out").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["frontier", "small.yaml"], "name the key to search along"),
        (["frontier", "--axis", "strain.jitter"], "name an experiment"),
        (["frontier", "small.yaml", "--resume", "out"], "--resume takes everything from its folder"),
        (["run", "--resume", "out"], "out was begun by frontier: go on with spraylab frontier --resume out"),
        (["frontier", "--resume", "odd"], "manifest.json: frontier is not as spraylab writes it"),
        (["frontier", "--resume", "endless"], "manifest.json: frontier is not as spraylab writes it"),
        (["frontier", "--resume", "plain"], "was not begun by frontier: go on with spraylab run --resume plain"),
    ],
)
def test_what_cannot_be_is_said(command: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told([*AXIS, "--out", "out"], Played(), monkeypatch)
    kept = json.loads(Path("out/manifest.json").read_text())
    endless = {"frontier": {**kept["frontier"], "most_seeds": 10**9}}
    for name, frontier in (("odd", {"frontier": {"axis": 5}}), ("endless", endless), ("plain", {})):
        Path(name).mkdir()
        Path(name, "manifest.json").write_text(json.dumps({**kept, **frontier}))
    Path("plain/manifest.json").write_text(json.dumps({key: kept[key] for key in kept if key != "frontier"}))
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2 and says in done.output and "Traceback" not in done.output
