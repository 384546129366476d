"""The table: per collective and scheme, what was measured; for the terminal in 80 columns, and for the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from experiments.judge.rows import PASS
from experiments.results.neighbours import Beside, beside
from experiments.results.tables import Cell, table_of_collectives
from experiments.theory.prediction import EXPLAINED

EXPLANATION = f"{EXPLAINED[0]:.2f} x the lowest prediction to {EXPLAINED[1]:.2f} x the highest"
"""In which times theory explains a run."""

_MEDIANS = (
    *("cct_over_bound", "congestion_ratio", "emulated_over_predicted"),
    *("step_s", "step_over_bound", "exposed_s", "overlap", "request_p99_s"),
    *("loaded_s", "duration_s", "wire_bytes"),
    *("cct_s", "predicted_cct_s", "bound_s", "size_bytes", "busbw_bps", "utilisation"),
    *("subflows", "cut_flows", "retransmitted_segments", "converged_s"),
)
_MOST = ("drops_packets", "timeouts", "exit_status")  # rare, and a median would hide what happened to one seed


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Sum up runs per traffic and scheme, in the order they first ran.

    Of the runs that can be trusted, the medians over seeds, of drops the most, and how many took another time than
    theory expects (`unexplained`); NaN where there are none, or runs.csv has no such column.
    `silent`: no run sent a byte; `faulty`: something broke in one.
    """
    passed = runs.fidelity == PASS
    numbers = runs.reindex(columns=[*_MEDIANS, *_MOST]).astype(float).where(passed)
    off = passed & (runs.explained == "no" if "explained" in runs else False)
    groups = pd.concat([runs[["run_id", "traffic", "scheme"]], numbers], axis=1).assign(passed=passed, off=off)
    groups["faulty"] = (runs.faults.fillna("") != "") if "faults" in runs else False
    groups["silent"] = runs.wire_bytes == 0 if "wire_bytes" in runs else False
    table = groups.groupby(["traffic", "scheme"], sort=False).agg(
        runs=("run_id", "size"),
        trusted=("passed", "sum"),
        unexplained=("off", "sum"),
        silent=("silent", "all"),
        faulty=("faulty", "any"),
        cct_over_bound_min=("cct_over_bound", "min"),
        cct_over_bound_max=("cct_over_bound", "max"),
        **{name: (name, "median") for name in _MEDIANS},
        **{name: (name, "max") for name in _MOST},
    )
    return table.reset_index().assign(measure="loaded_s" if "loaded_s" in runs else "cct_over_bound")


@dataclass(frozen=True)
class Column:
    """One column of numbers. `cell` takes a row of `summary` that has trusted runs.

    It is shown unless all of `of` is unknown, or nothing but zero where `events` are counted; a measure by which
    schemes are compared always is, where runs have it.
    """

    heading: str
    of: str
    cell: Callable[[Any], str]
    events: bool = False
    measure: bool = False

    @property
    def title(self) -> str:
        """The heading as a page has it, which breaks it where it likes."""
        return self.heading.replace("-\n", "\u00ad").replace("\n", " ")

    def text(self, row: Any) -> str:
        """The cell as people read it; nothing where nothing is known."""
        if not row.trusted:
            return ("sent nothing" if row.silent else "untrusted") if self.measure else "-"
        return "" if pd.isna(getattr(row, self.of)) else self.cell(row)

    def worth_showing(self, lines: pd.DataFrame) -> bool:
        known = lines[self.of].dropna()
        return (
            bool((known > 0).any())
            if self.events
            else len(known) > 0 or (self.measure and lines.measure.eq(self.of).any())
        )


def _cct(row: Any) -> str:
    spread = f" ({_ratio(row.cct_over_bound_min)}-{_ratio(row.cct_over_bound_max)})" if row.trusted > 1 else ""
    return f"{_ratio(row.cct_over_bound)}{spread}"


def _against_prediction(row: Any) -> str:
    return f"{_ratio(row.emulated_over_predicted)}{_doubt(row)}"


def _doubt(row: Any) -> str:
    return "!" if row.unexplained else ""


def _rate(rate_bps: float) -> str:
    """12_300_000 -> '12.3 Mb/s'."""
    size, unit = next((each for each in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if rate_bps >= each[0]), (1, ""))
    return f"{rate_bps / size:.3g} {unit}b/s"


