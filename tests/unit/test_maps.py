"""A heat map shows every fabric link over its ideal share: 1.00 is blank, the fullest is named, on one scale."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.topology import LeafSpine
from experiments.results.maps import heat_map, over_ideal, scale_of
from experiments.theory.loads import LinkBytes, ratio_to_ideal

_SVG = "{http://www.w3.org/2000/svg}"


def links(up: np.ndarray, down: np.ndarray, failed: tuple[int, int] | None = None) -> pd.DataFrame:
    rows = [
        {"leaf": leaf, "spine": spine, "direction": direction, "tx_bytes": int(cells[leaf, spine])}
        for direction, cells in (("up", up), ("down", down))
        for leaf, spine in np.ndindex(*cells.shape)
        if (leaf, spine) != failed
    ]
    host = {"leaf": 0, "spine": None, "direction": "up", "tx_bytes": 10**12}
    return pd.DataFrame([*rows, host]).astype({"spine": "Int64"})


EVEN = np.full((3, 2), 100)


@given(st.lists(st.integers(0, 1000), min_size=12, max_size=12).filter(any))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_fullest_cell_is_the_congestion_ratio(bytes_: list[int]) -> None:
    up, down = np.reshape(bytes_, (2, 3, 2))
    ideal = LinkBytes(*(np.array(cells).mean(axis=1, keepdims=True) for cells in (up, down)))
    wanted = ratio_to_ideal(LinkBytes(up.astype(float), down.astype(float)), ideal, LeafSpine(3, 2, 1))
    assert np.nanmax(over_ideal(links(up, down))) == pytest.approx(wanted)


def drawn(up: np.ndarray, down: np.ndarray, most: float, scheme: str = "ecmp") -> list[ElementTree.Element]:
    """The groups of cells, up and down."""
    return ElementTree.fromstring(heat_map(up, down, scheme, "about", most)).findall(f"{_SVG}g")


def test_ideal_shares_and_less_are_blank() -> None:
    for cells in (np.ones((3, 2)), np.full((3, 2), 0.4), np.full((3, 2), 1.004)):
        assert all(len(group) == 0 for group in drawn(cells, cells, 2.0))


def test_what_is_over_is_coloured_where_it_is_leaves_down_and_spines_across() -> None:
    up, down = np.ones((3, 2)), np.ones((3, 2))
    up[2, 1] = 2.0
    left, right = drawn(up, down, 2.0)
    assert [shape.get("d") for shape in left] == ["M1 2h1v1h-1z"] and len(right) == 0
    assert left[0].get("fill-opacity") == "1.00", "it is the end of the scale"


def test_one_scale_for_all_maps() -> None:
    cells = np.array([[1.5, 1.0]])
    shades = [float(drawn(cells, cells, most)[0][0].get("fill-opacity", "")) for most in (1.5, 2.0, 5.0)]
    assert shades == sorted(shades, reverse=True) and len(set(shades)) == 3
    assert re.search(r">1.00<.*>2.66<", scale_of(2.66))


def test_a_link_that_is_not_there_is_a_stroke() -> None:
    up, down = over_ideal(links(EVEN, EVEN, failed=(1, 0)))
    assert np.argwhere(np.isnan(up)).tolist() == np.argwhere(np.isnan(down)).tolist() == [[1, 0]]
    assert drawn(up, down, 2.0)[0].findall(f"{_SVG}path")[-1].get("d") == "M0 1l1 1"


def test_no_bytes_at_all_are_a_map_too() -> None:
    up, down = over_ideal(links(0 * EVEN, 0 * EVEN))
    assert "0.00" in heat_map(up, down, "ecmp", "about", 1.0)


def test_the_fullest_link_of_many_leaves_is_not_lost() -> None:
    cells = np.ones((250, 63))
    cells[249, 62] = 3.0
    [shape] = drawn(cells, np.ones((250, 63)), 3.0)[0]
    assert shape.get("fill-opacity") == "1.00" and "3.00" in heat_map(cells, cells, "ecmp", "", 3.0)


def test_names_are_shown_as_they_are_and_fit() -> None:
    root = ElementTree.fromstring(heat_map(EVEN, EVEN, '<b>"&', 'a "<b>"', 2.0))
    assert '<b>"&' in "".join(root.itertext()) and root.get("aria-label") == 'a "<b>"'
    assert len(next(ElementTree.fromstring(heat_map(EVEN, EVEN, "x" * 90, "", 2.0)).itertext())) <= 12
