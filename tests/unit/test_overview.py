"""The table shows every number that can be trusted, whole, in 80 columns."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from experiments.results.overview import render, summary

SCHEMES = ("ecmp", "spray", "ethereal")


def runs_of(
    traffic: str = "perm",
    schemes: tuple[str, ...] = SCHEMES,
    ratios: tuple[float, ...] = (1.5, 1.9, 2.3),
    **columns: Any,
) -> pd.DataFrame:
    """A run for every scheme and ratio, which can be trusted unless `columns` say otherwise."""
    return pd.DataFrame(
        {
            "run_id": f"{place}-{scheme}-s{seed}",
            "traffic": traffic,
            "scheme": scheme,
            "seed": seed,
            "cct_over_bound": ratio,
            "congestion_ratio": 1.0 + seed,
            "emulated_over_predicted": 1.0,
            "explained": "yes",
            "subflows": 64,
            "cut_flows": 0,
            "retransmitted_segments": 10 * seed,
            "drops_packets": 0,
            "fidelity": "pass",
            **columns,
        }
        for place, scheme in enumerate(schemes)
        for seed, ratio in enumerate(ratios, start=1)
    )


def shown(runs: pd.DataFrame, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(render(runs))
    return captured.get()


def test_a_row_for_each_traffic_and_scheme_in_the_order_they_ran() -> None:
    table = summary(pd.concat([runs_of("perm"), runs_of("alltoall")]))
    assert [*zip(table.traffic, table.scheme, strict=True)] == [(t, s) for t in ("perm", "alltoall") for s in SCHEMES]
    row = table.iloc[0]
    assert (row.cct_over_bound, row.cct_over_bound_min, row.cct_over_bound_max) == pytest.approx((1.9, 1.5, 2.3))
    assert (row.runs, row.trusted, row.retransmitted_segments, row.unexplained) == (3, 3, 20, 0)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.floats(1.0, 3.0), min_size=1, max_size=5), st.lists(st.floats(1.0, 90.0), min_size=1, max_size=5))
def test_what_cannot_be_trusted_moves_no_number(passed: list[float], failed: list[float]) -> None:
    """It is only counted; whatever it measured, the line is that of the others alone."""
    good = runs_of(schemes=("ecmp",), ratios=tuple(passed))
    bad = runs_of(schemes=("ecmp",), ratios=tuple(failed), fidelity="fail", drops_packets=9, explained="no")
    alone, among = summary(good).iloc[0], summary(pd.concat([good, bad])).iloc[0]
    assert (among.runs, among.trusted) == (len(passed) + len(failed), len(passed))
    pd.testing.assert_series_equal(among.drop("runs"), alone.drop("runs"))


def test_every_number_and_what_can_be_trusted() -> None:
    lines = shown(pd.concat([runs_of(), runs_of(schemes=("ecmp",), ratios=(2.9,), fidelity="fail")])).splitlines()
    best, took = [line for line in lines if "ecmp" in line]
    assert best.split() == ["perm", "ecmp", "1.90", "(1.50-2.30)", "3.00", "1.00", "3/4", "pass"]
    assert took.split() == ["perm", "ecmp", "64", "20"]
    assert sum("3/3 pass" in line for line in lines) == 2


def test_nothing_is_cut_with_long_names_and_large_numbers() -> None:
    name = "allreduce-double-binary-tree-channels-16-size-4000000B-window-8-order-rotated.cm"
    many = {
        "subflows": 1_234_567,
        "cut_flows": 123_456,
        "retransmitted_segments": 7_654_321,
        "drops_packets": 9_876_543,
    }
    runs = runs_of(name, (*SCHEMES, "spray-random", "subflow-16"), (10.5, 19.25, 23.75), explained="no", **many)
    lines = shown(runs).splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in "\n".join(lines)
    for number in ("19.2 (10.5-23.8)", "1.00!", "1,234,567", "123,456", "7,654,321", "9,876,543", "3/3 pass"):
        assert sum(number in line for line in lines) == 5, number
    assert "".join(line.split()[0] for line in lines if "%" not in line and line[:5].strip()).count("order") == 2


def test_what_is_not_explained_is_marked_and_the_mark_explained() -> None:
    assert "!" not in shown(runs_of())
    off = runs_of()
    off.loc[off.run_id == "1-spray-s2", "explained"] = "no"
    text = shown(off)
    [spray] = [line for line in text.splitlines() if "spray" in line and "pass" in line]
    assert "1.00!" in spray and text.count("1.00!") == 1
    assert "0.95 x the lowest prediction" in " ".join(text.split())


def test_columns_that_say_nothing_are_not_shown() -> None:
    text = shown(runs_of().drop(columns=["emulated_over_predicted", "explained", "cut_flows"]))
    assert "predicted" not in text and "cut" not in text and "drops" not in text and "retrans" in text
    assert "drops" in shown(runs_of(drops_packets=1))


def test_programs_are_shown_by_how_long_they_kept_the_fabric_loaded() -> None:
    runs = runs_of().drop(columns=["cct_over_bound", "emulated_over_predicted", "explained", "subflows", "cut_flows"])
    text = shown(runs.assign(loaded_s=2.5, duration_s=3.25, wire_bytes=4_500_000))
    assert text.count("2.50 s") == text.count("3.25 s") == text.count("4.50 MB") == len(SCHEMES)
    assert "CCT / bound" not in text and "loaded" in text


def test_where_no_run_can_be_trusted_no_number_is_shown() -> None:
    text = shown(pd.concat([runs_of(), runs_of("ring", ("spray",), (1.23, 1.24), fidelity="fail")]))
    [best, took] = [line.split() for line in text.splitlines() if "ring" in line]
    assert best == ["ring", "spray", "untrusted", "-", "-", "0/2", "pass"] and took == ["ring", "spray", "-", "-"]
    assert "untrusted" in shown(runs_of(fidelity="fail")), "nor where none can be at all"


def test_names_are_shown_as_they_are() -> None:
    assert "[red]odd[/red] file.cm" in shown(runs_of("[red]odd[/red] file.cm"), width=140)


def test_ratios_have_three_digits_and_a_single_seed_no_range() -> None:
    text = shown(pd.concat([runs_of("one", ratios=(9.994,)), runs_of("two", ratios=(10.0, 12.0))]))
    assert "9.99 " in text and "9.99 (" not in text
    assert "11.0 (10.0-12.0)" in text


def test_the_slowest_requests_are_shown_in_milliseconds() -> None:
    assert "124 ms" in shown(runs_of(request_p99_s=0.1244))
