"""The answer: a table of what was measured, and one sentence computed from it."""

from __future__ import annotations

import pandas as pd
from rich.markup import escape
from rich.table import Table

from experiments.judge import PASS

AS_GOOD = 1.05
"""Single path counts as good as spraying if its CCT is at most this many times spraying's, on every traffic."""


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Per traffic and scheme, in the order they first ran: medians over seeds, and how many runs can be trusted."""
    groups = runs.groupby(["traffic", "scheme"], sort=False)
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


def render(runs: pd.DataFrame) -> Table:
    table = Table(title="CCT / bound and congestion ratio: 1.00 is the best any scheme could reach")
    for name, justify in (
        ("collective", "left"),
        ("scheme", "left"),
        ("CCT / bound", "right"),
        ("min - max", "right"),
        ("congestion ratio", "right"),
        ("retransmits", "right"),
        ("fidelity", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    previous = None
    for row in summary(runs).itertuples():
        if previous is not None and row.traffic != previous:
            table.add_section()
        trusted = row.trusted == row.runs
        table.add_row(
            escape(row.traffic) if row.traffic != previous else "",
            row.scheme,
            f"{row.cct_over_bound:.2f}",
            f"{row.cct_over_bound_min:.2f} - {row.cct_over_bound_max:.2f}",
            f"{row.congestion_ratio:.2f}",
            f"{row.retransmitted_segments:.0f}",
            f"[{'green' if trusted else 'red'}]{row.trusted}/{row.runs} pass",
        )
        previous = row.traffic
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
