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
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from experiments.results import plots
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
            "out_of_order_segments": 100 * place + seed,
            "retransmitted_segments": 0,
        }
        for place, scheme in enumerate(SCHEMES)
        for seed in (1, 2, 3)
    ]
    return pd.DataFrame(rows)


def links(leaves: int = 3, spines: int = 2, failed: tuple[int, int] | None = None) -> pd.DataFrame:
    """Bytes that tell every link and direction apart: up 1.01 MB on leaf 1 to spine 1; down ten times as much."""
    rows = [
        {"leaf": leaf, "spine": spine, "direction": direction, "tx_bytes": factor * (100 * leaf + spine + 101) * 10_000}
        for leaf in range(leaves)
        for spine in range(spines)
        for direction, factor in (("up", 1), ("down", 10))
        if (leaf, spine) != failed
    ]
    host = {"leaf": 0, "spine": None, "direction": "up", "tx_bytes": 10**12}
    return pd.DataFrame([*rows, host]).astype({"spine": "Int64"})


def queues(samples: int = 20) -> pd.DataFrame:
    return pd.DataFrame(
        {"scheme": scheme, "time_s": 0.05 * number, "port": port, "backlog_bytes": 1000 * number * (port == "p1")}
        for scheme in SCHEMES
        for number in range(samples)
        for port in ("p1", "p2")
    )


def flows() -> pd.DataFrame:
    return pd.DataFrame({"scheme": scheme, "fct_s": 1 + 0.1 * number} for scheme in SCHEMES for number in range(8))


FIGURES: dict[str, Callable[[], Figure]] = {
    "ratio": lambda: plots.ratio(runs(), "cct_over_bound", SCHEMES, "ring", "CCT / bound (ratio)"),
    "reordering": lambda: plots.reordering(runs(), SCHEMES, "ring"),
    "links": lambda: plots.link_bytes(links(), "ring", 33_000_000),
    "links16": lambda: plots.link_bytes(links(16, 16), "ring", 170_000_000),
    "links63": lambda: plots.link_bytes(links(4, 63), "ring", 170_000_000),
    "queues": lambda: plots.queue_depth(queues(), SCHEMES, "ring", 19_000),
    "fct": lambda: plots.flow_completion(flows(), SCHEMES, "ring"),
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
    plots.flow_completion(pd.DataFrame({"scheme": ["newer-9"], "fct_s": [1.0]}), ["newer-9"], "ring")


# What figures show


def points(figure: Figure, axes: int = 0) -> list[PathCollection]:
    return [drawn for drawn in figure.axes[axes].collections if isinstance(drawn, PathCollection)]


def test_every_seed_is_a_point_and_hollow_if_it_cannot_be_trusted() -> None:
    figure = FIGURES["ratio"]()
    shown = sorted(float(x) for dots in points(figure) for x in np.asarray(dots.get_offsets())[:, 0])
    assert shown == pytest.approx(sorted(runs().cct_over_bound))
    [hollow] = [
        dots
        for dots in points(figure)
        if len(np.asarray(dots.get_offsets())) and not len(np.asarray(dots.get_facecolor()))
    ]
    assert np.asarray(hollow.get_offsets())[:, 0] == pytest.approx([1.2]), "the one whose fidelity failed"


def test_every_median_is_there_in_digits() -> None:
    assert {"1.20", "1.50", "1.80", "2.10"} <= {text.get_text() for text in FIGURES["ratio"]().axes[0].texts}


def test_reordering_shows_both_counts() -> None:
    figure = FIGURES["reordering"]()
    for axes, column in enumerate(("out_of_order_segments", "retransmitted_segments")):
        shown = sorted(float(x) for dots in points(figure, axes) for x in np.asarray(dots.get_offsets())[:, 0])
        assert shown == sorted(runs()[column])


def cells(figure: Figure) -> list[np.ndarray]:
    meshes = (mesh for axes in figure.axes[:2] for mesh in axes.collections if isinstance(mesh, QuadMesh))
    return [np.ma.filled(np.ma.asarray(mesh.get_array()), np.nan) for mesh in meshes]


def test_heat_map_has_leaves_down_and_spines_across_first_up_then_down() -> None:
    figure = FIGURES["links"]()
    up, down = cells(figure)
    assert up == pytest.approx(np.array([[1.01, 1.02], [2.01, 2.02], [3.01, 3.02]])), "MB, without the host's port"
    assert down == pytest.approx(10 * up)
    top = figure.axes[0].transData.transform((0.5, 0.5))[1]
    assert top > figure.axes[0].transData.transform((0.5, 2.5))[1], "the first leaf is the uppermost row"
    assert {text.get_text() for text in figure.axes[1].texts} == {f"{value:.1f}" for value in down.flat}


def test_a_failed_link_is_an_empty_cell() -> None:
    up, _ = cells(plots.link_bytes(links(failed=(1, 0)), "ring", 33_000_000))
    assert np.argwhere(np.isnan(up)).tolist() == [[1, 0]]


def test_no_bytes_at_all_are_a_figure_too() -> None:
    nothing = links().assign(tx_bytes=0)
    plots.to_svg(plots.link_bytes(nothing, "ring", 0), "links")
    plots.to_svg(plots.queue_depth(queues().assign(backlog_bytes=0), SCHEMES, "ring", 0), "queues")


def test_large_heat_map_has_a_scale_instead_of_numbers(svgs: dict[str, str]) -> None:
    for name in ("links16", "links63"):
        figure = FIGURES[name]()
        assert not figure.axes[0].texts and len(figure.axes) == 3
        assert len(svgs[name]) < 30_000


@pytest.mark.parametrize("samples", [20, 5000])
def test_no_peak_of_a_queue_is_lost(samples: int) -> None:
    lines = plots.queue_depth(queues(samples), SCHEMES, "ring", 1000 * (samples - 1)).axes[0].lines
    assert [line.get_label() for line in lines] == SCHEMES
    unit = 1000 if samples == 20 else 1_000_000
    assert [np.asarray(line.get_ydata()).max() * unit for line in lines] == pytest.approx(
        [1000.0 * (samples - 1)] * len(SCHEMES)
    )
    assert all(len(np.asarray(line.get_xdata())) <= 240 for line in lines)


def test_queues_of_two_folders_are_drawn_to_one_scale_and_unit() -> None:
    small, large = (plots.queue_depth(queues(n), SCHEMES, "ring", 4_999_000).axes[0] for n in (20, 5000))
    assert small.get_ylabel() == large.get_ylabel() == "queue (MB)"
    assert small.get_ylim() == large.get_ylim() and small.get_ylim()[1] > 4.999
    assert np.asarray(small.lines[0].get_ydata()).max() == pytest.approx(0.019)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=600))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_completion_line_is_the_distribution(times_s: list[float]) -> None:
    figure = plots.flow_completion(pd.DataFrame({"scheme": "ecmp", "fct_s": times_s}), ["ecmp", "spray"], "ring")
    [line] = figure.axes[0].lines
    x, percent = (np.asarray(data, float) for data in line.get_data())
    assert (x[-1], percent[-1]) == (max(times_s), 100)
    for time_s, share in zip(x, percent / 100, strict=True):
        assert np.mean(np.array(times_s) <= time_s) >= share - 1e-9, "so many had completed by then"
        assert np.mean(np.array(times_s) < time_s) <= share + 1e-9, "and no more before"


