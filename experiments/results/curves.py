"""What a sweep changes: the runs of one traffic along one swept key, and how they are drawn; so is a frontier."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from experiments.judge.rows import PASS
from experiments.results.drawn import Axes, Figure
from experiments.results.plots import blank, height_in, legend, look, styled
from experiments.spec.units import parse_rate_bps, parse_share, parse_size_bytes, parse_time_s
from experiments.theory.crossing import Crossing
from traffic.schemes import INK

_SPREAD = 0.012  # how far the points of schemes stand apart, of the axis' length
_BESIDE = ", "
_SETTING = re.compile(rf"{_BESIDE}(?=[\w.]+=)")


@dataclass(frozen=True)
class Curve:
    """The runs of one traffic that differ in `key` alone; `places` says where each of its values stands on the axis.

    Values that are numbers stand where they belong, all others side by side.
    """

    name: str
    key: str
    places: dict[str, float]
    runs: pd.DataFrame = field(repr=False)
    """With a column `value`, as it was written."""


def curves_of(runs: pd.DataFrame) -> list[Curve]:
    """Return a curve for each traffic and setting of the other keys, along the first key that has several values."""
    if "point" not in runs:
        return []
    swept = runs[runs.point.notna()]
    if swept.empty:
        return []
    settings = [dict(part.split("=", 1) for part in _SETTING.split(point)) for point in swept.point]
    values = {key: list(dict.fromkeys(setting[key] for setting in settings)) for key in settings[0]}
    key = next((key for key, texts in values.items() if len(texts) > 1), next(iter(values)))
    names = [
        _BESIDE.join([traffic.removesuffix(_BESIDE + point), *(f"{k}={v}" for k, v in setting.items() if k != key)])
        for traffic, point, setting in zip(swept.traffic, swept.point, settings, strict=True)
    ]
    placed = swept.assign(value=[setting[key] for setting in settings])
    places = _places(values[key])
    return [Curve(str(name), key, places, rows) for name, rows in placed.groupby(names, sort=False)]


@styled
def draw_curve(curve: Curve, schemes: Sequence[str]) -> Figure:
    """Draw CCT / bound over the values of a key: a point a seed, the prediction as a line; hollow: failed fidelity."""
    figure, (axes,) = blank(height_in(schemes), curve.name)
    curve_on(axes, curve, schemes)
    legend(figure, axes)
    return figure


def curve_on(axes: Axes, curve: Curve, schemes: Sequence[str]) -> None:
    """Draw what `draw_curve` shows, but for its legend."""
    runs = curve.runs.assign(place=curve.runs.value.map(curve.places))
    width = max(curve.places.values()) - min(curve.places.values()) or 1.0
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.6)
    for number, scheme in enumerate(schemes):
        mine, style = runs[runs.scheme == scheme], look(scheme)
        aside = (number - (len(schemes) - 1) / 2) * _SPREAD * width
        for trusted in (True, False):
            chosen = mine[(mine.fidelity == PASS) == trusted]
            axes.scatter(
                chosen.place + aside,
                chosen.cct_over_bound,
                s=14,
                marker=style.marker,
                facecolors=style.colour if trusted else "none",
                edgecolors=style.colour,
                linewidths=0.9,
                alpha=0.85,
            )
        line = (mine.predicted_cct_s / mine.bound_s).groupby(mine.place).median().dropna()
        axes.plot(line.index, line, color=style.colour, linestyle=style.dashes, linewidth=1.2, label=scheme)
    axes.set_xticks(list(curve.places.values()), list(curve.places))
    axes.set_xlabel(curve.key)
    axes.set_ylabel("CCT / bound")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.95), max(high, 1.25))  # what differs by a hundredth should not look far apart
    axes.grid(visible=True, axis="y")


@styled
def draw_frontier(title: str, key: str, limit: float, searches: Mapping[str, Crossing]) -> Figure:
    """Draw splitting over spraying on an axis: of each search a point a seed, medians, and where they pass `limit`."""
    figure, (axes,) = blank(height_in(list(searches)), title)
    axes.axhline(limit, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.6)
    for (name, found), colour, marker in zip(searches.items(), ("#0072B2", "#D55E00"), ("o", "^"), strict=False):
        for each in found.tried:
            places = [each.value] * len(each.ratios)
            axes.scatter(places, each.ratios, s=9, marker=marker, facecolors="none", edgecolors=colour, linewidths=0.6)
        known = [each for each in found.tried if each.ratios]
        medians = [float(np.median(each.ratios)) for each in known]
        places = [each.value for each in known]
        axes.plot(places, medians, color=colour, linewidth=1.4, marker=marker, markersize=3.5, label=name)
        if found.low is not None and found.high is not None:
            axes.axvspan(found.low, found.high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel(key)
    axes.set_ylabel("splitting / spraying")
    axes.grid(visible=True)
    legend(figure, axes)
    return figure


def _places(values: Sequence[str]) -> dict[str, float]:
    numbers = [number_of(value) for value in values]
    known = [number for number in numbers if number is not None]
    side_by_side = len(known) < len(values) or len(set(known)) < len(values)
    places = np.arange(len(values), dtype=float).tolist() if side_by_side else known
    return dict(zip(values, places, strict=True))


def number_of(text: str) -> float | None:
    """Return the number that a value of an experiment is, in its base unit; None of what is none."""
    readers: tuple[Callable[[str], float], ...] = (
        float,
        lambda share: parse_share(share, float("inf")),
        parse_rate_bps,
        parse_size_bytes,
        parse_time_s,
    )
    for read in readers:
        with suppress(ValueError):
            return float(read(text))
    return None
