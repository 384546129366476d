"""The drawing of a fabric has what the fabric has, and says how much of it where that would be too much to draw."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.results.drawing import fabric_drawing


def drawn(leaves: object, spines: object, hosts: object, broken: str = "") -> str:
    fabric = {"leaves": leaves, "spines": spines, "hosts_per_leaf": hosts, "host_rate": "<b>", "fabric_rate": "20mbit"}
    return fabric_drawing(fabric, broken)


@given(st.integers(1, 250), st.integers(1, 63), st.integers(1, 256))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_link_between_switches_that_are_drawn(leaves: int, spines: int, hosts: int) -> None:
    root = ElementTree.fromstring(drawn(leaves, spines, hosts))
    tags = [element.tag.rpartition("}")[2] for element in root]
    rows = [min(count, 8) - (count > 8) for count in (leaves, spines)]
    assert tags.count("rect") == sum(rows)
    assert tags.count("circle") == rows[0] * min(hosts, 4)
    assert tags.count("path") == rows[0] * rows[1] + rows[0] * min(hosts, 4)
    words = "".join(root.itertext())
    assert f"{spines} spine" in words and f"{hosts} host" in words and "<b>" in words


def test_links_that_faults_name_are_dashed() -> None:
    assert drawn(2, 2, 2, "leaf1-spine2 leaf2-spine2").count("stroke-dasharray") == 2
    assert "dasharray" not in drawn(2, 2, 2, "leaf11-spine2")


def test_links_that_have_failed_are_dotted_and_a_spine_has_its_rate() -> None:
    counts = {"leaves": 2, "spines": 3, "hosts_per_leaf": 2}
    uneven = fabric_drawing({**counts, "failed": ["spine3", "leaf1-spine2"], "spine_rates": {"spine1": "50%"}})
    assert uneven.count('stroke-dasharray="1 3"') == 3
    assert [text.text for text in ElementTree.fromstring(uneven).iter() if text.text == "50%"] == ["50%"]
    for damaged in ({"failed": 5, "spine_rates": "all"}, {"failed": [{}], "spine_rates": {"spine9": {}}}):
        assert "dasharray" not in fabric_drawing({**counts, **damaged})


@pytest.mark.parametrize("count", [None, 0, "four", True, 2.5])
def test_no_drawing_of_what_is_not_known(count: object) -> None:
    assert drawn(count, 2, 2) == ""
