"""What theory says of every run of an experiment, and how far an emulation of it came from that.

Small enough traffic goes through the fluid model (`experiments.theory.fluid`); beyond that, congestion alone is counted
(`experiments.theory.counting`) and the times are left empty.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.table import Table

from experiments.judge.rows import PASS
from experiments.results.folder import ResultsError
from experiments.results.tables import table_of_collectives
from experiments.results.verdict import Verdict, decide
from experiments.runs.loads.replays import Replays
from experiments.runs.loads.sweeps import works_of
from experiments.runs.plan import Run
from experiments.spec.experiment import Experiment
from experiments.theory.counting import count_traffic
from experiments.theory.fluid import FluidResult
from experiments.theory.loads import choose_spines, congestion_ratio, link_bytes
from experiments.theory.prediction import (
    JITTER,
    MAX_JITTERED_PIECES,
    MAX_PIECES,
    Predicted,
    agreement,
    predicted_columns,
    with_range,
    without_jitter,
)
from experiments.theory.steps import COLUMNS, step_columns
from traffic.collectives import Outline
from traffic.placement import place
from traffic.plan import TrafficPlan
from traffic.schedule import Schedule
from traffic.schemes import scheme_of

MAX_HOSTS, MAX_FLOWS = 1024, 300_000
"""Beyond these, traffic is counted where it can be: the fluid model would take too long."""

REPEATS = 10
"""How often the sizes of a run are varied to find its range."""

_SAME_RUN = [
    "traffic", "scheme", "seed", "collective", "algorithm", "channels", "ranks", "size_bytes", "leaves", "spines",
    "hosts_per_leaf", "host_rate_bps", "fabric_rate_bps", "uneven", "mtu_bytes", "strain",
]  # fmt: skip


_WIDE = 1.05
"""A prediction's range is shown where its highest is more than so many times its lowest."""

_MOST_NAMED = 3


def predict(experiment: Experiment, jitter: float | None = None) -> pd.DataFrame:
    """One row a run: the columns of runs.csv that apply, and `predicted_cct_over_bound`.

    `predicted_low_s` and `predicted_high_s` are the range when sizes vary by the share `jitter`; without it, by JITTER
    where that does not take long. algbw, busbw and FCT are those of the exact prediction. Times and rates are empty
    where only congestion was counted.
    """
    return pd.DataFrame(sorted(predictions(experiment, jitter), key=lambda row: row["run_id"]))


def predictions(experiment: Experiment, jitter: float | None = None) -> Iterator[dict[str, Any]]:
    """The rows of `predict` one by one, as they are found: not in the order of `plan_runs`."""
    works = works_of(experiment)
    for work in works:
        for runs in _alike(work):
            if not _unlisted(work, runs[0]):
                work.check_listable(runs[0])
    for work in works:
        for runs in _alike(work):
            unlisted = _unlisted(work, runs[0])
            yield from _from_counts(work, runs, unlisted) if unlisted else _from_flows(work, runs, jitter)


def predicted_verdict(predicted: pd.DataFrame) -> Verdict:
    """What a frame of `predict` would answer, were it measured; where it has no times, by congestion."""
    over_bound = predicted.predicted_cct_over_bound.astype(float).fillna(predicted.congestion_ratio)
    return decide(predicted.assign(cct_over_bound=over_bound, fidelity=PASS).drop(columns="explained", errors="ignore"))


def beside_results(predicted: pd.DataFrame, runs: pd.DataFrame, where: str = "the results") -> pd.DataFrame:
    """`predicted`, and beside it what was emulated: `cct_s`, `measured_congestion_ratio` and `fidelity` of `runs`.

    `runs` is the runs.csv of `where`. A run is the same if its traffic, scheme, seed and fabric are; those that were
    not emulated stay empty. `emulated_over_predicted` is 1 where the emulation did as theory says, and `explained` says
    whether it is near enough. Raises ResultsError where no run is the same.
    """
    columns = [*_SAME_RUN, "cct_s", "congestion_ratio", "fidelity"]
    measured = _unstrained_too(runs).reindex(columns=columns)
    measured = measured.rename(columns={"congestion_ratio": "measured_congestion_ratio"})
    keys = dict.fromkeys(_SAME_RUN, object)  # another version's results may lack some, and pandas joins no text to NaN
    last = measured.drop_duplicates(_SAME_RUN, keep="last").astype(keys)
    joined = _unstrained_too(predicted).merge(last, how="left", on=_SAME_RUN)
    if joined.cct_s.isna().all():
        raise ResultsError(f"{where} holds no run of this experiment: {_difference(predicted, measured)}")
    ranges = joined[["predicted_cct_s", "predicted_low_s", "predicted_high_s"]].itertuples(index=False)
    agreements = [agreement(cct_s, Predicted(*times_s)) for cct_s, times_s in zip(joined.cct_s, ranges, strict=True)]
    if "strain" not in predicted:
        joined = joined.drop(columns="strain")
    return pd.concat([joined, pd.DataFrame(agreements)], axis=1)


