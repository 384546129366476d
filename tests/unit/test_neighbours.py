"""What a job's neighbour costs it, from rows of runs.csv."""

from __future__ import annotations

from io import StringIO

import pandas as pd
import pytest
from rich.console import Console

from experiments.results.neighbours import beside
from experiments.results.overview import render


def rows(*found: tuple[str, str, float, str | None, str]) -> pd.DataFrame:
    return pd.DataFrame(found, columns=["traffic", "scheme", "step_s", "job_steps", "fidelity"])


def test_a_job_is_held_against_itself_alone_under_the_same_scheme() -> None:
    runs = rows(
        ("a+b", "ecmp", 9.0, "a 6 s; b 9 s", "pass"),
        ("a+b", "ecmp", 9.0, "a 8 s; b 9 s", "pass"),
        ("a+b", "ecmp", 9.0, "a 80 s; b 90 s", "fail"),
        ("a+b", "spray", 5.0, "a 5 s; b 5.5 s", "pass"),
        ("a", "ecmp", 4.0, None, "pass"),
        ("a", "spray", 5.0, "", "pass"),
        ("b", "ecmp", 1.0, None, "fail"),
    )
    found = {(each.scheme, each.job): (each.step_s, each.alone_s) for each in beside(runs)}
    assert found == {
        ("ecmp", "a"): (7.0, 4.0),
        ("ecmp", "b"): (9.0, None),
        ("spray", "a"): (5.0, 5.0),
        ("spray", "b"): (5.5, None),
    }
    first, second = beside(runs)[:2]
    assert first.sentence == "ecmp: a step of a took 7 s beside others, 4 s alone (+75.0 %)."
    assert second.sentence == "ecmp: a step of b took 9 s."
    assert first.cells == ("7 s", "4 s", "+75.0 %") and second.cells == ("9 s", "", "")


def test_no_number_is_cut_where_names_are_long() -> None:
    long = "a-name-of-a-file-that-somebody-gave-it-" * 3
    runs = rows((f"a+{long}", "ecmp", 9.0, f"a 6 s; {long} 9.25 s", "pass"), (long, "ecmp", 5.0, None, "pass"))
    told = runs.assign(run_id=["1", "2"], explained="yes", cct_over_bound=1.0, congestion_ratio=1.0)
    said = StringIO()
    Console(width=80, file=said).print(render(told))
    lines = said.getvalue().splitlines()
    assert any("9.25 s" in line and "+85.0 %" in line for line in lines) and max(map(len, lines)) <= 80


@pytest.mark.parametrize("words", ["", "nothing", "a much s", "a 1e9e9 s; b", None])
def test_what_no_run_has_written_is_nothing(words: str | None) -> None:
    assert beside(rows(("a+b", "ecmp", 1.0, words, "pass"))) == []


def test_runs_without_steps_have_no_neighbours() -> None:
    assert beside(pd.DataFrame({"traffic": ["a"], "fidelity": ["pass"]})) == []
