"""Spines of other rates, and links that are broken from the start: paths, shares, bounds and what a file may say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flows_by_hand import all_to_all, permutation, quick, ratio, schedule_of
from hypothesis import given
from hypothesis import strategies as st
from synthetic import healthy_run, planted

from controllers.elephants import placed
from emulator.nic import connection_ruleset, spray_ruleset
from emulator.topology import LeafSpine, Link
from emulator.weights import MOST_TURNS, turn, weights
from experiments.judge.replay import senders_are_held_by_the_network
from experiments.runs.loads.replays import Replays
from experiments.runs.predict import predict
from experiments.runs.work import uneven_links
from experiments.spec.experiment import Experiment, load_experiment, restore_experiment
from experiments.spec.messages import SpecError
from experiments.spec.scale import oversubscription
from experiments.theory.bound import bound_s
from experiments.theory.capacity import bound_under_s
from experiments.theory.loads import LinkBytes, choose_spines, link_bytes, live_rates_bps, over_ideal
from traffic.plan import plan_traffic
from traffic.schedule import Flow
from traffic.schemes import SCHEMES, playing, scheme_of
from traffic.schemes.ethereal import split

MBIT = 1_000_000
HALF = LeafSpine(2, 4, 2, 20 * MBIT, 10 * MBIT, spine_rates_bps=(5 * MBIT, *[10 * MBIT] * 3))
"""A leaf's uplinks carry 35 Mb/s together, and its hosts may send 40."""

rates = st.lists(st.integers(1, 400), min_size=1, max_size=8)


# Shares and turns


@quick
@given(rates)
def test_weights_are_in_the_proportion_of_rates(rates_mbps: list[int]) -> None:
    found, total = weights(rates_mbps), sum(rates_mbps)
    assert weights([MBIT * rate for rate in rates_mbps]) == found
    assert sum(found) <= MOST_TURNS
    for weight, rate in zip(found, rates_mbps, strict=True):
        assert abs(weight / sum(found) - rate / total) < 1 / MOST_TURNS


@quick
@given(rates)
def test_a_turn_has_each_spine_as_often_as_its_weight_and_never_crowds_one(rates_mbps: list[int]) -> None:
    found = weights(rates_mbps)
    order = turn(range(len(found)), found)
    assert Counter(order) == Counter({spine: weight for spine, weight in enumerate(found) if weight})
    for spine, weight in enumerate(found):
        places = [place for place, each in enumerate(order) if each == spine]
        gaps = np.diff([*places, places[0] + len(order)]).tolist() if places else []
        assert all(gap < 2 * len(order) / weight + 1 for gap in gaps), "evenly spread"


