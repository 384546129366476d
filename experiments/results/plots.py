"""The figures: frames in, a matplotlib Figure out, one small function each.

Every figure is drawn a phone's width wide and stands alone: a page puts them side by side or below each other, and
their text keeps its size. As SVG, text stays text, and what is not data is `currentColor` (INK until then): a light
page and a dark one show the same drawing.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from typing import ParamSpec
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.judge.rows import PASS
from experiments.results.drawn import Axes, Figure, style
from traffic.schemes import INK, Look, scheme_of, spare_look

_WIDTH_IN = 3.6
_TITLE_WIDTH = 38  # letters
_MOST_LINE_POINTS = 240
_MOST_LABELLED = 6  # cells in a row of a heat map: beyond, numbers would not fit them
_MOST_VECTOR_CELLS = 100  # of a heat map: beyond, a picture is smaller than its shapes

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

P = ParamSpec("P")


def look(scheme: str) -> Look:
    """The same for a scheme in every figure of every report, also where only another version knows the scheme."""
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


@styled
def ratio(runs: pd.DataFrame, column: str, schemes: Sequence[str], title: str, label: str) -> Figure:
    """`column` of the runs of one traffic, which is 1.00 at best: a point a seed, a bar and a number for the median."""
    figure, (axes,) = blank(0.8 + 0.3 * len(schemes), title)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.6)
    _points(axes, runs, column, schemes, "{:.2f}".format)
    axes.set_xlabel(label)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.95), max(high, 1.25))  # what differs by a hundredth should not look far apart
    return figure


@styled
def seconds(runs: pd.DataFrame, column: str, schemes: Sequence[str], title: str, label: str) -> Figure:
    """`column` of the runs of one traffic, in seconds: a point a seed, a bar and a number for the median."""
    figure, (axes,) = blank(0.8 + 0.3 * len(schemes), title)
    _points(axes, runs, column, schemes, "{:.2f}".format)
    axes.set_xlabel(label)
    axes.set_xlim(0, axes.get_xlim()[1])
    return figure


@styled
def reordering(runs: pd.DataFrame, schemes: Sequence[str], title: str) -> Figure:
    """Segments of the runs of one traffic that arrived out of order, and that were sent again."""
    figure, (left, right) = blank(0.8 + 0.3 * len(schemes), title, columns=2)
    for axes, column, label in (
        (left, "out_of_order_segments", "arrived out of order\n(segments)"),
        (right, "retransmitted_segments", "sent again\n(segments)"),
    ):
        _points(axes, runs, column, schemes, _count)
        axes.set_xlabel(label)
        axes.set_xlim(min(axes.get_xlim()[0], -0.5), max(axes.get_xlim()[1], 10))
        axes.locator_params(axis="x", nbins=3, integer=True)
        axes.xaxis.set_major_formatter(_count)
    right.set_yticklabels([])
    return figure


@styled
def link_bytes(links: pd.DataFrame, title: str, most_bytes: float) -> Figure:
    """Bytes that one run sent over every fabric link, leaf x spine, up and down; `most_bytes` ends the scale."""
    unit, name = _bytes_unit(most_bytes)
    fabric = links[links.spine.notna()]
    up, down = (
        fabric[fabric.direction == direction].pivot_table(index="leaf", columns="spine", values="tx_bytes") / unit
        for direction in ("up", "down")
    )
    rows, columns = up.shape
    labelled = columns <= _MOST_LABELLED
    height_in = 1.4 * min(1.6, max(0.4, rows / columns))
    figure, both = blank(height_in + (0.85 if labelled else 1.3), title, columns=2)
    for axes, cells, direction in zip(both, (up, down), ("leaf to spine", "spine to leaf"), strict=True):
        mesh = axes.pcolormesh(
            cells.to_numpy(float),
            cmap="cividis",
            vmin=0,
            vmax=most_bytes / unit,
            edgecolors="face",
            linewidth=0.4,  # closes the seams that anti-aliasing leaves
            rasterized=cells.size > _MOST_VECTOR_CELLS,
        )
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xlabel(f"spine\n{direction} ({name})")
        for axis, numbers, most in ((axes.xaxis, cells.columns, 8), (axes.yaxis, cells.index, int(6 * height_in))):
            every = -(-len(numbers) // most)
            axis.set_ticks(np.arange(0, len(numbers), every) + 0.5, [str(number + 1) for number in numbers[::every]])
        if labelled:
            _label_cells(axes, cells.to_numpy(float), most_bytes / unit)
    both[0].set_ylabel("leaf")
    both[1].set_yticklabels([])
    if not labelled:
        bar = figure.colorbar(mesh, ax=both, location="top", fraction=0.05, aspect=40, pad=0.03)
        if bar.solids:
            bar.solids.set_rasterized(True)
        bar.outline.set_visible(False)
        bar.set_label(name)
    return figure


@styled
def queue_depth(
    queues: pd.DataFrame,
    schemes: Sequence[str],
    title: str,
    most_bytes: float,
    faults: pd.DataFrame | None = None,
) -> Figure:
    """Bytes waiting over time at the fullest fabric port (line), down to the mean of all of them (shade).

    `queues` has the samples of fabric ports of one run a scheme: scheme, time_s, backlog_bytes; `most_bytes` ends the
    scale. A grey band is where something was broken: `faults` has scheme, fault, event, confirmed_s.
    """
    figure, (axes,) = blank(height_in(schemes), title)
    unit, name = _bytes_unit(most_bytes)
    for scheme in schemes:
        samples = queues[queues.scheme == scheme].groupby("time_s").backlog_bytes.agg(["max", "mean"]) / unit
        if samples.empty:
            continue
        every = -(-len(samples) // _MOST_LINE_POINTS)
        drawn = samples.groupby(np.arange(len(samples)) // every).max()
        time_s = samples.index.to_numpy()[::every]
        style = look(scheme)
        axes.fill_between(time_s, drawn["mean"], drawn["max"], color=style.colour, alpha=0.12, linewidth=0)
        axes.plot(time_s, drawn["max"], color=style.colour, linestyle=style.dashes, linewidth=1.4, label=scheme)
    axes.set_xlim(left=0)
    if faults is not None:
        _broken(axes, faults)
    axes.set_ylim(0, 1.05 * max(most_bytes / unit, 1))
    axes.set_xlabel("time since the first send (s)")
    axes.set_ylabel(f"queue ({name})")
    axes.grid(visible=True)
    legend(figure, axes)
    return figure


def _broken(axes: Axes, faults: pd.DataFrame) -> None:
    """A band for each fault, over the time it was in force in the first run that has it."""
    for _, changes in faults.groupby("fault") if len(faults) else ():
        first = changes[changes.scheme == changes.scheme.iloc[0]].groupby("event").confirmed_s
        begun_s, ended_s = first.min().get("begin", 0.0), first.max().get("end", axes.get_xlim()[1])
        axes.axvspan(begun_s, ended_s, color="0.5", alpha=0.15, linewidth=0, zorder=0)


@styled
def flow_completion(flows: pd.DataFrame, schemes: Sequence[str], title: str) -> Figure:
    """Share of the flows of one traffic (scheme, fct_s) that took at most so long."""
    figure, (axes,) = blank(height_in(schemes), title)
    for scheme in schemes:
        times_s = np.sort(flows.fct_s[flows.scheme == scheme].to_numpy(float))
        if not len(times_s):
            continue
        shares = np.linspace(0, 1, min(len(times_s), _MOST_LINE_POINTS) + 1)
        style = look(scheme)
        axes.plot(
            np.quantile(times_s, shares, method="inverted_cdf"),
            shares * 100,
            drawstyle="steps-post",
            color=style.colour,
            linestyle=style.dashes,
            linewidth=1.4,
            label=scheme,
        )
    axes.set_ylim(0, 102)
    axes.set_xlabel("flow completion time (s)")
    axes.set_ylabel("flows completed (%)")
    axes.grid(visible=True)
    legend(figure, axes)
    return figure


def share_scale(figures: Iterable[Figure], axis: str = "x") -> None:
    """Give what lies at the same place in several figures the same scale, so that lengths compare between them."""
    for group in zip(*(figure.axes for figure in figures), strict=True):
        limits = np.array([getattr(axes, f"get_{axis}lim")() for axes in group])
        for axes in group:
            axes.set(**{f"{axis}lim": (limits.min(), limits.max())})


def to_svg(figure: Figure, name: str) -> str:
    """As one <svg> element to put into a page. The same figure and name give the same text; other names, other ids."""
    raw = io.StringIO()
    with _style(**{"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that our font lacks: the reader's may have it
        figure.savefig(raw, format="svg", dpi=200, metadata={"Date": None})
    return _for_pages(raw.getvalue(), name, str(figure.get_label()))


def as_file(svg: str) -> str:
    """What `to_svg` gave, as a file of its own: it brings the colours that a page would have given it."""
    style = (
        "<style>svg{color:#1d2129;background:#fff;font-family:system-ui,sans-serif}"
        "@media(prefers-color-scheme:dark){svg{color:#e4e6eb;background:#15181d}}</style>"
    )
    start, rest = svg.split(">", 1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{start}>{style}{rest}\n'


def css_colour(scheme: str) -> str:
    """The scheme's colour, as a page that shows its figures writes it."""
    return _css(look(scheme).colour)


