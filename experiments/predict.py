"""What theory says of every run of an experiment, and how far an emulation of it came from that.

Small enough traffic goes through the fluid model (`experiments.fluid`); beyond that, congestion alone is counted
(`experiments.scale`) and the times are left empty.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from emulator.topology import LeafSpine
from experiments.congestion import Ints, choose_spines, congestion_ratio, link_bytes
from experiments.fluid import simulate
from experiments.plan import Run
from experiments.planner import Planner
from experiments.scale import CountedTraffic, count_traffic, countable
from experiments.spec import CollectiveTraffic, Experiment
from traffic.collectives import COLLECTIVES
from traffic.placement import place
from traffic.schedule import Schedule
from traffic.schemes import TrafficPlan

MAX_HOSTS, MAX_FLOWS, MAX_PIECES = 1024, 300_000, 1_000_000
"""Beyond these, the fluid model takes more than about ten seconds or a gigabyte a run."""

_SAME_RUN = [
    "traffic", "scheme", "seed", "collective", "algorithm", "channels", "ranks", "size_bytes", "leaves", "spines",
    "hosts_per_leaf", "host_rate_bps", "fabric_rate_bps", "mtu_bytes",
]  # fmt: skip


def predict(experiment: Experiment) -> pd.DataFrame:
    """One row a run: the columns of runs.csv that apply, `predicted_cct_s` and `predicted_cct_over_bound`.

    algbw, busbw and FCT are those of the prediction. Times and rates are empty where only congestion was counted.
    """
    return pd.DataFrame(sorted(predictions(experiment), key=lambda row: row["run_id"]))


def predictions(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """The rows of `predict` one by one, as they are found: not in the order of `plan_runs`."""
    planner = Planner(experiment)
    for runs in _alike(planner):
        counted = _counted(experiment, runs[0])
        yield from _from_counts(planner, runs, counted) if counted else _from_flows(planner, runs)


def beside_results(predicted: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """`predicted`, and beside it what was emulated: `cct_s`, `measured_congestion_ratio` and `fidelity` of `runs`.

    `runs` is a runs.csv. A run is the same if its traffic, scheme, seed and fabric are; those that were not emulated
    stay empty. `cct_over_predicted` is 1 where the emulation did as theory says.
    """
    columns = [*_SAME_RUN, "cct_s", "congestion_ratio", "fidelity"]
    measured = runs.reindex(columns=columns).rename(columns={"congestion_ratio": "measured_congestion_ratio"})
    joined = predicted.merge(measured.drop_duplicates(_SAME_RUN, keep="last"), how="left", on=_SAME_RUN)
    return joined.assign(cct_over_predicted=joined.cct_s / joined.predicted_cct_s)


def prediction_table(frame: pd.DataFrame) -> Table:
    """Per traffic and scheme, medians over seeds; of emulated numbers those with fidelity `pass`."""
    emulated = "cct_s" in frame
    table = Table(title="Predicted; 1.00 is the best any scheme could reach", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("collective", no_wrap=True)
    table.add_column("scheme", no_wrap=True)
    names = ["CCT", "CCT /\nbound", "congestion\nratio"]
    for name in [*names, *(["emulated\nCCT", "emulated /\npredicted"] if emulated else ["\nworst"])]:
        table.add_column(name, justify="right", no_wrap=True)
    previous = None
    for (traffic, scheme), rows in frame.groupby(["traffic", "scheme"], sort=False):
        if previous not in (None, traffic):
            table.add_section()
        cells = [
            traffic if traffic != previous else "",
            scheme,
            _time(rows.predicted_cct_s.median()),
            _number(rows.predicted_cct_over_bound.median()),
            _number(rows.congestion_ratio.median()),
        ]
        if emulated:
            trusted = rows[rows.fidelity == "pass"]
            cells += [_time(trusted.cct_s.median()), _number(trusted.cct_over_predicted.median())]
        else:
            cells.append(_number(rows.congestion_ratio.max()))
        table.add_row(*cells)
        previous = traffic
    return table


def _alike(planner: Planner) -> list[list[Run]]:
    """The runs, those together that send the same by the same plan and differ only in how the seed hashes it."""
    experiment = planner.experiment
    groups: dict[tuple[int, str, int | None], list[Run]] = defaultdict(list)
    for run in planner.runs:
        entry = experiment.traffic[run.traffic]
        shuffled = isinstance(entry, CollectiveTraffic) and entry.order == "shuffled"
        seed = run.seed if shuffled or experiment.placement == "random" else None
        groups[run.traffic, run.scheme, seed].append(run)
    return list(groups.values())


def _from_flows(planner: Planner, runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Rows of runs that are alike, by the plan of the first of them."""
    plan, fabric, bound_s = planner.plan(runs[0]), planner.fabric, planner.bound_s(runs[0])
    paced = planner.experiment.transport.pacing == "fair"
    found: tuple[bytes, dict[str, Any]] | None = None
    for run in runs:
        spines = choose_spines(plan, fabric, run.seed)
        if not found or found[0] != spines.tobytes():  # where nothing is hashed, all seeds take the same paths
            found = spines.tobytes(), _of_paths(plan, fabric, spines, paced, bound_s)
        yield _row(planner, run, plan) | found[1]


