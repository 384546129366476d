"""The figures: frames in, a matplotlib Figure out, one small function each.

Every figure is drawn a phone's width wide and stands alone: a page puts them side by side or below each other, and
their text keeps its size. As SVG, text stays text, and what is not data is `currentColor` (INK until then): a light
page and a dark one show the same drawing.
"""

from __future__ import annotations

import io
import textwrap
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec

import numpy as np
import pandas as pd

from experiments.judge.rows import PASS
from experiments.results.drawn import Axes, Figure, style
from experiments.results.svg import css, for_pages
from traffic.schemes import INK, Look, scheme_of, spare_look

_WIDTH_IN = 3.6
_TITLE_WIDTH = 38  # letters
_MOST_LINE_POINTS = 240
_ROW = 0.86  # of the height that a scheme has in a timeline

LEAST_FOR_MEDIAN = 3
"""Of fewer runs no median is drawn: each has its own number."""

_STYLE = {
    "font.family": "DejaVu Sans",  # among the widest: what another font draws takes no more room than was planned
    "font.size": 8.0,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.wspace": 0.06,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "text.parse_math": False,  # a $ in a name is a $
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": INK,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "svg.fonttype": "none",
}

PRINTED = {key: "black" if value == INK else value for key, value in _STYLE.items() if "facecolor" not in key}
"""The same on paper, where nothing is to be told apart from the page."""

P = ParamSpec("P")


def look(scheme: str) -> Look:
    """Return how a scheme looks in every figure of every report, also where only another version knows the scheme."""
    try:
        return scheme_of(scheme).look
    except ValueError:
        return spare_look(zlib.crc32(scheme.encode()))


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with _style():
            return draw(*args, **kwargs)

    return drawn


def _style(**more: str) -> AbstractContextManager[None]:
    """Ours over matplotlib's defaults, whatever the user's own matplotlibrc says."""
    return style.context(["default", {**_STYLE, **more}])


@dataclass(frozen=True)
class Measure:
    """A column of runs.csv as a panel of a figure: its axis reaches at least over `span`, and `best` is marked."""

    column: str
    label: str
    words: Callable[[float], str] = "{:.2f}".format
    span: tuple[float, float] = (0, 0)
    best: float | None = None
    whole: bool = False


def _count(value: float, _: float = 0) -> str:
    """In little room: 1234, 12.3k, 1.23M. Also a formatter of ticks."""
    for least, size, name in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:.3g}{name}"
    return f"{value:.0f}"


_NEAR = 0.95, 1.25  # what differs by a hundredth should not look far apart
CCT = Measure("cct_over_bound", "CCT / bound\n(1.00 is best)", span=_NEAR, best=1)
CONGESTION = Measure("congestion_ratio", "congestion ratio\n(1.00 is best)", span=_NEAR, best=1)
LOADED = Measure("loaded_s", "loaded (s)", span=(0, 0.1))
OUT_OF_ORDER = Measure("out_of_order_segments", "arrived out of order\n(segments)", _count, (-0.5, 10), whole=True)
SENT_AGAIN = Measure("retransmitted_segments", "sent again\n(segments)", _count, (-0.5, 10), whole=True)


@styled
def points(runs: pd.DataFrame, measures: Sequence[Measure], schemes: Sequence[str], title: str) -> Figure:
    """Draw the runs of one traffic, a panel a measure and a row a scheme: a point a seed.

    Three trusted runs or more have a bar at their median, and its number; fewer have their own.
    """
    figure, panels = blank(0.95 + 0.22 * len(schemes), title, columns=len(measures))
    for axes, measure in zip(panels, measures, strict=True):
        points_on(axes, runs, measure, schemes, ticks=3 if len(measures) > 1 else 6)
    for axes in panels[1:]:
        axes.set_yticklabels([])
    return figure


