"""What a report shows, section by section: which figures, of which runs, and how to read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.judge.rows import PASS
from experiments.results import plots
from experiments.results.curves import curves_of, draw_curve
from experiments.results.drawn import Figure
from experiments.results.folder import ResultsFolder
from experiments.results.maps import NOTHING, Cells, heat_map, over_ideal, scale_of


class Part(NamedTuple):
    """What one figure is about. `scheme` is empty where it shows all of them."""

    traffic: str
    scheme: str = ""


class Results:
    """One folder's frames, each read once."""

    def __init__(self, folder: ResultsFolder) -> None:
        self._folder = folder
        self.path = folder.path
        self.name = folder.path.resolve().name
        self.manifest = folder.manifest()
        self._links = folder.frame("links")
        self.runs = with_utilisation(folder.runs(), self._links)
        self.unfinished = folder.failed_runs()
        self.typical = typical(self.runs)

    @cached_property
    def flows(self) -> pd.DataFrame:
        """Return the flows of the typical runs."""
        flows = self._frame("flows")
        return flows[flows.run_id.isin(self.typical.run_id)]

    @cached_property
    def links(self) -> pd.DataFrame:
        """Return the ports of fabric links of the typical runs."""
        links = self._of_runs(self._links)
        return links[links.run_id.isin(self.typical.run_id) & links.spine.notna()]

    @cached_property
    def over_ideal(self) -> dict[Part, tuple[Cells, Cells]]:
        """Return what fabric links carried over ideal sharing in the typical run of every traffic and scheme."""
        groups = self.links.groupby(["traffic", "scheme"]) if len(self.links) else ()
        return {Part(*map(str, names)): over_ideal(links) for names, links in groups}

    @cached_property
    def queues(self) -> pd.DataFrame:
        """Return the samples of fabric ports of the typical runs."""
        queues = self._frame("queues")
        return queues[queues.run_id.isin(self.typical.run_id) & queues.port.isin(self.links.port.unique())]

    @cached_property
    def faults(self) -> pd.DataFrame:
        """Return what faults changed in the typical runs, and when; empty where nothing was to break."""
        if not self.manifest.get("experiment", {}).get("faults"):
            return self.typical.iloc[:0]
        faults = self._frame("faults")
        return faults[faults.run_id.isin(self.typical.run_id)]

    def _frame(self, name: str) -> pd.DataFrame:
        return self._of_runs(self._folder.frame(name))

    def _of_runs(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.merge(self.runs[["run_id", "traffic", "scheme", "fidelity"]], on="run_id")


def with_utilisation(runs: pd.DataFrame, links: pd.DataFrame) -> pd.DataFrame:
    """Add the utilisation of the link that was fullest: its bytes over what it could carry in the run's time."""
    took = "cct_s" if "cct_s" in runs else "loaded_s"
    if runs.empty or "rate_bps" not in links or not pd.api.types.is_numeric_dtype(links.rate_bps):
        return runs.drop(columns="utilisation", errors="ignore")
    fullest_s = (links.tx_bytes * 8 / links.rate_bps.where(links.rate_bps > 0)).groupby(links.run_id).max()
    times_s = runs[took].where(runs[took] > 0)
    return runs.assign(utilisation=runs.run_id.map(fullest_s) / times_s)


def typical(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the run with the median time of every traffic and scheme, a trusted one where there is any.

    Of an even number it is the slower of the two nearest the median, so that what is shown is never better than that.
    """
    if runs.empty:
        return runs
    chosen = []
    measure = "cct_s" if "cct_s" in runs else "loaded_s"
    for _, group in runs.sort_values([measure, "run_id"]).groupby(["traffic", "scheme"], sort=False):
        trusted = group[group.fidelity == PASS]
        among = group if trusted.empty else trusted
        chosen.append(among.index[len(among) // 2])
    return runs.loc[chosen]


def parts_of(everyone: Sequence[Results], *, each_scheme: bool) -> list[Part]:
    """Return every traffic, or every traffic and scheme, that some folder has runs of; in the order they ran."""
    columns = ["traffic", "scheme"] if each_scheme else ["traffic"]
    found = [Part(*row) for each in everyone if len(each.runs) for row in each.runs[columns].itertuples(index=False)]
    order = list(dict.fromkeys(part.traffic for part in found))
    return sorted(dict.fromkeys(found), key=lambda part: order.index(part.traffic))


def of_part(frame: pd.DataFrame, part: Part) -> pd.DataFrame:
    """Return the rows of `frame` that are about `part`."""
    if frame.empty:
        return frame
    mine = frame[frame.traffic == part.traffic]
    return mine[mine.scheme == part.scheme] if part.scheme else mine


def schemes_of(everyone: Sequence[Results]) -> list[str]:
    """Return every scheme that some folder has runs of, in the order they ran."""
    return list(dict.fromkeys(scheme for each in everyone for scheme in each.runs.get("scheme", [])))


@dataclass(frozen=True)
class Section:
    """Figures of one kind: how to read them in a sentence, and how one of them is drawn.

    `draw` takes what is shown, one folder's results and those of all folders on the page. So that lengths compare, all
    figures of the section have the `common_axes` alike, and those of one part in two folders the `paired_axes` as well.
    """

    key: str
    title: str
    reading: str
    needs: str
    """The column of runs.csv without which there is nothing to draw."""

    draw: Callable[[Part, Results, Sequence[Results]], Figure | str]
    """Gives an <svg> element, or what becomes one."""

    a_figure_each_scheme: bool = False
    """Then its figures are small: a row a traffic, a column a scheme."""

    scale: Callable[[Sequence[Results]], str] | None = None
    """The scale of all its figures, as an <svg> element."""

    common_axes: str = ""
    paired_axes: str = ""
    parts: Callable[[Sequence[Results]], list[Part]] | None = None
    """What its figures are about; without it, the traffics, or traffics and schemes, that ran."""

    rows: Callable[[pd.DataFrame, Part], pd.DataFrame] = of_part
    """The rows of a frame that are about one of these."""


def _points(*measures: plots.Measure) -> Callable[[Part, Results, Sequence[Results]], Figure]:
    def draw(part: Part, results: Results, everyone: Sequence[Results]) -> Figure:
        return plots.points(of_part(results.runs, part), measures, schemes_of(everyone), part.traffic)

    return draw


def _link_map(part: Part, results: Results, everyone: Sequence[Results]) -> str:
    seed = of_part(results.typical, part).seed.iloc[0]
    about = f"{part.scheme}, {part.traffic}, seed {seed}"
    return heat_map(*results.over_ideal.get(part, NOTHING), part.scheme, about, _most_over_ideal(everyone))


def _most_over_ideal(everyone: Sequence[Results]) -> float:
    return max([1.0, *(float(np.nan_to_num(cells).max()) for each in everyone for cells in each.over_ideal.values())])


def _timeline(part: Part, results: Results, everyone: Sequence[Results]) -> Figure:
    all_queues = [each.queues for each in everyone if len(each.runs)]
    most = [frame.loc[frame.traffic == part.traffic, "backlog_bytes"] for frame in all_queues]
    most_bytes = max(0.0, float(pd.concat(most).max()))  # pandas says NaN of nothing
    flows = of_part(results.flows, part) if "cct_s" in results.runs else results.runs.iloc[:0]
    queues, faults = of_part(results.queues, part), of_part(results.faults, part)
    return plots.timeline(queues, flows, schemes_of(everyone), part.traffic, most_bytes, faults)


def _curves(everyone: Sequence[Results]) -> list[Part]:
    found = [curve for each in everyone for curve in curves_of(each.runs)]
    return [Part(name) for name in dict.fromkeys(curve.name for curve in found)]


def _on_curve(runs: pd.DataFrame, part: Part) -> pd.DataFrame:
    return next((curve.runs for curve in curves_of(runs) if curve.name == part.traffic), runs.iloc[:0])


def _curve(part: Part, results: Results, everyone: Sequence[Results]) -> Figure:
    chosen = next(curve for curve in curves_of(results.runs) if curve.name == part.traffic)
    return draw_curve(chosen, schemes_of(everyone))


SECTIONS = (
    Section(
        "sweep",
        "What the sweep changes",
        "Each point is one seed's completion time over its bound at one value of what is swept; hollow points are runs "
        "that failed fidelity. Lines are what theory predicts, the median over seeds.",
        "point",
        _curve,
        common_axes="y",
        parts=_curves,
        rows=_on_curve,
    ),
    Section(
        "cct",
        "Completion time and congestion",
        "Each point is one seed. Left, its collective completion time (CCT) over the least that any scheme could reach "
        "on this fabric; right, the bytes on its fullest fabric link over what that would carry if every leaf spread "
        "its bytes equally: 2.00 is one link with twice its share. Hollow points are runs that failed fidelity; the "
        "bar and the number are the median of the others, where three or more are left, else they have their own.",
        "cct_over_bound",
        _points(plots.CCT, plots.CONGESTION),
        common_axes="x",
    ),
    Section(
        "loaded",
        "How long programs kept the fabric loaded",
        "Each point is one seed. Left, its time from when the first port was loaded to when the last ceased to be, "
        "what the program waited for the network, at most; right, the congestion ratio. Hollow points are runs that "
        "failed fidelity; the bar and the number are the median of the others, where three or more are left.",
        "loaded_s",
        _points(plots.LOADED, plots.CONGESTION),
        common_axes="x",
    ),
    Section(
        "links",
        "Bytes on every fabric link",
        "Each map is the run nearest the median time: left on the way up, right on the way down, a row a leaf, a "
        "column a spine. A link with its ideal share, or less, is blank; more is coloured on one scale, and the number "
        "is the fullest link's. A stroke is a link that is not there.",
        "congestion_ratio",
        _link_map,
        a_figure_each_scheme=True,
        scale=lambda everyone: scale_of(_most_over_ideal(everyone)),
    ),
    Section(
        "queues",
        "Queues and completed flows over time",
        "Of the run nearest the median time, a row a scheme. The light shade reaches to the fullest port of all fabric "
        "links, the dark one to the mean of them: what is light is what better sharing avoids. The line rises from no "
        "flow completed to all: the tail at its end is what the collective waits for. Grey bands are faults.",
        "queue_peak_bytes",
        _timeline,
        paired_axes="x",
    ),
    Section(
        "reordering",
        "Reordering and retransmission",
        "Each point is one seed's count over all connections: segments that arrived out of order are the price of "
        "spraying, segments sent again were lost or taken for lost.",
        "out_of_order_segments",
        _points(plots.OUT_OF_ORDER, plots.SENT_AGAIN),
        common_axes="x",
    ),
)
"""In the order of the page. What captures tell would be more of these."""
