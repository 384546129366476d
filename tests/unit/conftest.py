from __future__ import annotations

from pathlib import Path

import pytest
from experiment_files import Load
from synthetic import healthy_run

from experiments.judge.evidence import ReplayEvidence
from experiments.spec.experiment import Experiment, load_experiment


@pytest.fixture(scope="session")
def healthy() -> ReplayEvidence:
    """A measurement in which every invariant holds. Shared: plant faults in copies."""
    return healthy_run()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a text as exp.yaml of the current folder."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str) -> Experiment:
        Path("exp.yaml").write_text(text, encoding="utf-8")
        return load_experiment("exp.yaml", overrides)

    return load
