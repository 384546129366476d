"""The answer: a table of what was measured, and one sentence computed from it."""

from __future__ import annotations

import textwrap
from itertools import zip_longest
from typing import Any

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from experiments.judge import PASS

AS_GOOD = 1.05
"""Single path counts as good as spraying if its CCT is at most this many times spraying's, on every traffic."""

_TERMINAL_WIDTH, _GAP, _SHORTEST_NAME = 80, 2, 12


_NUMBERS = ["cct_over_bound", "congestion_ratio", "retransmitted_segments"]


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Per traffic and scheme, in the order they first ran: of how many runs, how many can be trusted, and of those the
    medians (and extremes) over seeds; NaN where there are none."""
    trusted = runs.assign(**{name: runs[name].where(runs.fidelity == PASS) for name in _NUMBERS})
    groups = trusted.groupby(["traffic", "scheme"], sort=False)
    table = groups.agg(
        cct_over_bound=("cct_over_bound", "median"),
        cct_over_bound_min=("cct_over_bound", "min"),
        cct_over_bound_max=("cct_over_bound", "max"),
        congestion_ratio=("congestion_ratio", "median"),
        congestion_ratio_max=("congestion_ratio", "max"),
        retransmitted_segments=("retransmitted_segments", "median"),
        runs=("run_id", "size"),
        trusted=("fidelity", lambda column: int((column == PASS).sum())),
    )
    return table.reset_index()


def cells(row: Any) -> tuple[str, str, str, str]:
    """A row of `summary` as people read it: CCT / bound (its seeds' range), congestion ratio, retransmits, fidelity."""
    passed = f"{row.trusted}/{row.runs} pass"
    if not row.trusted:
        return "untrusted", "-", "-", passed
    spread = f" ({row.cct_over_bound_min:.2f}-{row.cct_over_bound_max:.2f})" if row.trusted > 1 else ""
    return (
        f"{row.cct_over_bound:.2f}{spread}",
        f"{row.congestion_ratio:.2f}",
        f"{row.retransmitted_segments:,.0f}",
        passed,
    )


def render(runs: pd.DataFrame) -> Table:
    """`summary` for 80 columns: no cell wraps, but a long collective's name goes on beside its next schemes."""
    lines = summary(runs)
    shown = [(row.scheme, *cells(row)) for row in lines.itertuples()]
    headings = ("scheme", "CCT / bound", "congestion\nratio", "retrans-\nmits", "fidelity")
    widths = [max(map(len, [*heading.split("\n"), *column])) for heading, *column in zip(headings, *shown, strict=True)]
    table = Table(
        title="CCT / bound and congestion ratio: 1.00 is the best any scheme could reach",
        caption="medians (and ranges) of the runs whose fidelity is pass",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("collective", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "scheme" else "right", no_wrap=True)
    name_width = max(_SHORTEST_NAME, _TERMINAL_WIDTH - sum(widths) - _GAP * len(widths))
    for traffic, rows in lines.groupby("traffic", sort=False).indices.items():
        if len(table.rows):
            table.add_section()
        for name, number in zip_longest(textwrap.wrap(str(traffic), name_width), rows, fillvalue=None):
            known = () if number is None else shown[number]
            distrusted = number is not None and lines.trusted[number] < lines.runs[number]
            styled = [f"[{'red' if distrusted else 'green'}]{known[-1]}"] if known else []
            table.add_row(escape(name or ""), *known[:-1], *styled)
    return table


def verdict(runs: pd.DataFrame) -> str:
    """One sentence from the trusted runs; it says so where they do not allow an answer."""
    if runs.empty:
        return "No verdict: no run has finished."
    trusted = runs[runs.fidelity == PASS]
    if trusted.empty:
        return "No verdict: no run can be trusted (fidelity), so its numbers say nothing about the network."
    left_out = len(runs) - len(trusted)
    caveats = [f"{left_out} of {len(runs)} runs left out: fidelity failed"] if left_out else []
    medians = trusted.groupby(["traffic", "scheme"], sort=False).cct_over_bound.median().unstack(sort=False)
    spray = next((scheme for scheme in ("spray", "spray-random") if scheme in medians), None)
    both = medians[["ethereal", spray]].dropna() if spray and "ethereal" in medians else pd.DataFrame()
    if both.empty:
        best = medians.median().idxmin()
        return (
            f"{best} came closest to the bound (median CCT / bound {medians[best].median():.2f}); "
            f"whether spraying is needed takes trusted runs of both ethereal and spray{_in_brackets(caveats)}."
        )
    medians = medians.loc[both.index]
    if silent := [traffic for traffic in runs.traffic.unique() if traffic not in both.index]:
        caveats.append(f"nothing is known of {', '.join(silent)}")
    ratio = both["ethereal"] / both[spray]
    worst = ratio.idxmax()
    figures = (
        f"median CCT / bound {both['ethereal'].median():.2f} with a single path and minimal splitting, "
        f"{both[spray].median():.2f} with packet spraying"
    )
    if "ecmp" in medians and medians["ecmp"].notna().any():
        figures += f", {medians['ecmp'].median():.2f} with plain ECMP"
    if ratio[worst] <= AS_GOOD:
        return f"No need for packet spraying on this fabric: {figures}{_in_brackets(caveats)}."
    return (
        f"Packet spraying pays on this fabric: {figures}; "
        f"on {worst} the single path took {ratio[worst] - 1:.0%} longer{_in_brackets(caveats)}."
    )


def _in_brackets(caveats: list[str]) -> str:
    return f" ({'; '.join(caveats)})" if caveats else ""
