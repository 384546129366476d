"""The sentence follows from the numbers, and says so where they do not allow one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from experiments.verdict import AS_GOOD, cells, render, summary, verdict

Planted = dict[tuple[str, str], Sequence[float]]


def planted(ratios: Planted, failed: Planted | None = None) -> pd.DataFrame:
    """Runs with CCT / bound by (traffic, scheme), a seed each; `failed` ones cannot be trusted."""
    rows = []
    for fidelity, group in (("pass", ratios), ("fail", failed or {})):
        for (traffic, scheme), values in group.items():
            for seed, value in enumerate(values):
                rows.append(
                    {
                        "run_id": f"{traffic}-{scheme}-{seed}-{fidelity}",
                        "traffic": traffic,
                        "scheme": scheme,
                        "seed": seed,
                        "cct_over_bound": value,
                        "congestion_ratio": 1.0 + seed,
                        "retransmitted_segments": 10 * seed,
                        "fidelity": fidelity,
                    }
                )
    return pd.DataFrame(rows)


GOOD: Planted = {
    ("perm", "ecmp"): [1.5, 1.9, 2.3],
    ("perm", "spray"): [1.10, 1.12, 1.14],
    ("perm", "ethereal"): [1.04, 1.05, 1.06],
    ("alltoall", "ecmp"): [1.4, 1.5, 1.6],
    ("alltoall", "spray"): [1.10, 1.10, 1.11],
    ("alltoall", "ethereal"): [1.11, 1.12, 1.13],
}


def test_single_path_as_good_on_every_traffic() -> None:
    sentence = verdict(planted(GOOD))
    assert sentence.startswith("No need for packet spraying")
    assert re.search(r"1\.0[89] with a single path.*1\.11 with packet spraying.*1\.70 with plain ECMP\.$", sentence)


def test_one_traffic_that_takes_longer_is_enough() -> None:
    sentence = verdict(planted({**GOOD, ("alltoall", "ethereal"): [1.32, 1.32, 9.9]}))
    assert sentence.startswith("Packet spraying pays")
    assert "on alltoall the single path took 20% longer" in sentence


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(1.0, 3.0), st.floats(1.0, 3.0)), min_size=1, max_size=5))
def test_need_is_decided_by_the_worst_traffic(pairs: list[tuple[float, float]]) -> None:
    ratios: Planted = {}
    for number, (ethereal, spray) in enumerate(pairs):
        ratios[f"t{number}", "spray"], ratios[f"t{number}", "ethereal"] = [spray], [ethereal]
    worst = max(range(len(pairs)), key=lambda number: pairs[number][0] / pairs[number][1])
    needless = pairs[worst][0] / pairs[worst][1] <= AS_GOOD
    sentence = verdict(planted(ratios))
    assert sentence.startswith("No need" if needless else "Packet spraying pays")
    assert needless or f"on t{worst} " in sentence


def test_one_bad_seed_decides_nothing() -> None:
    """Medians over seeds do."""
    assert verdict(planted({**GOOD, ("perm", "ethereal"): [1.05, 1.06, 9.0]})).startswith("No need")


def test_runs_that_cannot_be_trusted_are_left_out_and_counted() -> None:
    sentence = verdict(planted(GOOD, failed={("perm", "ethereal"): [9.0] * 7}))
    assert sentence.startswith("No need") and "7 of 25 runs left out" in sentence
    assert "left out" not in verdict(planted(GOOD))


def test_nothing_trusted_is_no_verdict() -> None:
    assert verdict(planted({}, failed=GOOD)).startswith("No verdict: no run can be trusted")


def test_nothing_run_is_no_verdict() -> None:
    assert verdict(pd.DataFrame()) == "No verdict: no run has finished."


def test_traffic_that_was_not_compared_is_named() -> None:
    """Else a verdict on one traffic would pass for one on all."""
    rest = {key: value for key, value in GOOD.items() if key != ("alltoall", "spray")}
    sentence = verdict(planted(rest, failed={("alltoall", "spray"): [1.0]}))
    assert sentence.startswith("No need") and "nothing is known of alltoall" in sentence
    assert "1.05 with a single path" in sentence and "1.90 with plain ECMP" in sentence, "of what was compared"


@pytest.mark.parametrize("scheme", ["ecmp", "spray", "ethereal", "subflow-4"])
def test_one_scheme_alone_answers_nothing(scheme: str) -> None:
    sentence = verdict(planted({("perm", scheme): [1.5, 1.6]}))
    assert "1.55" in sentence and scheme in sentence
    assert "takes trusted runs of both ethereal and spray" in sentence
    assert "No need" not in sentence and "pays" not in sentence


def test_random_spraying_stands_in_for_round_robin() -> None:
    ratios = {(traffic, scheme.replace("spray", "spray-random")): value for (traffic, scheme), value in GOOD.items()}
    assert verdict(planted(ratios)).startswith("No need")


def test_schemes_that_share_no_traffic_are_not_compared() -> None:
    sentence = verdict(planted({("perm", "ethereal"): [1.0], ("alltoall", "spray"): [1.0]}))
    assert "takes trusted runs of both" in sentence


@pytest.mark.parametrize(
    "runs", [GOOD, {("perm", "ecmp"): [1.5]}, {("perm", "ethereal"): [1.0], ("perm", "spray"): [1.0]}]
)
def test_it_is_one_sentence(runs: Planted) -> None:
    for sentence in (verdict(planted(runs)), verdict(planted(runs, failed=runs))):
        assert sentence.endswith(".") and "\n" not in sentence and "nan" not in sentence


# The table


def test_summary_has_a_row_for_each_traffic_and_scheme_in_the_order_they_ran() -> None:
    table = summary(planted(GOOD, failed={("perm", "ecmp"): [3.1]}))
    assert list(zip(table.traffic, table.scheme, strict=True)) == list(GOOD)
    row = table.iloc[0]
    assert (row.cct_over_bound, row.cct_over_bound_min, row.cct_over_bound_max) == pytest.approx((1.9, 1.5, 2.3))
    assert (row.runs, row.trusted) == (4, 3)
    assert list(table.trusted[1:]) == [3] * 5
    assert (table.congestion_ratio_max[1], table.retransmitted_segments[1]) == (3.0, 10)


def test_table_shows_every_number_and_what_can_be_trusted() -> None:
    console = Console(width=140, color_system=None)
    with console.capture() as shown:
        console.print(render(planted(GOOD, failed={("perm", "ecmp"): [2.9]})))
    lines = shown.get().splitlines()
    [ecmp] = [line for line in lines if "ecmp" in line and "perm" in line]
    assert "1.90" in ecmp and "(1.50-2.30)" in ecmp and "3/4 pass" in ecmp
    assert sum("3/3 pass" in line for line in lines) == 5
    assert sum("perm" in line for line in lines) == 1, "a traffic's name is shown once"


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(1.0, 3.0), min_size=1, max_size=5), st.lists(st.floats(1.0, 90.0), min_size=1, max_size=5)
)
def test_what_cannot_be_trusted_moves_no_number(passed: list[float], failed: list[float]) -> None:
    """It is only counted; whatever it measured, the line is that of the others alone."""
    alone = summary(planted({("perm", "ecmp"): passed})).iloc[0]
    among = summary(planted({("perm", "ecmp"): passed}, failed={("perm", "ecmp"): failed})).iloc[0]
    assert (among.runs, among.trusted) == (len(passed) + len(failed), len(passed))
    assert cells(among)[:3] == cells(alone)[:3]


def test_where_no_run_can_be_trusted_no_number_is_shown() -> None:
    console = Console(width=140, color_system=None)
    with console.capture() as shown:
        console.print(render(planted(GOOD, failed={("ring", "spray"): [1.23, 1.24]})))
    [line] = [line for line in shown.get().splitlines() if "ring" in line]
    assert line.split() == ["ring", "spray", "untrusted", "-", "-", "0/2", "pass"]


def test_labels_are_shown_as_they_are() -> None:
    console = Console(width=140, color_system=None)
    with console.capture() as shown:
        console.print(render(planted({("[red]odd[/red] file.cm", "ecmp"): [1.0]})))
    assert "[red]odd[/red] file.cm" in shown.get()