def test_a_spine_of_half_the_rate_has_every_other_turn() -> None:
    assert HALF.turn(range(4)) == [1, 2, 3, 0, 1, 2, 3]
    assert replace(HALF, spine_rates_bps=()).turn(range(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("ruleset", [spray_ruleset, connection_ruleset])
def test_nics_know_weights_only_if_asked(ruleset: Any) -> None:
    order = "round-robin" if ruleset is spray_ruleset else None
    arguments = [HALF, 0, *([order] if order else []), 0]
    assert "mod 7 " in ruleset(*arguments, weighted=True) and "mod 4 " in ruleset(*arguments)
    alike = [replace(HALF, spine_rates_bps=()), *arguments[1:]]
    assert ruleset(*alike, weighted=True) == ruleset(*alike)


# Ethereal by weight


@quick
@given(rates, st.integers(1, 40), st.integers(1000, 100_000))
def test_every_spine_carries_its_share_and_few_flows_are_cut(rates_mbps: list[int], flows: int, size: int) -> None:
    weight = weights(rates_mbps)
    splits = split([size] * flows, range(len(weight)), weight)
    load: Counter[int] = Counter()
    for pieces in splits:
        assert sum(each for _, each in pieces) == size and all(each > 0 for _, each in pieces)
        assert len({spine for spine, _ in pieces}) == len(pieces), "two pieces on one spine could be one"
        for spine, each in pieces:
            load[spine] += each
    for spine, each in enumerate(weight):
        assert abs(load[spine] - flows * size * each / sum(weight)) <= 2
    if len(set(weight)) > 1:
        assert sum(map(len, splits)) <= flows + len(weight) - 1


@quick
@given(st.integers(1, 6), st.lists(st.integers(0, 10_000), min_size=1, max_size=8), st.booleans())
def test_of_equal_rates_it_is_ethereal(spines: int, sizes: list[int], equal: bool) -> None:
    fabric = LeafSpine(2, spines, 2, spine_rates_bps=(7 * MBIT,) * spines)
    flows = [Flow(id, 0, 2, sizes[0] if equal else size, channel=id) for id, size in enumerate(sizes)]
    schedule = schedule_of(flows, 4)
    one, other = (scheme_of(name).assign(schedule, fabric, range(4)) for name in ("ethereal", "ethereal-weighted"))
    assert one == other


# Bound and loads


@quick
@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.integers(1, 9))
def test_by_weight_nothing_is_lost_and_alike_the_slowest_decides(rates_mbps: list[int], channels: int) -> None:
    fabric = LeafSpine(2, len(rates_mbps), 2, spine_rates_bps=tuple(MBIT * rate for rate in rates_mbps))
    schedule = permutation(fabric, channels, 1_000_000, shift=2)
    for name in ("spray-weighted", "ethereal-weighted"):
        assert ratio(plan_traffic(schedule, fabric, range(4), scheme_of(name)), fabric) == pytest.approx(1, abs=1e-4)
    alike = sum(rates_mbps) / (len(rates_mbps) * min(rates_mbps))
    for name in ("spray", "ethereal"):
        assert ratio(plan_traffic(schedule, fabric, range(4), scheme_of(name)), fabric) == pytest.approx(alike, 1e-4)


def test_the_bound_is_what_all_uplinks_carry_together() -> None:
    schedule = permutation(HALF, 4, 1_000_000, shift=2)
    bits = 8 * HALF.wire_bytes(8_000_000)
    assert bound_s(schedule, HALF, range(4)) == pytest.approx(bits / (35 * MBIT))
    assert bound_under_s(schedule, HALF, range(4), []) == pytest.approx(bits / (35 * MBIT))
    without_first = HALF.without([(0, 0)])
    assert bound_s(schedule, without_first, range(4)) == pytest.approx(bits / (30 * MBIT))
    assert oversubscription(HALF) == pytest.approx(40 / 35)
    assert oversubscription(without_first) == pytest.approx(40 / 30)


@pytest.mark.parametrize("flows", range(1, 9))
def test_after_a_dead_uplink_ethereal_is_the_theorem_of_one_spine_less(flows: int) -> None:
    whole = LeafSpine(2, 4, 2)
    for fabric, spines in ((whole, 4), (whole.without([(0, 1)]), 3)):
        schedule = permutation(fabric, flows, 120_000, shift=2)
        plan = plan_traffic(schedule, fabric, range(4), scheme_of("ethereal"))
        assert ratio(plan, fabric) == pytest.approx(1, abs=1e-4)
        loads = link_bytes(plan, fabric, choose_spines(plan, fabric, 1))
        each = fabric.wire_bytes(2 * flows * 120_000 / spines)
        assert loads.up[0].tolist() == pytest.approx([each if spines == 4 or spine != 1 else 0 for spine in range(4)])


@pytest.mark.parametrize("name", [scheme.name for scheme in SCHEMES if not scheme.unpredicted] + ["subflow-4"])
def test_no_scheme_sends_over_a_failed_link(name: str) -> None:
    fabric = replace(HALF, leaves=3).without([(0, 0), (1, 2), (1, 3)])
    plan = plan_traffic(all_to_all(fabric, 64_000), fabric, range(fabric.hosts), scheme_of(name))
    loads = link_bytes(plan, fabric, choose_spines(plan, fabric, 1))
    for leaf, spine in fabric.failed:
        assert loads.up[leaf, spine] == loads.down[leaf, spine] == 0
    assert loads.up.sum() == pytest.approx(loads.down.sum()) and loads.up.sum() > 0


@quick
@given(st.lists(st.integers(0, 1000), min_size=16, max_size=16).filter(any), st.sampled_from([(), ((0, 1),)]))
def test_counters_over_ideal_sharing(carried: list[int], failed: tuple[Link, ...]) -> None:
    """Of a spine that one leaf alone can reach, nothing is expected."""
    fabric = HALF.without(failed)
    up, down = np.reshape(carried, (2, 2, 4)).astype(float)
    for link in failed:
        up[link] = down[link] = 0
    led = 35 - 10 * len(failed)
    ideal_s = max(cells.sum(axis=1).max() for cells in (up, down)) / led
    cells = over_ideal(LinkBytes(up, down), live_rates_bps(fabric))
    if ideal_s:
        expected = max((way[:, spine] / rate).max() for way in (up, down) for spine, rate in enumerate([5, 10, 10, 10]))
        assert np.nanmax(cells) == pytest.approx(expected / ideal_s)
    assert np.argwhere(np.isnan(cells.up)).tolist() == [list(link) for link in failed]


def test_a_controller_places_no_more_on_a_spine_than_it_carries() -> None:
    fabric = replace(HALF, host_rate_bps=10 * MBIT)
    found = placed({"a": (0, 2), "b": (1, 3)}, fabric)
    assert sorted(found.values()) == [1, 2], "each fills a link, and the first spine's carry half"


@pytest.mark.parametrize(
    ("scheme", "rates_mbps", "blamed"), [("spray", (10, 20), False), ("spray", (), True), ("ethereal", (10, 20), True)]
)
def test_who_sprays_over_unequal_paths_and_times_out_is_held_by_tcp(
    scheme: str, rates_mbps: tuple[int, ...], blamed: bool
) -> None:
    run = healthy_run(scheme)
    samples, result = run.measured.samples, run.measured.result
    idle = samples.queues.assign(sent_bytes=samples.queues.sent_bytes * 0.6, backlog_bytes=0)
    timed_out = [replace(each, timeouts=1) for each in result.connections]
    waited = planted(run, samples=replace(samples, queues=idle), result=replace(result, connections=timed_out))
    fabric = replace(run.topology, spine_rates_bps=tuple(MBIT * rate for rate in rates_mbps))
    assert bool(senders_are_held_by_the_network(replace(waited, topology=fabric))) == blamed


# What a file may say

FILE = """
fabric: {leaves: 2, spines: 4, hosts_per_leaf: 2, host_rate: 20mbit, fabric_rate: 10mbit, spine_rates: {1: 50%}}
traffic: [{collective: permutation, channels: 4, size: 2MB}]
schemes: [ecmp, spray, ethereal, spray-weighted, ethereal-weighted]
seeds: [1]
"""


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def loaded(*overrides: str, text: str = FILE) -> Experiment:
        (tmp_path / "uneven.yaml").write_text(text)
        return load_experiment(str(tmp_path / "uneven.yaml"), overrides)

    return loaded


@pytest.mark.parametrize(
    "written", ["{1: 50%}", "{spine1: 5mbit}", "[5mbit, 10mbit, 100%, 10mbit]", "{spine1: 50%, spine4: 10mbit}"]
)
def test_rates_of_spines_are_a_list_or_a_mapping(load: Any, written: str) -> None:
    experiment = load(f"fabric.spine_rates={written}")
    assert experiment.fabric.topology().spine_rates_bps == HALF.spine_rates_bps
    assert restore_experiment(experiment.as_json(), "again") == experiment
    assert uneven_links(experiment.fabric.topology()) == "spine1 5mbit"


def test_rates_are_as_slow_as_the_fabric_and_parts_are_of_its_own(load: Any) -> None:
    rates = "fabric.host_rate=100gbit", "fabric.fabric_rate=100gbit", "fabric.spine_rates={2: 40gbit, 3: 25%}"
    experiment = load(*rates, "fabric.scale=1000")
    assert experiment.fabric.topology().spine_rates_bps == tuple(MBIT * rate for rate in (100, 40, 25, 100))


def test_failed_links_and_spines_are_named(load: Any) -> None:
    topology = load("fabric.failed=[leaf1-spine2, spine3]").fabric.topology()
    assert topology.failed == {(0, 1), (0, 2), (1, 2)} and topology.live_spines(0, 1) == [0, 3]
    assert uneven_links(topology).endswith("leaf1-spine2 failed, leaf1-spine3 failed, leaf2-spine3 failed")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("fabric.spine_rates={spine5: 50%}", "'spine5' is no spine of this fabric, which has spine1 to spine4"),
        ("fabric.spine_rates={1: 0%}", "a rate of zero carries nothing"),
        ("fabric.spine_rates={1: 0mbit}", "'0mbit' is too small; write a rate such as 20mbit"),
        ("fabric.spine_rates=[5mbit]", "1 rates are not one for each of 4 spines"),
        ("fabric.spine_rates=5mbit", "'5mbit' is not a rate a spine"),
        ("fabric.spine_rates={1: 1bit}", "a frame of 9014 bytes would take more than a second"),
        ("fabric.spine_rates={1: 50%, spine1: 20%}", "spine1 is there twice"),
        ("fabric.spine_rates=null", "spray-weighted goes by the rates of spines, and all are alike here"),
        ("fabric.failed=[spine1, spine2, spine3, spine4]", "no spine is left between leaf1 and leaf2"),
        ("fabric.failed=[leaf1-spine1, leaf1-spine2, leaf2-spine3, leaf2-spine4]", "no spine is left between"),
        ("fabric.failed=[leaf1-spine9]", "'leaf1-spine9' is no link of this fabric"),
        ("fabric.failed=[spine9]", "'spine9' is no spine of this fabric"),
        ("fabric.failed=spine1", "'spine1' is not a list such as [leaf1-spine2, spine3]"),
    ],
)
def test_what_cannot_be_is_one_sentence(load: Any, override: str, says: str) -> None:
    with pytest.raises(SpecError) as error:
        load(override)
    assert says in str(error.value) and override.partition("=")[0].rpartition(".")[0] in str(error.value)
    assert len(str(error.value).splitlines()) == (2 if "null" in override else 1)


