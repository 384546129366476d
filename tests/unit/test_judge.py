"""Numbers of a run whose numbers are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import EVERY_SCHEME, START_S, healthy_run, place, planted

from emulator.meters.meters import Samples
from experiments.judge.evidence import ReplayEvidence
from experiments.judge.rows import Judged, judge_replay

IDENTITY = {"run_id": "perm-ethereal-1", "experiment": "unit", "scheme": "ethereal", "traffic": "perm", "seed": 1}
COLUMNS = {
    *("flows", "subflows", "cut_flows", "cct_s", "bound_s", "cct_over_bound", "algbw_bps", "busbw_bps"),
    "congestion_ratio",
    *("fct_p50_s", "fct_p99_s", "retransmitted_segments", "timeouts", "out_of_order_segments", "drops_packets"),
    *("queue_peak_bytes", "cpu_idle_min", "fidelity", "fidelity_reasons"),
}


@pytest.fixture(scope="module")
def judged(healthy: ReplayEvidence) -> Judged:
    return judge_replay(healthy, IDENTITY)


def carrying(run: ReplayEvidence, **tx_bytes: int) -> ReplayEvidence:
    """Ports (their names with _ for -) that sent other amounts; every other fabric port sent 1,000,000 bytes."""
    after = run.measured.after.copy()
    for number, port in enumerate(run.ports):
        sent = tx_bytes.pop(port.name.replace("-", "_"), 1_000_000)
        after.loc[number, "tx_bytes"] = run.measured.before.tx_bytes[number] + sent
    assert not tx_bytes, "unknown ports"
    return planted(run, after=after)


def test_row_begins_with_what_was_known_and_has_every_column(judged: Judged) -> None:
    assert dict(list(judged.row.items())[: len(IDENTITY)]) == IDENTITY
    assert set(judged.row) >= COLUMNS


def test_times_and_bandwidths(healthy: ReplayEvidence, judged: Judged) -> None:
    """algbw is the message size over the time it took; busbw that times the collective's factor (nccl-tests)."""
    row, replay = judged.row, healthy.measured.result
    assert row["cct_s"] == replay.cct_s == max(replay.finished_s) - START_S
    assert row["cct_over_bound"] == pytest.approx(row["cct_s"] / row["bound_s"])
    assert row["algbw_bps"] * row["cct_s"] == pytest.approx(8 * 5_000_000)
    schedule = replace(healthy.plan.schedule, busbw_factor=1.5)
    other = judge_replay(replace(healthy, plan=replace(healthy.plan, schedule=schedule)), IDENTITY).row
    assert other["busbw_bps"] == pytest.approx(1.5 * other["algbw_bps"])
    assert row["busbw_bps"] == row["algbw_bps"]


def test_flow_completion_times(healthy: ReplayEvidence, judged: Judged) -> None:
    replay = healthy.measured.result
    assert judged.frames["flows"].fct_s.to_numpy() == pytest.approx(np.array(replay.finished_s) - START_S)
    assert (judged.frames["flows"].start_s == 0).all(), "times count from the first send"
    assert judged.row["fct_p50_s"] == pytest.approx(np.median(judged.frames["flows"].fct_s))
    assert judged.row["fct_p50_s"] < judged.row["fct_p99_s"] <= judged.row["cct_s"]
    assert judged.row["flows"] == len(judged.frames["flows"]) == 12


def test_subflows_have_their_path_and_what_tcp_said(healthy: ReplayEvidence, judged: Judged) -> None:
    """Of three flows to one leaf over two spines, the third is cut in two."""
    assert judged.row["subflows"] == len(judged.frames["subflows"]) == 16
    assert judged.row["cut_flows"] == 4
    columns = list(judged.row)
    assert columns.index("cut_flows") == columns.index("subflows") + 1
    assert list(judged.frames["subflows"].subflow) == list(range(16))
    assert set(judged.frames["subflows"].path_tag) == {1, 2}
    assert judged.frames["subflows"].received_bytes.sum() == sum(
        flow.size_bytes for flow in healthy.plan.schedule.flows
    )
    assert judged.row["retransmitted_segments"] == judged.frames["subflows"].retransmitted_segments.sum() == 8
    assert judged.row["out_of_order_segments"] == judged.frames["subflows"].out_of_order_segments.sum() == 48


