"""The table: per collective and scheme, what was measured; for the terminal in 80 columns, and for the page."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from experiments.judge import PASS
from experiments.verdict import EXPLAINED, explained

_TERMINAL_WIDTH, _GAP, _SHORTEST_NAME = 80, 2, 12

_MEDIANS = (
    *("cct_over_bound", "congestion_ratio", "emulated_over_predicted"),
    *("subflows", "cut_flows", "retransmitted_segments"),
)
_MOST = ("drops_packets", "retransmission_timeouts")  # rare, and a median would hide what happened to one seed


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Per traffic and scheme, in the order they first ran: of how many runs, how many can be trusted, and of those the
    medians over seeds, of drops and time-outs the most; NaN where there are none, or runs.csv has no such column."""
    passed = runs.fidelity == PASS
    numbers = runs.reindex(columns=[*_MEDIANS, *_MOST]).astype(float).where(passed)
    groups = pd.concat([runs[["run_id", "traffic", "scheme"]], numbers], axis=1).assign(passed=passed)
    table = groups.groupby(["traffic", "scheme"], sort=False).agg(
        runs=("run_id", "size"),
        trusted=("passed", "sum"),
        cct_over_bound_min=("cct_over_bound", "min"),
        cct_over_bound_max=("cct_over_bound", "max"),
        **{name: (name, "median") for name in _MEDIANS},
        **{name: (name, "max") for name in _MOST},
    )
    return table.reset_index()


@dataclass(frozen=True)
class Column:
    """One column of numbers. `cell` takes a row of `summary` that has trusted runs; `of` is shown unless all that its
    column holds is unknown, or nothing but zero where `events` are counted."""

    heading: str
    of: str
    cell: Callable[[Any], str]
    events: bool = False

    def text(self, row: Any) -> str:
        """The cell as people read it; nothing where nothing is known."""
        if not row.trusted:
            return "untrusted" if self.of == "cct_over_bound" else "-"
        return "" if pd.isna(getattr(row, self.of)) else self.cell(row)

    def worth_showing(self, lines: pd.DataFrame) -> bool:
        known = lines[self.of].dropna()
        return bool((known > 0).any()) if self.events else len(known) > 0


def _cct(row: Any) -> str:
    spread = f" ({row.cct_over_bound_min:.2f}-{row.cct_over_bound_max:.2f})" if row.trusted > 1 else ""
    return f"{row.cct_over_bound:.2f}{spread}"


def _against_prediction(row: Any) -> str:
    mark = "" if explained(row.emulated_over_predicted) else "!"
    return f"{row.emulated_over_predicted:.2f}{mark}"


def _counted(name: str) -> Callable[[Any], str]:
    return lambda row: f"{getattr(row, name):,.0f}"


RATIOS = (
    Column("CCT / bound", "cct_over_bound", _cct),
    Column("congestion\nratio", "congestion_ratio", lambda row: f"{row.congestion_ratio:.2f}"),
    Column("emulated /\npredicted", "emulated_over_predicted", _against_prediction),
)
COUNTS = (
    Column("connec-\ntions", "subflows", _counted("subflows")),
    Column("flows\ncut", "cut_flows", _counted("cut_flows"), events=True),
    Column("retrans-\nmits", "retransmitted_segments", _counted("retransmitted_segments"), events=True),
    Column("drops,\nmost", "drops_packets", _counted("drops_packets"), events=True),
    Column("time-outs,\nmost", "retransmission_timeouts", _counted("retransmission_timeouts"), events=True),
)
"""Of a run: TCP's retransmitted segments, packets dropped, retransmission time-outs; of the last two, the run with most."""


def shown(lines: pd.DataFrame, columns: Sequence[Column] = (*RATIOS, *COUNTS)) -> list[Column]:
    """Those of `columns` that have something to say of `lines`, a frame as `summary` makes it."""
    return [column for column in columns if column.worth_showing(lines)]


def fidelity(row: Any) -> str:
    """How many of a summary's runs can be trusted: '2/3 pass'."""
    return f"{row.trusted}/{row.runs} pass"


def render(runs: pd.DataFrame) -> Group:
    """`summary` for 80 columns, as two tables: how close to the best, and what it took.

    No cell wraps, but a long collective's name goes on beside its next schemes.
    """
    lines = summary(runs)
    ratios, counts = shown(lines, RATIOS), shown(lines, COUNTS)
    unexplained = any(not explained(value) for value in lines.emulated_over_predicted)
    mark = f"; ! is not within {EXPLAINED[0]:.2f} to {EXPLAINED[1]:.2f}" if unexplained else ""
    best = _table(lines, ratios, with_fidelity=True)
    best.title = "CCT / bound and congestion ratio: 1.00 is the best any scheme could reach"
    best.caption = f"medians (and ranges) of the runs whose fidelity is pass{mark}"
    if not counts:
        return Group(best)
    took = _table(lines, counts, with_fidelity=False)
    took.title = "What it took"
    took.caption = "medians of the same runs" + (
        "; of what is rare, the most of any run" if any("most" in column.heading for column in counts) else ""
    )
    return Group(best, "", took)


def _table(lines: pd.DataFrame, columns: Sequence[Column], with_fidelity: bool) -> Table:
    rows = [[row.scheme, *(column.text(row) for column in columns)] for row in lines.itertuples()]
    headings = ["scheme", *(column.heading for column in columns)]
    if with_fidelity:
        headings.append("fidelity")
        rows = [[*cells, fidelity(row)] for cells, row in zip(rows, lines.itertuples(), strict=True)]
    widths = [max(map(len, [*heading.split("\n"), *column])) for heading, *column in zip(headings, *rows, strict=True)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("collective", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "scheme" else "right", no_wrap=True)
    name_width = max(_SHORTEST_NAME, _TERMINAL_WIDTH - sum(widths) - _GAP * len(widths))
    for traffic, numbers in lines.groupby("traffic", sort=False).indices.items():
        if len(table.rows):
            table.add_section()
        for name, number in zip_longest(textwrap.wrap(str(traffic), name_width), numbers, fillvalue=None):
            table.add_row(escape(name or ""), *(_styled(rows[number], lines, number) if number is not None else []))
    return table


def _styled(cells: Sequence[str], lines: pd.DataFrame, number: int) -> list[str]:
    """Green where all runs can be trusted, red where not, yellow what no theory explains."""
    trust = "green" if lines.trusted[number] == lines.runs[number] else "red"
    colours = {"pass": trust, "!": "yellow"}
    return [
        next((f"[{colour}]{cell}" for end, colour in colours.items() if cell.endswith(end)), cell) for cell in cells
    ]
