"""A figure shows the numbers it was given, all of them, in units, in the scheme's own colour."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from experiments.results import plots
from experiments.results.svg import as_file
from traffic import schemes
from traffic.schemes import INK

SCHEMES = ["ecmp", "spray", "ethereal", "subflow-4"]


def runs() -> pd.DataFrame:
    rows = [
        {
            "scheme": scheme,
            "seed": seed,
            "fidelity": "fail" if (scheme, seed) == ("ecmp", 2) else "pass",
            "cct_over_bound": 1 + 0.3 * place + 0.1 * seed,
            "congestion_ratio": 1 + 0.1 * seed,
            "out_of_order_segments": 100 * place + seed,
            "retransmitted_segments": 0,
        }
        for place, scheme in enumerate(SCHEMES)
        for seed in (1, 2, 3)
    ]
    return pd.DataFrame(rows)


def queues(samples: int = 20) -> pd.DataFrame:
    return pd.DataFrame(
        {"scheme": scheme, "time_s": 0.05 * number, "port": port, "backlog_bytes": 1000 * number * (port == "p1")}
        for scheme in SCHEMES
        for number in range(samples)
        for port in ("p1", "p2")
    )


def flows() -> pd.DataFrame:
    return pd.DataFrame(
        {"scheme": scheme, "start_s": 0.2, "fct_s": 1 + 0.1 * number} for scheme in SCHEMES for number in range(8)
    )


def times(runs: pd.DataFrame, title: str = "ring", schemes: list[str] = SCHEMES) -> Figure:
    return plots.points(runs, [plots.CCT, plots.CONGESTION], schemes, title)


def timeline(queues: pd.DataFrame, most_bytes: float, completed: pd.DataFrame | None = None) -> Figure:
    return plots.timeline(queues, flows() if completed is None else completed, SCHEMES, "ring", most_bytes)


FIGURES: dict[str, Callable[[], Figure]] = {
    "times": lambda: times(runs()),
    "loaded": lambda: plots.points(runs().assign(loaded_s=2.0), [plots.LOADED], SCHEMES, "ring"),
    "reordering": lambda: plots.points(runs(), [plots.OUT_OF_ORDER, plots.SENT_AGAIN], SCHEMES, "ring"),
    "timeline": lambda: timeline(queues(), 19_000),
}


@pytest.fixture(scope="module")
def svgs() -> dict[str, str]:
    return {name: plots.to_svg(draw(), name) for name, draw in FIGURES.items()}


# Schemes


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [scheme.name for scheme in schemes.SCHEMES])
def test_a_scheme_can_be_seen_on_white_and_on_black(scheme: str) -> None:
    own = luminance(plots.look(scheme).colour)
    assert (1.0 + 0.05) / (own + 0.05) >= 2.9 and (own + 0.05) / (luminance("#15181d") + 0.05) >= 3


def test_schemes_differ_in_colour_and_without_colour() -> None:
    names = (*(scheme.name for scheme in schemes.SCHEMES), "subflow-2", "subflow-4", "subflow-8")
    looks = [plots.look(name) for name in names]
    for kind in ("colour", "marker", "dashes"):
        assert len({getattr(look, kind) for look in looks}) == len(looks), kind


def test_no_two_schemes_look_alike_not_even_in_grey() -> None:
    names = [*(scheme.name for scheme in schemes.SCHEMES), *(f"subflow-{number}" for number in range(2, 65))]
    looks = [plots.look(name) for name in names]
    assert len({(look.marker, look.dashes) for look in looks}) == len(names)


def test_lines_of_the_usual_numbers_differ_in_colour_or_dashes() -> None:
    looks = [plots.look(f"subflow-{number}") for number in (2, 3, 4, 5, 6, 8, 12, 16, 32, 64)]
    assert len({(look.colour, look.dashes) for look in looks}) == len(looks)


@given(st.text(max_size=20))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_scheme_that_only_another_version_knows_is_drawn_as_no_known_one_is(name: str) -> None:
    assert plots.look(f"newer-{name}").marker not in {scheme.look.marker for scheme in schemes.SCHEMES}
    plots.timeline(queues(), pd.DataFrame({"scheme": ["newer-9"], "start_s": 0.0, "fct_s": [1.0]}), ["newer-9"], "r", 9)


# What figures show


def points(figure: Figure, axes: int = 0) -> list[PathCollection]:
    return [drawn for drawn in figure.axes[axes].collections if isinstance(drawn, PathCollection)]


def test_every_seed_is_a_point_and_hollow_if_it_cannot_be_trusted() -> None:
    figure = FIGURES["times"]()
    shown = sorted(float(x) for dots in points(figure) for x in np.asarray(dots.get_offsets())[:, 0])
    assert shown == pytest.approx(sorted(runs().cct_over_bound))
    [hollow] = [
        dots
        for dots in points(figure)
        if len(np.asarray(dots.get_offsets())) and not len(np.asarray(dots.get_facecolor()))
    ]
    assert np.asarray(hollow.get_offsets())[:, 0] == pytest.approx([1.2]), "the one whose fidelity failed"


def bars(figure: Figure) -> int:
    return sum(isinstance(drawn, LineCollection) for drawn in figure.axes[0].collections)


def numbers(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    ("seeds", "trusted", "number", "median"),
    [(5, 5, "1.30", True), (3, 3, "1.20", True), (3, 2, "1.10, 1.20", False), (2, 2, "1.10, 1.20", False),
     (1, 1, "1.10", False), (2, 0, "untrusted", False)],
)  # fmt: skip
def test_a_median_is_drawn_of_three_and_fewer_have_their_own_numbers(
    seeds: int, trusted: int, number: str, median: bool
) -> None:
    given = pd.DataFrame(
        {
            "scheme": "ecmp", "seed": seed, "cct_over_bound": 1 + 0.1 * seed, "congestion_ratio": 1.0,
            "fidelity": "pass" if seed <= trusted else "fail",
        }
        for seed in range(1, seeds + 1)
    )  # fmt: skip
    figure = times(given, schemes=["ecmp"])
    assert numbers(figure) == [number] and bars(figure) == median
    assert sum(len(np.asarray(dots.get_offsets())) for dots in points(figure)) == seeds


def test_reordering_shows_both_counts() -> None:
    figure = FIGURES["reordering"]()
    for axes, column in enumerate(("out_of_order_segments", "retransmitted_segments")):
        shown = sorted(float(x) for dots in points(figure, axes) for x in np.asarray(dots.get_offsets())[:, 0])
        assert shown == sorted(runs()[column])


def test_no_bytes_at_all_are_a_figure_too() -> None:
    plots.to_svg(timeline(queues().assign(backlog_bytes=0), 0), "queues")
    plots.to_svg(timeline(queues().iloc[:0], 0, flows().iloc[:0]), "nothing")


def row_heights(figure: Figure) -> dict[str, float]:
    """How high each scheme's light shade reaches in its row, of a row's height."""
    rows = [drawn for drawn in figure.axes[0].collections if isinstance(drawn, PolyCollection)][::2]
    tops = [float(row.get_paths()[0].get_extents().y1) for row in rows]
    return {scheme: top - place for place, (scheme, top) in enumerate(zip(reversed(SCHEMES), tops, strict=True))}


@pytest.mark.parametrize("samples", [20, 5000])
def test_no_peak_of_a_queue_is_lost(samples: int) -> None:
    figure = timeline(queues(samples), 2000.0 * (samples - 1))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == SCHEMES[::-1]
    assert all(height == pytest.approx(0.86 / 2) for height in row_heights(figure).values()), "half of the most"
    most = {20: "19.0", 5000: "5.00"}[samples]
    assert numbers(figure).count(most) == len(SCHEMES), "in kB, and in MB"


def test_queues_of_two_folders_are_drawn_to_one_scale_and_unit() -> None:
    small, large = (timeline(queues(n), 4_999_000) for n in (20, 5000))
    assert "most (MB)" in numbers(small) and "most (MB)" in numbers(large)
    assert row_heights(small)["ecmp"] == pytest.approx(0.86 * 19_000 / 4_999_000)
    assert row_heights(large)["ecmp"] == pytest.approx(0.86)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=600))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_completion_line_is_the_distribution(times_s: list[float]) -> None:
    completed = pd.DataFrame({"scheme": "ecmp", "start_s": 1.0, "fct_s": times_s})
    lines = timeline(queues(), 1e6, completed).axes[0].lines
    [line] = [line for line in lines if line.get_drawstyle() == "steps-post"]
    x, y = (np.asarray(data, float) for data in line.get_data())
    shares = (y - (len(SCHEMES) - 1)) / 0.86
    assert (x[-1], shares[-1]) == (pytest.approx(1 + max(times_s)), pytest.approx(1))
    ends_s = 1 + np.array(times_s)
    for time_s, share in zip(x, shares, strict=True):
        assert np.mean(ends_s <= time_s) >= share - 1e-9, "so many had completed by then"
        assert np.mean(ends_s < time_s) <= share + 1e-9, "and no more before"


def test_a_scheme_has_one_colour_in_all_figures(svgs: dict[str, str]) -> None:
    for name in FIGURES:
        for scheme in ("ecmp", "spray", "ethereal"):
            assert plots.look(scheme).colour.lower() in svgs[name], (name, scheme)


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_says_its_unit(name: str) -> None:
    for axes in FIGURES[name]().axes[:2]:
        for axis in (axes.xaxis, axes.yaxis):
            names = [label.get_text() for label in axis.get_ticklabels() if label.get_text()]
            counted = names and not names[0].replace(".", "").replace(",", "").isdigit()  # schemes, by name
            label = axis.get_label_text()
            assert re.search(r"\(.+\)", label) or counted or not names, label


def test_scales_that_are_shared_hold_everything() -> None:
    narrow = times(runs()[lambda r: r.scheme == "ecmp"], schemes=["ecmp"])
    wide = FIGURES["times"]()
    plots.share_scale([narrow, wide])
    (low, high), other = (figure.axes[0].get_xlim() for figure in (narrow, wide))
    assert (low, high) == other and low <= 1 and high >= runs().cct_over_bound.max()


# SVG


def test_the_same_figure_is_the_same_text(svgs: dict[str, str]) -> None:
    assert {name: plots.to_svg(draw(), name) for name, draw in FIGURES.items()} == svgs


def test_a_users_own_matplotlib_settings_change_nothing(svgs: dict[str, str]) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert plots.to_svg(FIGURES["times"](), "times") == svgs["times"]


def test_figures_of_one_page_do_not_share_ids(svgs: dict[str, str]) -> None:
    seen: set[str] = set()
    for name, svg in svgs.items():
        ids = re.findall(r'\bid="([^"]+)"', svg)
        assert len(ids) == len(set(ids)) and not seen & set(ids), name
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg)) <= set(ids), "every reference has its target"
        seen |= set(ids)


def test_text_stays_text_and_takes_the_pages_colour_and_font(svgs: dict[str, str]) -> None:
    for name, svg in svgs.items():
        words = "".join(ElementTree.fromstring(svg).itertext())
        assert "ring" in words and "ring" in ElementTree.fromstring(svg).get("aria-label", "")
        assert "currentColor" in svg and INK not in svg and "font-family" not in svg, name
        assert "<style" not in svg and "metadata" not in svg, "nothing that would reach beyond the figure"


def test_a_name_is_shown_as_it_is() -> None:
    title = 'a <b> & $x_1$ "c" 你好.cm'
    figure = times(runs(), title)
    assert title in "".join(ElementTree.fromstring(plots.to_svg(figure, "odd")).itertext())


def test_a_file_brings_its_colours_for_light_and_dark(svgs: dict[str, str]) -> None:
    text = as_file(svgs["times"])
    ElementTree.fromstring(text)
    assert "prefers-color-scheme" in text and text.startswith("<?xml")