def _of_paths(plan: TrafficPlan, fabric: LeafSpine, spines: Ints, paced: bool, bound_s: float) -> dict[str, Any]:
    if len(plan.pieces) > MAX_PIECES:
        cct_s = fct_p50_s = fct_p99_s = None
        loads = link_bytes(plan, fabric, spines)
    else:
        result = simulate(plan, fabric, spines, paced=paced)
        cct_s, loads = result.cct_s, result.link_bytes
        fct_p50_s, fct_p99_s = pd.Series(result.fct_s).quantile([0.5, 0.99])
    return {
        "flows": len(plan.schedule.flows),
        "subflows": len(plan.subflows),
        "cut_flows": plan.cut_flows,
        **_times(plan.schedule, bound_s, cct_s),
        "congestion_ratio": congestion_ratio(loads, plan.schedule, fabric, plan.hosts),
        "fct_p50_s": fct_p50_s,
        "fct_p99_s": fct_p99_s,
    }


def _from_counts(planner: Planner, runs: Sequence[Run], counted: CountedTraffic) -> Iterator[dict[str, Any]]:
    entry, ranks = planner.experiment.traffic[runs[0].traffic], planner.fabric.hosts
    assert isinstance(entry, CollectiveTraffic)
    factor = COLLECTIVES[entry.collective].busbw_factor(ranks)
    unlisted = Schedule(entry.collective, entry.algorithm, ranks, entry.channels, entry.size_bytes, (), factor)
    for run in runs:
        yield _row(planner, run, TrafficPlan(unlisted, (), run.scheme, (), ())) | {
            "flows": counted.total_flows,
            "subflows": counted.subflows(run.scheme),
            "cut_flows": counted.cut_flows(run.scheme),
            **_times(unlisted, counted.bound_s(), None),
            "congestion_ratio": counted.congestion_ratio(run.scheme, run.seed),
            "fct_p50_s": None,
            "fct_p99_s": None,
        }


def _counted(experiment: Experiment, run: Run) -> CountedTraffic | None:
    """The counts of traffic too large for the fluid model, where counts are all there is to know of it."""
    entry, fabric = experiment.traffic[run.traffic], experiment.fabric.topology()
    if not isinstance(entry, CollectiveTraffic) or not countable(entry.collective, entry.algorithm):
        return None
    if entry.window is not None or entry.chunks is not None:
        return None
    counted = count_traffic(
        entry.collective,
        entry.algorithm,
        fabric,
        place(experiment.placement, fabric, fabric.hosts, run.seed),
        size_bytes=entry.size_bytes,
        channels=entry.channels,
        shift=entry.shift or (1 if experiment.placement == "interleaved" else fabric.hosts_per_leaf),
    )
    return counted if fabric.hosts > MAX_HOSTS or counted.total_flows > MAX_FLOWS else None


def _row(planner: Planner, run: Run, plan: TrafficPlan) -> dict[str, Any]:
    identity = planner.identity(run, plan, dataplane="")
    del identity["dataplane"]
    return identity


def _times(schedule: Schedule, bound_s: float, cct_s: float | None) -> dict[str, float | None]:
    algbw_bps = schedule.size_bytes * 8 / cct_s if cct_s else None
    return {
        "bound_s": bound_s,
        "predicted_cct_s": cct_s,
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