def _unstrained_too(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the columns `strain` and `uneven`, empty where there is none: rows without any need not have them."""
    return rows.assign(**{key: rows[key].fillna("") if key in rows else "" for key in ("strain", "uneven")})


def _difference(predicted: pd.DataFrame, measured: pd.DataFrame) -> str:
    """In which respects no run there is like any here."""
    if measured.empty:
        return "none has finished"
    predicted, differing = _unstrained_too(predicted), []
    for column in _SAME_RUN:
        here, there = predicted[column].unique().tolist(), measured[column].unique().tolist()
        if measured[column].notna().any() and not set(here) & set(there):
            differing.append(f"{column} is {_named(there)} there and {_named(here)} here")
        if column == "traffic" and differing:
            return differing[0]
    return "; ".join(differing[:_MOST_NAMED]) or "no run there has the traffic, scheme, seed and fabric of one here"


def _named(values: Sequence[object]) -> str:
    more = f" and {len(values) - _MOST_NAMED} more" if len(values) > _MOST_NAMED else ""
    return ", ".join(map(str, values[:_MOST_NAMED])) + more


def prediction_table(frame: pd.DataFrame) -> Table:
    """Per traffic and scheme, medians over seeds; of emulated numbers those with fidelity `pass`."""
    emulated = "cct_s" in frame
    return table_of_collectives(
        "Predicted; 1.00 is the best any scheme could reach",
        ["scheme", "CCT", "CCT /\nbound", "congestion\nratio"]
        + (["emulated\nCCT", "emulated /\npredicted"] if emulated else ["\nworst"]),
        [
            (str(traffic), [_cells(str(scheme), runs) for scheme, runs in rows.groupby("scheme", sort=False)])
            for traffic, rows in frame.groupby("traffic", sort=False)
        ],
        "medians over seeds; ranges: with sizes varied a little",
    )


def _cells(scheme: str, rows: pd.DataFrame) -> list[str]:
    cells = [scheme, _time(rows.predicted_cct_s.median()), _over_bound(rows), _number(rows.congestion_ratio.median())]
    if "cct_s" not in rows:
        return [*cells, _number(rows.congestion_ratio.max())]
    trusted = rows[rows.fidelity == "pass"]
    return [*cells, _time(trusted.cct_s.median()), _number(trusted.emulated_over_predicted.median())]


def _over_bound(rows: pd.DataFrame) -> str:
    """The median, or its range where that is wide."""
    low, high = ((rows[end] / rows.bound_s).median() for end in ("predicted_low_s", "predicted_high_s"))
    return f"{low:.2f}-{high:.2f}" if high > _WIDE * low else _number(rows.predicted_cct_over_bound.median())


def _alike(work: Replays) -> list[list[Run]]:
    """The runs, those together that send the same by the same plan and differ only in how the seed hashes it."""
    groups: dict[tuple[int, str, int | None], list[Run]] = defaultdict(list)
    for run in work.runs:
        seed = run.seed if work.seeded(run.traffic) else None
        groups[run.traffic, run.scheme, seed].append(run)
    return list(groups.values())


def _from_flows(work: Replays, runs: Sequence[Run], jitter: float | None) -> Iterator[dict[str, Any]]:
    """Rows of runs that are alike, by the plan of the first of them."""
    plan, fabric, bound_s, faults = work.plan(runs[0]), work.topology, work.bound_s(runs[0]), work.faults(runs[0])
    share, most_pieces = (JITTER, MAX_JITTERED_PIECES) if jitter is None else (jitter, MAX_PIECES)
    found: tuple[bytes, FluidResult | None] | None = None
    for run in runs:
        spines = choose_spines(plan, fabric, run.seed)
        if not found or found[0] != spines.tobytes():  # where nothing is hashed, all seeds take the same paths
            found = spines.tobytes(), without_jitter(plan, fabric, spines, faults)
        exact = found[1]
        predicted = None
        if exact:
            predicted = with_range(
                exact, plan, fabric, spines, run.seed,
                jitter=share, repeats=REPEATS, most_pieces=most_pieces, faults=faults,
                transport=work.transport,
            )  # fmt: skip
        loads = exact.link_bytes if exact else link_bytes(plan, fabric, spines)
        ratio = congestion_ratio(loads, plan.schedule, fabric, plan.hosts)
        fct_s = pd.Series(exact.fct_s[: plan.schedule.own_tasks] if exact else [], dtype=float)
        fct_p50_s, fct_p99_s = fct_s.quantile([0.5, 0.99]) if exact else (None, None)
        yield _row(work, run, plan) | {
            "flows": len(plan.schedule.own.flows),
            "subflows": len(plan.connections),
            "cut_flows": plan.cut_flows,
            **_times(plan.schedule, bound_s, predicted),
            **(step_columns(plan.schedule, exact.start_s, exact.end_s, bound_s) if exact else dict.fromkeys(COLUMNS)),
            "congestion_ratio": math.nan if plan.scheme.unpredicted else ratio,
            "fct_p50_s": fct_p50_s,
            "fct_p99_s": fct_p99_s,
        }


def _from_counts(work: Replays, runs: Sequence[Run], unlisted: Outline) -> Iterator[dict[str, Any]]:
    """Rows of runs that are alike, by what is known of their flows without a list."""
    schedule = unlisted.schedule
    hosts = place(work.experiment.placement, work.topology, schedule.ranks, runs[0].seed)
    counted = count_traffic(unlisted, work.topology, hosts)
    for run in runs:
        scheme = scheme_of(run.scheme)
        yield _row(work, run, TrafficPlan(schedule, (), scheme, (), ())) | {
            "flows": counted.total_flows,
            "subflows": counted.connections(scheme),
            "cut_flows": counted.cut_flows(scheme),
            **_times(schedule, counted.bound_s(), None),
            **dict.fromkeys(COLUMNS),
            "congestion_ratio": math.nan if scheme.unpredicted else counted.congestion_ratio(scheme, run.seed),
            "fct_p50_s": None,
            "fct_p99_s": None,
        }


def _unlisted(work: Replays, run: Run) -> Outline | None:
    """What is known of traffic that is too large for the fluid model, if counts are all there is to know of it."""
    entry, fabric = work.experiment.traffic[run.traffic], work.topology
    if work.experiment.strains or work.experiment.faults or fabric.uneven:
        return None  # counts know no times, and no links that differ
    if fabric.hosts <= MAX_HOSTS and entry.flow_count(fabric) <= MAX_FLOWS:
        return None
    return entry.outline(fabric, work.experiment.placement)


def _row(work: Replays, run: Run, plan: TrafficPlan) -> dict[str, Any]:
    identity = work.identity(run, plan, dataplane="")
    del identity["dataplane"]
    return identity


def _times(schedule: Schedule, bound_s: float, predicted: Predicted | None) -> dict[str, float | None]:
    cct_s = predicted.cct_s if predicted else None
    algbw_bps = schedule.size_bytes * 8 / cct_s if cct_s else None
    return {
        "bound_s": bound_s,
        **predicted_columns(predicted),
        "predicted_cct_over_bound": cct_s / bound_s if cct_s else None,
        "algbw_bps": algbw_bps,
        "busbw_bps": algbw_bps * schedule.busbw_factor if algbw_bps else None,
    }


def _time(seconds: float) -> str:
    if pd.isna(seconds):
        return ""
    size, unit = next(((size, unit) for size, unit in ((1, "s"), (1e-3, "ms")) if seconds >= size), (1e-6, "µs"))
    return f"{seconds / size:.3g} {unit}"


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2f}"