def _ratio(value: float) -> str:
    """Three digits will do: more would not fit the terminal."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _counted(name: str) -> Callable[[Any], str]:
    return lambda row: f"{getattr(row, name):,.0f}"


CCT = Column("CCT / bound", "cct_over_bound", _cct, measure=True)
RATIOS = (
    CCT,
    Column("loaded", "loaded_s", lambda row: f"{row.loaded_s:.2f} s", measure=True),
    Column("program\ntook", "duration_s", lambda row: f"{row.duration_s:.2f} s"),
    Column("congestion\nratio", "congestion_ratio", lambda row: _ratio(row.congestion_ratio)),
    Column("emulated /\npredicted", "emulated_over_predicted", _against_prediction),
)
STEPS = (
    Column("step", "step_s", lambda row: f"{row.step_s:.3g} s"),
    Column("step /\nbound", "step_over_bound", lambda row: _ratio(row.step_over_bound)),
    Column("exposed", "exposed_s", lambda row: f"{row.exposed_s:.3g} s"),
    Column("overlap", "overlap", lambda row: f"{row.overlap:.0%}"),
    Column("requests,\n99 %", "request_p99_s", lambda row: f"{1000 * row.request_p99_s:.3g} ms"),
)
"""Of training jobs: see `experiments.theory.steps`."""

TIMEOUTS = Column("time-outs,\nmost", "timeouts", _counted("timeouts"), events=True)
DROPS = Column("drops,\nmost", "drops_packets", _counted("drops_packets"), events=True)
COUNTS = (
    Column("sent", "wire_bytes", lambda row: f"{row.wire_bytes / 1e6:.2f} MB"),
    Column("connec-\ntions", "subflows", _counted("subflows")),
    Column("flows\ncut", "cut_flows", _counted("cut_flows"), events=True),
    Column("retrans-\nmits", "retransmitted_segments", _counted("retransmitted_segments"), events=True),
    TIMEOUTS,
    DROPS,
    Column("lost\nfor", "converged_s", lambda row: f"{row.converged_s:.3g} s"),
)
"""Of a run: TCP's connections, flows cut, segments sent again; time-outs and packets dropped, of the run with most; for
how long a fault took packets."""

PAGE = (
    Column("CCT", "cct_s", lambda row: f"{row.cct_s:.3g} s"),
    Column("predic-\nted", "predicted_cct_s", lambda row: f"{row.predicted_cct_s:.3g} s{_doubt(row)}"),
    *RATIOS[:-1],
    Column("bus\nbandwidth", "busbw_bps", lambda row: _rate(row.busbw_bps)),
    Column("fullest\nlink", "utilisation", lambda row: f"{row.utilisation:.0%}".replace("%", " %")),
    *STEPS,
    *COUNTS,
    Column("exit\nstatus", "exit_status", _counted("exit_status"), events=True),
)
"""On a page, which has room for seconds and rates: predicted times stand beside measured ones."""


def shown(lines: pd.DataFrame, columns: Sequence[Column] = (*RATIOS, *STEPS, *COUNTS)) -> list[Column]:
    """Those of `columns` that have something to say of `lines`, a frame as `summary` makes it."""
    return [column for column in columns if column.worth_showing(lines)]


def fidelity(row: Any) -> str:
    """How many of a summary's runs can be trusted: '2/3 pass'."""
    return f"{row.trusted}/{row.runs} pass"


def render(runs: pd.DataFrame) -> Group:
    """`summary` for 80 columns, as tables: how close to the best, what steps of training took, and what it took."""
    lines = summary(runs)
    ratios, steps, counts = (shown(lines, columns) for columns in (RATIOS, STEPS, COUNTS))
    mark = f"; ! has a run that is not explained: {EXPLANATION}" if lines.unexplained.any() else ""
    if CCT in ratios:
        title = "CCT / bound and congestion ratio: 1.00 is the best any scheme could reach"
    else:
        title = "how long programs kept the fabric loaded; congestion ratio: 1.00 is the best"
    best = _table(
        title,
        ["scheme", *(column.heading for column in ratios), "fidelity"],
        [(row.traffic, [row.scheme, *_styled(row, ratios), _trust(row)]) for row in lines.itertuples()],
        f"medians (and ranges) of the runs whose fidelity is pass{mark}",
    )
    tables = [best]
    if steps:
        with_steps = [row for row in lines.itertuples() if not pd.isna(row.step_s) or not pd.isna(row.request_p99_s)]
        tables.append(
            _table(
                "Steps of training",
                ["scheme", *(column.heading for column in steps)],
                [(row.traffic, [row.scheme, *_styled(row, steps)]) for row in with_steps],
                "medians of the same runs; exposed: of a step, what the rank with most of it did not compute; overlap: "
                "of the time in which ranks communicate, what they compute meanwhile; requests: 99 of 100 and their "
                "answers were under way for less",
            )
        )
    if jobs := beside(runs):
        tables.append(
            _table(
                "Jobs at the same time",
                ["scheme", *Beside.HEADINGS],
                [(f"{each.job} in {each.traffic}", [each.scheme, *each.cells]) for each in jobs],
                "medians of the same runs; alone: the step of the traffic that is this job alone, where there is one",
            )
        )
    if not counts:
        return Group(*_apart(tables))
    rare = "; of time-outs and drops, the most of any run" if {TIMEOUTS, DROPS} & {*counts} else ""
    took = _table(
        "What it took",
        ["scheme", *(column.heading for column in counts)],
        [(row.traffic, [row.scheme, *_styled(row, counts)]) for row in lines.itertuples()],
        f"medians of the same runs{rare}",
    )
    return Group(*_apart([*tables, took]))


def _apart(tables: Sequence[Table]) -> list[Table | str]:
    return [each for table in tables for each in (table, "")][:-1]


def _table(title: str, headings: Sequence[str], rows: Sequence[tuple[str, list[Cell]]], caption: str) -> Table:
    groups: dict[str, list[list[Cell]]] = {}
    for traffic, cells in rows:
        groups.setdefault(traffic, []).append(cells)
    return table_of_collectives(title, headings, list(groups.items()), caption)


def _styled(row: Any, columns: Sequence[Column]) -> list[Cell]:
    """Yellow is what no theory explains."""
    return [Text(cell, "yellow" if cell.endswith("!") else "") for cell in (column.text(row) for column in columns)]


def _trust(row: Any) -> Text:
    """Green where all runs can be trusted, red where not."""
    return Text(fidelity(row), "green" if row.trusted == row.runs else "red")