def _css(text: str) -> str:
    return re.sub(INK, "currentColor", text, flags=re.IGNORECASE)


def height_in(schemes: Sequence[str]) -> float:
    """Of a figure of lines, whose legend has three schemes a row."""
    return 1.9 + 0.16 * -(-len(schemes) // 3)


def blank(height_in: float, title: str, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    lines = textwrap.wrap(title, _TITLE_WIDTH)
    figure = Figure(figsize=(_WIDTH_IN, height_in + 0.15 * len(lines)), layout="constrained", label=title)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=9, fontweight="bold")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _points(axes: Axes, runs: pd.DataFrame, column: str, schemes: Sequence[str], words: Callable[[float], str]) -> None:
    """A row a scheme; hollow points are runs whose fidelity failed; the median, in digits as well, is of the others."""
    for row, scheme in enumerate(schemes):
        mine = runs[runs.scheme == scheme].dropna(subset=column)
        if mine.empty:
            continue
        style, median = look(scheme), mine[column][mine.fidelity == PASS].median()
        heights = row + (np.linspace(-0.22, 0.22, len(mine)) if len(mine) > 1 else np.zeros(1))
        if not np.isnan(median):
            axes.vlines(median, row - 0.34, row + 0.34, color=style.colour, linewidth=1.6)
        for trusted in (True, False):
            chosen = ((mine.fidelity == PASS) == trusted).to_numpy()
            axes.scatter(
                mine[column][chosen],
                heights[chosen],
                s=18,
                marker=style.marker,
                facecolors=style.colour if trusted else "none",
                edgecolors=style.colour,
                linewidths=0.9,
                alpha=0.85,
            )
        shown = "untrusted" if np.isnan(median) else words(median)
        axes.text(1.02, row, shown, transform=axes.get_yaxis_transform(), va="center")
    axes.set_yticks(range(len(schemes)), schemes)
    axes.set_ylim(len(schemes) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x")


def _label_cells(axes: Axes, cells: NDArray[np.float64], most: float) -> None:
    digits = 0 if most >= 100 else 1 if most >= 10 else 2
    size = min(7.5, 36 / cells.shape[1])
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            colour = "white" if value < 0.55 * most else "black"
            axes.text(column + 0.5, row + 0.5, f"{value:.{digits}f}", ha="center", va="center", color=colour, size=size)


def legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower left", ncols=min(3, len(labels)), borderaxespad=0.2)


def _count(value: float, _: float = 0) -> str:
    """In little room: 1234, 12.3k, 1.23M. Also a formatter of ticks."""
    for least, size, name in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:.3g}{name}"
    return f"{value:.0f}"


def _bytes_unit(most_bytes: float) -> tuple[float, str]:
    """The decimal unit in which `most_bytes` is a number people read."""
    for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if most_bytes >= size:
            return size, name
    return 1, "bytes"


_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_DIGITS = re.compile(r"(\.[0-9]{2})[0-9]+")


def _for_pages(svg: str, name: str, title: str) -> str:
    """Without what a page has or does not want: prolog, metadata, fonts, a style for all of it, ids met elsewhere."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg)
    used = set(re.findall(r"#(\w+)", svg))
    for unwanted in ("metadata", "defs[svg:style]"):
        for element in root.findall(f"svg:{unwanted}", {"svg": _SVG}):
            root.remove(element)
    root.set("role", "img")
    root.set("aria-label", title)
    root.set("stroke-linejoin", "round")
    for element in root.iter():
        attributes = element.attrib
        if (own := attributes.pop("id", None)) in used:
            attributes["id"] = f"{name}-{own}"
        href = attributes.get(f"{{{_XLINK}}}href", "")
        if href.startswith("#"):
            attributes[f"{{{_XLINK}}}href"] = f"#{name}-{href[1:]}"
        if "clip-path" in attributes:
            attributes["clip-path"] = attributes["clip-path"].replace("url(#", f"url(#{name}-")
        if "style" in attributes:
            attributes["style"] = _css(re.sub(r" *font-family:[^;]*;?", "", attributes["style"]))
        for key in {"d", "x", "y"} & attributes.keys():
            attributes[key] = _DIGITS.sub(r"\1", " ".join(attributes[key].split()))
        if attributes.get("transform", "").startswith("rotate(-0 "):
            del attributes["transform"]
        element.text, element.tail = (text if text and text.strip() else None for text in (element.text, element.tail))
    return ElementTree.tostring(root, encoding="unicode")