def test_a_fault_on_a_link_that_has_failed_is_refused(load: Any) -> None:
    fault = "{at: 30%, for: 1s, link: leaf1-spine2, kind: down}"
    with pytest.raises(SpecError, match=r"faults.0.link: leaf1-spine2 has failed from the start \(fabric.failed\)"):
        load("fabric.failed=[leaf1-spine2]", f"faults=[{fault}]")
    experiment = load("fabric.failed=[leaf1-spine2]", "faults=[{at: 1s, spine: 2, kind: blackhole}]")
    assert experiment.broken(1.0, 1)[0].links == ((1, 1),), "what is left of a spine can break"


def test_a_link_is_degraded_to_a_part_of_its_own_rate(load: Any) -> None:
    faults = load("faults=[{at: 1s, leaf: 1, kind: degrade, rate: 50%}]").broken(1.0, 1)
    assert {fault.rate_bps: fault.links for fault in faults} == {
        2_500_000: ((0, 0),),
        5_000_000: ((0, 1), (0, 2), (0, 3)),
    }


def test_rates_of_spines_are_swept(load: Any) -> None:
    experiment = load("fabric.spine_rates=null", "sweep={fabric.spine_rates: [{spine1: 100%}, {spine1: 50%}]}")
    assert [point.experiment.fabric.topology().uneven for point in experiment.points()] == [False, True]


