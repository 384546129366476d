"""Results in Python: frames that say which run they are of, and figures on one's own axes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from results_example import REASON, results_folder

import spraylab
from experiments.results.drawn import Axes

ROOT = Path(__file__).parents[2]
FIGURES = [spraylab.completion_times, spraylab.congestion, spraylab.flow_times, spraylab.timeline]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> spraylab.Loaded:
    path = tmp_path_factory.mktemp("library") / "results"
    results_folder(path, seeds=(1, 2, 3), failed={"002-ecmp-s2"})
    return spraylab.load(path)


def test_every_frame_says_which_run_its_rows_are_of(loaded: spraylab.Loaded) -> None:
    for frame in (loaded.flows, loaded.subflows, loaded.links, loaded.queues):
        named = frame[["run_id", "traffic", "scheme", "seed", "fidelity"]].drop_duplicates()
        expected = loaded.runs[named.columns]
        pd.testing.assert_frame_equal(named.reset_index(drop=True), expected.reset_index(drop=True))


def test_what_is_trusted_and_what_is_not_are_kept_apart(loaded: spraylab.Loaded) -> None:
    assert set(loaded.runs.run_id) - set(loaded.trusted.run_id) == {"002-ecmp-s2"}
    assert set(loaded.runs[loaded.runs.fidelity == "fail"].fidelity_reasons) == {REASON}
    assert loaded.verdict.trusted == len(loaded.trusted) == 17
    assert "17 of 18 runs are trusted" in repr(loaded)


def test_without_faults_there_is_an_empty_frame_with_their_columns(loaded: spraylab.Loaded) -> None:
    assert loaded.faults.empty and {"run_id", "confirmed_s"} <= set(loaded.faults.columns)


def test_a_folder_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(spraylab.ResultsError, match="is no results folder"):
        spraylab.load(tmp_path)


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_draws_on_the_axes_it_is_given_and_on_new_ones(
    draw: Callable[..., Axes], loaded: spraylab.Loaded, tmp_path: Path
) -> None:
    mine = matplotlib.figure.Figure().subplots()
    assert draw(loaded, ax=mine) is mine
    with spraylab.paper():
        new = draw(loaded, "alltoall")
        figure = new.get_figure(root=True)
        assert figure
        figure.savefig(tmp_path / "figure.pdf")
    assert new is not mine
    assert new.get_title(loc="left") == "alltoall"
    assert figure.get_size_inches()[0] == pytest.approx(3.35)
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_a_line_of_flow_times_ends_with_the_slowest_trusted_flow(loaded: spraylab.Loaded) -> None:
    axes = spraylab.flow_times(loaded)
    lines = {str(line.get_label()): line for line in axes.lines}
    trusted = loaded.flows[(loaded.flows.traffic == "permutation") & (loaded.flows.fidelity == "pass")]
    for scheme, flows in trusted.groupby("scheme"):
        times_s, shares = map(np.asarray, lines[str(scheme)].get_data())
        assert times_s[-1] == flows.fct_s.max() and shares[-1] == 1
        assert len(times_s) == len(flows)


def test_link_loads_are_blank_where_no_link_has_more_than_its_share(loaded: spraylab.Loaded) -> None:
    (image,) = spraylab.link_loads(loaded, "spray").images
    assert np.ma.getmaskarray(np.ma.asarray(image.get_array())).all()  # the synthetic run shares ideally


def test_what_is_not_there_is_named_with_what_is(loaded: spraylab.Loaded) -> None:
    with pytest.raises(ValueError, match="no traffic 'ring'; there are 'permutation', 'alltoall'"):
        spraylab.completion_times(loaded, "ring")
    with pytest.raises(ValueError, match="no run of 'mptcp-4'; there are runs of"):
        spraylab.link_loads(loaded, "mptcp-4")
    with pytest.raises(ValueError, match="nothing was swept"):
        spraylab.curve(loaded)


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    results_folder(tmp_path / "results" / "example", seeds=(1, 2, 3))
    notebook = json.loads((ROOT / "experiments/examples/results.ipynb").read_text())
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert "18 of 18 runs are trusted" in ran.stdout
    assert {"completion-times.pdf", "flow-times.pdf", "timeline.png"} <= {path.name for path in tmp_path.iterdir()}