def test_links_count_the_run_alone(healthy: ReplayEvidence, judged: Judged) -> None:
    """Counters are of the whole life of a port; what they said before is taken off."""
    links = judged.frames["links"].set_index("port")
    assert (links.tx_packets == links.loc[list(links.peer)].rx_packets.to_numpy()).all()
    total = 5_055_570  # of every host: data, and the acknowledgements of as much
    assert links.tx_bytes["h1-eth0"] == links.tx_bytes["leaf1-eth3"] == total
    assert links.direction["leaf1-eth3"] == "up" and links.direction["spine1-eth1"] == "down"
    assert links.spine["spine2-eth1"] == 1 and links.leaf["spine2-eth1"] == 0 and pd.isna(links.host["spine2-eth1"])
    assert links.host["leaf2-eth2"] == 3 and pd.isna(links.spine["leaf2-eth2"])
    assert judged.row["queue_peak_bytes"] == links.queue_peak_bytes.max() > 0


def test_drops_and_peaks_are_their_ports(healthy: ReplayEvidence) -> None:
    """Drops are totals since a port was made: those of earlier runs do not count."""
    queues = healthy.measured.samples.queues.copy()
    own = queues.port == place(healthy, "leaf2-eth4")
    queues["drops_packets"] += 40
    queues.loc[own & (queues.time_s > START_S + 1), "drops_packets"] += 6
    queues.loc[own & (queues.time_s.between(START_S + 1, START_S + 1.04)), "backlog_bytes"] = 3_999_999
    run = planted(healthy, samples=Samples(queues, healthy.measured.samples.cpu))
    judged = judge_replay(run, IDENTITY)
    links = judged.frames["links"].set_index("port")
    assert judged.row["drops_packets"] == links.drops_packets["leaf2-eth4"] == links.drops_packets.sum() == 6
    assert judged.row["queue_peak_bytes"] == links.queue_peak_bytes["leaf2-eth4"] == 3_999_999


def test_queues_are_named_and_count_from_the_first_send(healthy: ReplayEvidence, judged: Judged) -> None:
    assert set(judged.frames["queues"].port) == {port.name for port in healthy.ports}
    assert judged.frames["queues"].time_s.min() == pytest.approx(-0.01)


# How far from ideal spraying


def test_equal_loads_are_ideal(judged: Judged) -> None:
    assert judged.row["congestion_ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("loads", "ratio"),
    [
        ({"leaf1_eth3": 3_000_000}, 1.5),  # up: 3 and 1, where ideal is 2 and 2
        ({"spine2_eth2": 3_000_000}, 1.5),  # down, likewise
        ({"leaf1_eth3": 2_000_000, "leaf1_eth4": 2_000_000, "leaf2_eth3": 1_200_000}, 1.0),  # the fullest is ideal
        ({"leaf1_eth3": 2_000_000, "leaf1_eth4": 0}, 2.0),
        ({"h1_eth0": 9_000_000, "leaf1_eth1": 9_000_000}, 1.0),  # hosts' links have one path
    ],
)  # fmt: skip
def test_congestion_ratio(healthy: ReplayEvidence, loads: dict[str, int], ratio: float) -> None:
    assert judge_replay(carrying(healthy, **loads), IDENTITY).row["congestion_ratio"] == pytest.approx(ratio)


def test_nothing_across_the_fabric_is_ideal(healthy: ReplayEvidence) -> None:
    run = planted(healthy, after=healthy.measured.before)
    assert judge_replay(run, IDENTITY).row["congestion_ratio"] == 1.0


# The verdict on the run


def test_healthy_run_passes(judged: Judged) -> None:
    assert (judged.row["fidelity"], judged.row["fidelity_reasons"]) == ("pass", "")
    assert judged.row["cpu_idle_min"] == pytest.approx(0.45)


def test_failed_invariants_are_named_with_a_reason_each(healthy: ReplayEvidence) -> None:
    shaping: dict[str, Any] = {**healthy.measured.shaping, "leaf1-eth3": None, "leaf1-eth4": None}
    cpu = healthy.measured.samples.cpu.assign(late_s=0.5)
    run = planted(healthy, shaping=shaping, samples=Samples(healthy.measured.samples.queues, cpu))
    row = judge_replay(run, IDENTITY).row
    assert row["fidelity"] == "fail"
    shaped, machine = row["fidelity_reasons"].split("; ")
    assert shaped.startswith("shaping: leaf1-eth3: ") and shaped.endswith("(and 1 more)")
    assert machine.startswith("machine: ") and "500 ms" in machine


@pytest.mark.parametrize("scheme", EVERY_SCHEME)
def test_every_scheme_is_judged(scheme: str) -> None:
    assert judge_replay(healthy_run(scheme), IDENTITY).row["fidelity"] == "pass"
