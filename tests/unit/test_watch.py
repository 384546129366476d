"""What `run --watch` draws of two samples: loads of links by their places, and the fullest queue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.text import Text
from synthetic import ports_of

from emulator.ports import Port
from emulator.topology import LeafSpine
from experiments.commands.watch import drawing, link_loads
from traffic.watch import Far


def samples(ports: list[Port], seconds: float, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two samples so far apart, between which every port sent `share` of what it could."""
    rate_bps = np.array([port.shaping.rate_bps for port in ports])
    before = pd.DataFrame({"time_s": 7.0, "sent_bytes": 1000.0, "backlog_bytes": 0.0}, index=range(len(ports)))
    sent_bytes = before.sent_bytes + rate_bps / 8 * seconds * share
    return before, before.assign(time_s=7.0 + seconds, sent_bytes=sent_bytes)


def plain(lines: list[Text]) -> list[str]:
    return [line.plain.rstrip() for line in lines]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seconds", [0.7, 1.3])
def test_a_links_load_is_its_share_of_its_own_rate(share: float, seconds: float) -> None:
    ports = ports_of(LeafSpine(2, 3, 2))
    odd = next(place for place, port in enumerate(ports) if port.spine == 2 and port.up)
    ports[odd] = replace(ports[odd], shaping=replace(ports[odd].shaping, rate_bps=ports[odd].shaping.rate_bps // 2))
    loads = link_loads(*samples(ports, seconds, share), ports)
    assert len(loads) == 2 * 2 * 3
    assert loads.load.to_numpy() == pytest.approx(share)


def test_rows_are_leaves_and_columns_spines_up_and_down() -> None:
    ports = ports_of(LeafSpine(2, 2, 2))
    before, now = samples(ports, 1.0, 0.25)
    full = next(place for place, port in enumerate(ports) if (port.leaf, port.spine, port.up) == (1, 0, False))
    now.loc[full, "sent_bytes"] = before.sent_bytes[full] + ports[full].shaping.rate_bps / 8
    now.loc[full, "backlog_bytes"] = 34_000.0
    lines = plain(drawing(link_loads(before, now, ports), Far(0.4, 12, 1240)))
    assert lines[1].split() == ["leaf1", "25", "25", "25", "25"]
    assert lines[2].split() == ["leaf2", "25", "25", "100", "25"]
    assert lines[-1].startswith("12 of 1,240 flows have ended; carries ")
    assert lines[-1].endswith("fullest queue 34 kB, leaf2 from spine1")


def test_of_many_leaves_those_with_the_fullest_links_are_shown() -> None:
    ports = ports_of(LeafSpine(20, 2, 1))
    before, now = samples(ports, 1.0, 0.1)
    now.loc[[place for place, port in enumerate(ports) if port.leaf == 19], "sent_bytes"] *= 2
    lines = plain(drawing(link_loads(before, now, ports)))
    assert any(line.startswith("leaf20 ") for line in lines)
    assert "and 4 leaves whose links are less full" in lines


def test_a_wide_fabric_is_drawn_in_shades() -> None:
    ports = ports_of(LeafSpine(2, 16, 2))
    rows = plain(drawing(link_loads(*samples(ports, 1.0, 1.0), ports)))[1:3]
    assert [row.count("\N{FULL BLOCK}") for row in rows] == [32, 32]


def test_samples_of_one_moment_are_no_load() -> None:
    ports = ports_of(LeafSpine(2, 2, 2))
    before, _ = samples(ports, 1.0, 1.0)
    assert link_loads(before, before, ports).load.eq(0).all()