def test_a_scheme_has_one_colour_in_all_figures(svgs: dict[str, str]) -> None:
    for name in ("ratio", "reordering", "queues", "fct"):
        for scheme in ("ecmp", "spray", "ethereal"):
            assert plots.look(scheme).colour.lower() in svgs[name], (name, scheme)


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_says_its_unit(name: str) -> None:
    for axes in FIGURES[name]().axes[:2]:
        for axis in (axes.xaxis, axes.yaxis):
            names = [label.get_text() for label in axis.get_ticklabels() if label.get_text()]
            counted = names and not names[0].replace(".", "").replace(",", "").isdigit()  # schemes, by name
            label = axis.get_label_text()
            assert re.search(r"\(.+\)", label) or label == "leaf" or counted or not names, label


def test_scales_that_are_shared_hold_everything() -> None:
    narrow = plots.ratio(runs()[lambda r: r.scheme == "ecmp"], "cct_over_bound", ["ecmp"], "a", "x (ratio)")
    wide = FIGURES["ratio"]()
    plots.share_scale([narrow, wide])
    (low, high), other = (figure.axes[0].get_xlim() for figure in (narrow, wide))
    assert (low, high) == other and low <= 1 and high >= runs().cct_over_bound.max()


# SVG


def test_the_same_figure_is_the_same_text(svgs: dict[str, str]) -> None:
    assert {name: plots.to_svg(draw(), name) for name, draw in FIGURES.items()} == svgs


def test_a_users_own_matplotlib_settings_change_nothing(svgs: dict[str, str]) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert plots.to_svg(FIGURES["ratio"](), "ratio") == svgs["ratio"]


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
    figure = plots.ratio(runs(), "cct_over_bound", SCHEMES, title, "CCT / bound (ratio)")
    assert title in "".join(ElementTree.fromstring(plots.to_svg(figure, "odd")).itertext())


def test_a_file_brings_its_colours_for_light_and_dark(svgs: dict[str, str]) -> None:
    text = plots.as_file(svgs["ratio"])
    ElementTree.fromstring(text)
    assert "prefers-color-scheme" in text and text.startswith("<?xml")
