"""What a report shows, section by section: which figures, of which runs, and how to read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pandas as pd

from experiments.judge.rows import PASS
from experiments.results import plots
from experiments.results.curves import curves_of, draw_curve
from experiments.results.drawn import Figure
from experiments.results.folder import ResultsFolder


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
        self.runs = folder.runs()
        self.typical = typical(self.runs)

    @cached_property
    def flows(self) -> pd.DataFrame:
        return self._frame("flows")

    @cached_property
    def links(self) -> pd.DataFrame:
        """Of the typical runs, the ports of fabric links."""
        links = self._frame("links")
        return links[links.run_id.isin(self.typical.run_id) & links.spine.notna()]

    @cached_property
    def queues(self) -> pd.DataFrame:
        """Of the typical runs, the samples of fabric ports."""
        queues = self._frame("queues")
        return queues[queues.run_id.isin(self.typical.run_id) & queues.port.isin(self.links.port.unique())]

    @cached_property
    def faults(self) -> pd.DataFrame:
        """Of the typical runs, what faults changed and when; empty where nothing was to break."""
        if not self.manifest.get("experiment", {}).get("faults"):
            return self.typical.iloc[:0]
        faults = self._frame("faults")
        return faults[faults.run_id.isin(self.typical.run_id)]

    def _frame(self, name: str) -> pd.DataFrame:
        return self._folder.frame(name).merge(self.runs[["run_id", "traffic", "scheme", "fidelity"]], on="run_id")


def typical(runs: pd.DataFrame) -> pd.DataFrame:
    """Of every traffic and scheme the run with the median time: of the trusted ones, where there are any.

    Of an even number it is the slower of the two in the middle, so that what is shown is never better than the median.
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
    """Every traffic, or every traffic and scheme, that some folder has runs of; in the order they ran."""
    columns = ["traffic", "scheme"] if each_scheme else ["traffic"]
    found = [Part(*row) for each in everyone if len(each.runs) for row in each.runs[columns].itertuples(index=False)]
    order = list(dict.fromkeys(part.traffic for part in found))
    return sorted(dict.fromkeys(found), key=lambda part: order.index(part.traffic))


def of_part(frame: pd.DataFrame, part: Part) -> pd.DataFrame:
    """The rows of `frame` that are about `part`."""
    if frame.empty:
        return frame
    mine = frame[frame.traffic == part.traffic]
    return mine[mine.scheme == part.scheme] if part.scheme else mine


def schemes_of(everyone: Sequence[Results]) -> list[str]:
    """Every scheme that some folder has runs of, in the order they ran."""
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

    draw: Callable[[Part, Results, Sequence[Results]], Figure]
    a_figure_each_scheme: bool = False
    common_axes: str = ""
    paired_axes: str = ""
    parts: Callable[[Sequence[Results]], list[Part]] | None = None
    """What its figures are about; without it, the traffics, or traffics and schemes, that ran."""

    rows: Callable[[pd.DataFrame, Part], pd.DataFrame] = of_part
    """The rows of a frame that are about one of these."""


def _ratio(column: str, label: str) -> Callable[[Part, Results, Sequence[Results]], Figure]:
    def draw(part: Part, results: Results, everyone: Sequence[Results]) -> Figure:
        return plots.ratio(of_part(results.runs, part), column, schemes_of(everyone), part.traffic, label)

    return draw


def _loaded(part: Part, results: Results, everyone: Sequence[Results]) -> Figure:
    return plots.seconds(of_part(results.runs, part), "loaded_s", schemes_of(everyone), part.traffic, "loaded (s)")


def _reordering(part: Part, results: Results, everyone: Sequence[Results]) -> Figure:
    return plots.reordering(of_part(results.runs, part), schemes_of(everyone), part.traffic)