def test_theory_tells_weights_from_none(load: Any) -> None:
    found = predict(load()).set_index("scheme")
    assert set(found.uneven) == {"spine1 5mbit"}
    assert found.predicted_cct_over_bound["ethereal-weighted"] == pytest.approx(1, abs=0.02)
    assert found.predicted_cct_over_bound["ethereal"] == pytest.approx(35 / 20, abs=0.02)
    assert np.isnan(found.predicted_cct_s["spray"]), "hangs on how TCP takes packets that overtake each other"
    assert found.congestion_ratio["spray"] == pytest.approx(35 / 20)
    assert found.congestion_ratio["spray-weighted"] == pytest.approx(1)


def test_the_verdict_compares_what_knows_the_rates(load: Any) -> None:
    assert playing("spraying", load().schemes) == "spray-weighted"
    assert playing("splitting", load().schemes) == "ethereal-weighted"
    assert playing("splitting", ["ecmp", "ethereal"]) == "ethereal" and playing("spraying", ["ecmp"]) is None


def test_runs_are_planned_and_dry_on_an_uneven_fabric(load: Any) -> None:
    work = Replays(load("fabric.failed=[leaf1-spine1]"))
    work.check_emulable()
    assert work.columns(work.runs[0])["bound"] == "1.07 s"