def points_on(axes: Axes, runs: pd.DataFrame, measure: Measure, schemes: Sequence[str], ticks: int = 6) -> None:
    """Draw one panel of `points`."""
    if measure.best is not None:
        axes.axvline(measure.best, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.6)
    for row, scheme in enumerate(schemes):
        _row_of_points(axes, row, runs[runs.scheme == scheme].dropna(subset=measure.column), measure)
    axes.set_yticks(range(len(schemes)), schemes)
    axes.set_ylim(len(schemes) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x")
    axes.set_xlabel(measure.label)
    axes.set_xlim(min(axes.get_xlim()[0], measure.span[0]), max(axes.get_xlim()[1], measure.span[1]))
    axes.locator_params(axis="x", nbins=ticks, integer=measure.whole)
    if measure.whole:
        axes.xaxis.set_major_formatter(_count)


def _row_of_points(axes: Axes, row: int, mine: pd.DataFrame, measure: Measure) -> None:
    """One scheme's: hollow points are runs whose fidelity failed, and move no number."""
    if mine.empty:
        return
    style, values = look(str(mine.scheme.iloc[0])), mine[measure.column]
    trusted = (mine.fidelity == PASS).to_numpy()
    heights = row + (np.linspace(-0.22, 0.22, len(mine)) if len(mine) > 1 else np.zeros(1))
    for chosen, face in ((trusted, style.colour), (~trusted, "none")):
        axes.scatter(
            values[chosen],
            heights[chosen],
            s=18,
            marker=style.marker,
            facecolors=face,
            edgecolors=style.colour,
            linewidths=0.9,
            alpha=0.85,
        )
    known = values[trusted].sort_values()
    if len(known) >= LEAST_FOR_MEDIAN:
        axes.vlines(known.median(), row - 0.34, row + 0.34, color=style.colour, linewidth=1.6)
        shown = measure.words(known.median())
    else:
        shown = ", ".join(dict.fromkeys(map(measure.words, known))) or "untrusted"
    axes.text(1.02, row, shown, transform=axes.get_yaxis_transform(), va="center")


@styled
def timeline(
    queues: pd.DataFrame,
    flows: pd.DataFrame,
    schemes: Sequence[str],
    title: str,
    most_bytes: float,
    faults: pd.DataFrame | None = None,
) -> Figure:
    """Draw one run a scheme over time, a row each: what waits at the fullest fabric port, and which flows are complete.

    `queues` has the samples of fabric ports (scheme, time_s, backlog_bytes): the light shade reaches to the fullest
    port, the dark one to the mean of all, and `most_bytes` fills a row. `flows` has scheme, start_s and fct_s: the line
    goes from none completed to all. A grey band is where something was broken: `faults` has scheme, fault, event,
    confirmed_s.
    """
    figure, (axes,) = blank(0.75 + 0.3 * len(schemes), title)
    timeline_on(axes, queues, flows, schemes, most_bytes, faults)
    return figure


def timeline_on(
    axes: Axes,
    queues: pd.DataFrame,
    flows: pd.DataFrame,
    schemes: Sequence[str],
    most_bytes: float,
    faults: pd.DataFrame | None = None,
) -> None:
    """Draw what `timeline` shows."""
    unit, name = _bytes_unit(most_bytes)
    axes.set_ylim(0, len(schemes))
    for place, scheme in enumerate(reversed(schemes)):
        _queue(axes, place, queues[queues.scheme == scheme], max(most_bytes, 1), unit)
        if "start_s" in flows and pd.api.types.is_numeric_dtype(flows.start_s):
            _completed(axes, place, flows[flows.scheme == scheme])
    axes.set_xlim(left=0)
    for place, scheme in enumerate(reversed(schemes)):
        if faults is not None:
            _broken(axes, place / len(schemes), (place + _ROW) / len(schemes), faults[faults.scheme == scheme])
    axes.set_yticks([place + _ROW / 2 for place in range(len(schemes))], [*reversed(schemes)])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.text(1.02, 1, f"most ({name})", transform=axes.transAxes, va="bottom", ha="left")
    axes.set_xlabel("time since the first send (s)")
    axes.grid(visible=True, axis="x")


def _queue(axes: Axes, place: int, samples: pd.DataFrame, most_bytes: float, unit: float) -> None:
    """Shades of one scheme's queues; the number at their end is the most that ever waited at a port."""
    if samples.empty:
        return
    drawn = samples.groupby("time_s").backlog_bytes.agg(["max", "mean"])
    every = -(-len(drawn) // _MOST_LINE_POINTS)
    time_s = drawn.index.to_numpy()[::every]
    high = drawn.groupby(np.arange(len(drawn)) // every).max() / most_bytes * _ROW + place
    colour = look(str(samples.scheme.iloc[0])).colour
    for column, alpha in (("max", 0.35), ("mean", 0.75)):
        axes.fill_between(time_s, place, high[column], color=colour, alpha=alpha, linewidth=0)
    axes.axhline(place, color=INK, linewidth=0.5, alpha=0.4)
    digits = 0 if most_bytes / unit >= 100 else 1 if most_bytes / unit >= 10 else 2
    most = f"{drawn['max'].max() / unit:.{digits}f}"
    axes.text(1.02, place + _ROW / 2, most, transform=axes.get_yaxis_transform(), va="center")


def _completed(axes: Axes, place: int, flows: pd.DataFrame) -> None:
    ends_s = np.sort((flows.start_s + flows.fct_s).dropna().to_numpy(float))
    if not len(ends_s):
        return
    shares = np.linspace(0, 1, min(len(ends_s), _MOST_LINE_POINTS) + 1)
    ends_s = np.quantile(ends_s, shares, method="inverted_cdf")
    axes.plot(ends_s, shares * _ROW + place, drawstyle="steps-post", color=INK, linewidth=1)


def _broken(axes: Axes, low: float, high: float, faults: pd.DataFrame) -> None:
    """A band for each fault, over the time it was in force; `low` and `high` are shares of the figure's height."""
    for _, changes in faults.groupby("fault") if len(faults) else ():
        at_s = changes.groupby("event").confirmed_s
        begun_s, ended_s = at_s.min().get("begin", 0.0), at_s.max().get("end", axes.get_xlim()[1])
        axes.axvspan(begun_s, ended_s, low, high, color="0.5", alpha=0.2, linewidth=0, zorder=0)


def share_scale(figures: Iterable[Figure], axis: str = "x") -> None:
    """Give what lies at the same place in several figures the same scale, so that lengths compare between them."""
    for group in zip(*(figure.axes for figure in figures), strict=True):
        limits = np.array([getattr(axes, f"get_{axis}lim")() for axes in group])
        for axes in group:
            axes.set(**{f"{axis}lim": (limits.min(), limits.max())})


def to_svg(figure: Figure, name: str) -> str:
    """Write it as an <svg> element of a page. The same figure and name give the same text; other names, other ids."""
    raw = io.StringIO()
    with _style(**{"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that our font lacks: the reader's may have it
        figure.savefig(raw, format="svg", dpi=200, metadata={"Date": None})
    return for_pages(raw.getvalue(), name, str(figure.get_label()))


def css_colour(scheme: str) -> str:
    """Return the scheme's colour, as a page that shows its figures writes it."""
    return css(look(scheme).colour)


def height_in(schemes: Sequence[str]) -> float:
    """Return the height of a figure of lines, whose legend has three schemes a row."""
    return 1.9 + 0.16 * -(-len(schemes) // 3)


def blank(height_in: float, title: str, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    lines = textwrap.wrap(title, _TITLE_WIDTH)
    figure = Figure(figsize=(_WIDTH_IN, height_in + 0.15 * len(lines)), layout="constrained", label=title)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=9, fontweight="bold")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower left", ncols=min(3, len(labels)), borderaxespad=0.2)


def _bytes_unit(most_bytes: float) -> tuple[float, str]:
    """The decimal unit in which `most_bytes` is a number people read."""
    for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if most_bytes >= size:
            return size, name
    return 1, "bytes"