def _link_bytes(part: Part, results: Results, everyone: Sequence[Results]) -> Figure:
    most_bytes = _most([each.links for each in everyone if len(each.runs)], part.traffic, "tx_bytes")
    seed = of_part(results.typical, part).seed.iloc[0]
    return plots.link_bytes(of_part(results.links, part), f"{part.scheme}, {part.traffic}, seed {seed}", most_bytes)


def _queue_depth(part: Part, results: Results, everyone: Sequence[Results]) -> Figure:
    most_bytes = _most([each.queues for each in everyone if len(each.runs)], part.traffic, "backlog_bytes")
    faults = of_part(results.faults, part)
    return plots.queue_depth(of_part(results.queues, part), schemes_of(everyone), part.traffic, most_bytes, faults)


def _most(frames: Sequence[pd.DataFrame], traffic: str, column: str) -> float:
    """Of one traffic in all folders; 0 where nothing was recorded, of which pandas says NaN."""
    return max(0.0, float(pd.concat([frame.loc[frame.traffic == traffic, column] for frame in frames]).max()))


def _flow_completion(part: Part, results: Results, everyone: Sequence[Results]) -> Figure:
    flows = of_part(results.flows, part)
    trusted = flows.fidelity == PASS
    flows = flows[trusted | ~flows.scheme.isin(flows.scheme[trusted])]
    return plots.flow_completion(flows, schemes_of(everyone), part.traffic)


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
        "Completion time against the bound",
        "Each point is one seed's collective completion time (CCT) over the least that any scheme could reach on this "
        "fabric: the nearer to 1.00, the better. Hollow points are runs that failed fidelity; the bar and the number "
        "are the median of the others.",
        "cct_over_bound",
        _ratio("cct_over_bound", "CCT / bound (1.00 is best)"),
        common_axes="x",
    ),
    Section(
        "loaded",
        "How long programs kept the fabric loaded",
        "Each point is one seed's time from when the first port was loaded to when the last ceased to be: what the "
        "program waited for the network, at most. Hollow points are runs that failed fidelity; the bar and the number "
        "are the median of the others.",
        "loaded_s",
        _loaded,
        common_axes="x",
    ),
    Section(
        "congestion",
        "Congestion ratio",
        "Each point is one seed's bytes on its most loaded fabric link over what the fullest link would carry if every "
        "leaf spread its bytes equally: 1.00 is ideal, 2.00 is one link with twice its share.",
        "congestion_ratio",
        _ratio("congestion_ratio", "congestion ratio (1.00 is best)"),
        common_axes="x",
    ),
    Section(
        "links",
        "Bytes on every fabric link",
        "Each cell is one link of the run with the median CCT (the slower of two in the middle), left on the way up, "
        "right on the way down: a scheme that shares well gives a leaf's cells one colour, a bright cell beside dark "
        "ones is a link waited for while others had room. Schemes of a collective share their colour scale.",
        "congestion_ratio",
        _link_bytes,
        a_figure_each_scheme=True,
    ),
    Section(
        "queues",
        "Queues over time",
        "The line is the fullest port of all fabric links at each moment of the run with the median CCT (the slower of "
        "two in the middle), the shade reaches down to the mean of all of them: a high line over a low mean is what "
        "better sharing avoids.",
        "queue_peak_bytes",
        _queue_depth,
        paired_axes="x",
    ),
    Section(
        "fct",
        "Flow completion times",
        "Each line says how many flows of all seeds had completed after so long: the further left and the steeper, the "
        "better; a tail to the right is what the collective waits for. Runs that failed fidelity are left out where a "
        "scheme has others.",
        "fct_p50_s",
        _flow_completion,
        paired_axes="x",
    ),
    Section(
        "reordering",
        "Reordering and retransmission",
        "Each point is one seed's count over all connections: segments that arrived out of order are the price of "
        "spraying, segments sent again were lost or taken for lost.",
        "out_of_order_segments",
        _reordering,
        common_axes="x",
    ),
)
"""In the order of the page. What captures tell would be more of these."""
