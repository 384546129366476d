"""The report's figures one by one, on axes of one's own or on new ones, for papers and notebooks.

Each takes what `load` gives, and returns the axes it drew on: `axes.figure.savefig("name.pdf")` writes them, and a
name that ends in .png does as well. A scheme looks the same in all of them, and as it does in the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd

from experiments.judge.rows import PASS
from experiments.results import plots
from experiments.results.curves import curve_on, curves_of
from experiments.results.drawn import Axes, Figure, style
from experiments.results.loaded import Loaded
from experiments.results.maps import BLANK, over_ideal
from experiments.results.sections import typical

_COLUMN_IN = 3.35  # of ACM's and IEEE's two-column pages
_GOLDEN = 0.62  # height over width


@contextmanager
def paper(width_in: float = _COLUMN_IN) -> Iterator[None]:
    """Within the block, new figures are `width_in` inches wide, a paper's column by default, in 8 point type.

    PDF files carry their fonts as TrueType, as publishers ask.
    """
    size = {"figure.figsize": (width_in, _GOLDEN * width_in), "pdf.fonttype": 42, "savefig.dpi": 300}
    with style.context(["default", {**plots.PRINTED, **size}]):
        yield


def completion_times(results: Loaded, traffic: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the collective completion time over its bound: a point a seed, a row a scheme, hollow where untrusted.

    `traffic` is one of `results.runs.traffic`, the first by default; three trusted seeds or more have their median.
    """
    return _points(results, traffic, ax, plots.CCT)


def congestion(results: Loaded, traffic: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the fullest fabric link's bytes over its ideal share, as `completion_times` draws times."""
    return _points(results, traffic, ax, plots.CONGESTION)


def timeline(results: Loaded, traffic: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw queues and completed flows over time, a row a scheme: of each scheme the run nearest the median time."""
    runs = typical(_of(results, traffic))
    mine = set(runs.run_id)
    fabric = results.links[results.links.run_id.isin(mine) & results.links.spine.notna()]
    queues = results.queues[results.queues.run_id.isin(mine) & results.queues.port.isin(fabric.port.unique())]
    flows, faults = (frame[frame.run_id.isin(mine)] for frame in (results.flows, results.faults))
    ax = _axes(ax, _traffic(results, traffic))
    most_bytes = float(queues.backlog_bytes.max()) if len(queues) else 0.0
    plots.timeline_on(ax, queues, flows, _schemes(_of(results, traffic)), most_bytes, faults)
    return ax


def flow_times(results: Loaded, traffic: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the share of flows that completed within a time, a line a scheme, of all its trusted runs."""
    name = _traffic(results, traffic)
    flows = results.flows
    flows = flows[(flows.traffic == name) & (flows.fidelity == PASS)].dropna(subset="fct_s")
    ax = _axes(ax, name)
    for scheme, mine in flows.groupby("scheme", sort=False):
        shown, times_s = plots.look(str(scheme)), np.sort(mine.fct_s.to_numpy(float))
        shares = np.arange(1, len(times_s) + 1) / len(times_s)
        ax.step(times_s, shares, where="post", color=shown.colour, linestyle=shown.dashes, label=str(scheme))
    ax.set(xlabel="flow completion time (s)", ylabel="share of flows", ylim=(0, 1.02))
    ax.grid(visible=True)
    if len(flows):
        ax.legend()
    return ax


def link_loads(results: Loaded, scheme: str, traffic: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a map of what fabric links carried over ideal sharing: a row a leaf, a column a spine, up beside down.

    Of the run nearest the median time of `scheme`; 1.00 is blank. Raises ValueError where it has no run.
    """
    runs = typical(_of(results, traffic))
    mine = runs[runs.scheme == scheme]
    if mine.empty:
        raise ValueError(f"there is no run of {scheme!r}; there are runs of {', '.join(_schemes(runs))}")
    up, down = over_ideal(results.links[results.links.run_id == mine.run_id.iloc[0]])
    ax = _axes(ax, f"{scheme}, {_traffic(results, traffic)}")
    apart = np.full((len(up), 1), np.nan)
    cells = np.hstack([up, apart, down])
    cells[cells < BLANK] = np.nan
    image = ax.imshow(cells, vmin=1, vmax=max(1.01, float(np.nan_to_num(cells).max())), cmap="Oranges", aspect="auto")
    spines = up.shape[1]
    ax.set_xticks([(spines - 1) / 2, spines + 1 + (spines - 1) / 2], ["up, by spine", "down, by spine"])
    ax.set_yticks(range(len(up)), [f"leaf{leaf + 1}" for leaf in range(len(up))])
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, label="bytes / ideal share")
    return ax


def curve(results: Loaded, traffic: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw what a sweep changes: CCT over bound along its key, a point a seed, the prediction as a line.

    Raises ValueError where nothing was swept.
    """
    found = {each.name: each for each in curves_of(results.runs)}
    if not found:
        raise ValueError(f"{results.path}: nothing was swept in it")
    chosen = found.get(traffic or next(iter(found)))
    if chosen is None:
        raise ValueError(f"there is no curve {traffic!r}; there are {', '.join(map(repr, found))}")
    ax = _axes(ax, chosen.name)
    curve_on(ax, chosen, _schemes(chosen.runs))
    ax.legend()
    return ax


def _points(results: Loaded, traffic: str | None, ax: Axes | None, measure: plots.Measure) -> Axes:
    runs = _of(results, traffic)
    ax = _axes(ax, str(runs.traffic.iloc[0]))
    plots.points_on(ax, runs, measure, _schemes(runs))
    return ax


def _of(results: Loaded, traffic: str | None) -> pd.DataFrame:
    return results.runs[results.runs.traffic == _traffic(results, traffic)]


def _traffic(results: Loaded, traffic: str | None) -> str:
    """Return `traffic`, or the first one there is. Raises ValueError where there is no such one."""
    names = list(dict.fromkeys(results.runs.get("traffic", ())))
    if not names:
        raise ValueError(f"{results.path}: no run has finished; go on with spraylab run --resume")
    if traffic is not None and traffic not in names:
        raise ValueError(f"there is no traffic {traffic!r}; there are {', '.join(map(repr, names))}")
    return names[0] if traffic is None else traffic


def _schemes(runs: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(runs.scheme))


def _axes(ax: Axes | None, title: str) -> Axes:
    if ax is not None:
        return ax
    axes = Figure(layout="constrained").subplots()
    assert isinstance(axes, Axes)
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    return axes
