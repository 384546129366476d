"""Whether it mattered which machine of a cluster a run was made on."""

from __future__ import annotations

import pandas as pd

from experiments.judge.rows import PASS


def effect(runs: pd.DataFrame) -> str:
    """One sentence; "" where the runs are those of one machine.

    Of each machine: how many runs, how many of them can be trusted, and how long these took: the median of their times
    over the median of the same traffic and scheme on all machines, each machine's own median counting once.
    """
    if "machine" not in runs or runs.machine.nunique() < 2:
        return ""
    measure = "cct_over_bound" if "cct_over_bound" in runs else "loaded_s"
    trusted = runs[runs.fidelity == PASS]
    own = trusted.groupby(["traffic", "scheme", "machine"])[measure].median()
    over = own / own.groupby(["traffic", "scheme"]).transform("median")
    shared = own.groupby(["traffic", "scheme"]).transform("size") > 1  # where there is another to compare with
    ratios = over[shared].groupby("machine").median()
    clauses = []
    for machine, mine in runs.groupby("machine"):
        took = f", {ratios[machine]:.2f} x" if pd.notna(ratios.get(machine)) else ""
        clauses.append(f"{machine} {len(mine)} runs, {(mine.fidelity == PASS).sum()} trusted{took}")
    return f"Machines: {'; '.join(clauses)}{' the median of all' if len(ratios) else ''}."
