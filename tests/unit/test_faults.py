"""What an experiment may say of faults, what they leave of links, and what ports were meant to send meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle
from synthetic import FABRIC, healthy_run, place, planted

from emulator.bpf import dropped
from emulator.faults import Blackhole, ControllerDown, Degrade, Fault, Loss
from emulator.faults.fault import Change, Happened
from emulator.topology import LeafSpine
from experiments.judge.evidence import ReplayEvidence
from experiments.judge.invariants import failures
from experiments.judge.rows import judge_replay
from experiments.judge.timeline import Timeline
from experiments.results.plots import timeline
from experiments.results.reading import check_frame
from experiments.runs.loads.programs import Program, Programs
from experiments.runs.loads.replays import Replays
from experiments.spec.experiment import load_experiment, restore_experiment
from experiments.spec.messages import SpecError
from experiments.theory.bound import bound_s
from experiments.theory.capacity import bound_under_s, capacity_changes
from experiments.theory.fluid import simulate
from experiments.theory.loads import choose_spines
from experiments.theory.prediction import predict_run
from traffic.plan import plan_traffic
from traffic.schedule import Flow, Schedule
from traffic.schemes import scheme_of

HEAD = "fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2}\ntraffic: [{collective: alltoall, size: 4MB}]\nseeds: [1]\n"
UPLINK = "leaf1-eth3"  # to spine1


def works(folder: Path, *faults: str, schemes: str = "[ecmp]") -> Replays:
    path = folder / "f.yaml"
    path.write_text(f"{HEAD}schemes: {schemes}\nfaults:\n" + "".join(f"  - {{{fault}}}\n" for fault in faults))
    work = Replays(load_experiment(str(path)))
    work.check_emulable()
    return work


def first_faults(work: Replays) -> list[Fault]:
    return list(work.faults(work.runs[0]))


def test_times_are_seconds_or_parts_of_the_bound_without_faults(tmp_path: Path) -> None:
    work = works(tmp_path, "at: 30%, for: 200ms, link: leaf2-spine1, kind: degrade, rate: 25%")
    whole_s = bound_s(*_sent(work))
    [fault] = work.faults(work.runs[0])
    assert isinstance(fault, Degrade)
    assert fault.at_s == pytest.approx(0.3 * whole_s)
    assert fault.for_s == 0.2
    assert (fault.links, fault.rate_bps) == (((1, 0),), 5_000_000)


def _sent(work: Replays) -> tuple[Schedule, LeafSpine, Any]:
    schedule, hosts, _ = work.ideal(work.runs[0])
    return schedule, work.topology, hosts


@pytest.mark.parametrize(
    ("where", "links"),
    [("spine: 2", {(0, 1), (1, 1)}), ("leaf: 1", {(0, 0), (0, 1)}), ("link: leaf1-spine2", {(0, 1)})],
)
def test_a_spine_or_a_leaf_stands_for_all_its_links(tmp_path: Path, where: str, links: set[tuple[int, int]]) -> None:
    [fault] = first_faults(works(tmp_path, f"at: 0s, {where}, kind: degrade, rate: 5mbit"))
    assert set(fault.links) == links


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("at: 0s, link: leaf1-spine3, kind: degrade, rate: 50%", "did you mean 'leaf1-spine2'?"),
        ("at: 0s, spine: 3, kind: degrade, rate: 50%", "3 is no spine of this fabric, which has spine 1 to 2"),
        ("at: 0s, kind: degrade, rate: 50%", "says not what is hit"),
        ("at: 0s, spine: 1, leaf: 1, kind: degrade, rate: 50%", "names both a spine and a leaf"),
        ("at: 0s, spine: 1, kind: degrad, rate: 50%", "did you mean 'degrade'?"),
        ("at: 0s, spine: 1, kind: degrade, rate: 100%", "20mbit is no slower rate"),
        ("at: 0s, spine: 1, kind: degrade, rate: 0%", "is no slower rate"),
        ("at: 0s, spine: 1, kind: degrade", "rate: is missing"),
        ("at: 0s, spine: 1, kind: flap, period: 1s", "for: is missing"),
        ("at: 0s, for: 1s, spine: 1, kind: flap, period: 100ms", "write 0.2s or more"),
        ("at: 0s, spine: 1, kind: loss", "share: is missing"),
        ("at: 0s, spine: 1, kind: loss, share: 0%", "loses nothing"),
        ("at: 0s, spine: 1, kind: loss, share: 100%", "is not a share below 100%"),
        ("at: 0s, leaf: 1, kind: blackhole", "they leave some leaf without a link for good"),
        ("at: soon, spine: 1, kind: degrade, rate: 50%", "'soon' is not a time"),
        ("at: 0s, for: 0s, spine: 1, kind: degrade, rate: 50%", "ends as it begins"),
        ("at: 100s, spine: 1, kind: degrade, rate: 50%", "is after the end of 001-alltoall-ecmp-s1"),
        ("at: 100s, kind: controller_down", "is after the end of 001-alltoall-ecmp-s1"),
        ("at: 0s, kind: controller_down, link: leaf1-spine1", "link"),
    ],
)
def test_what_cannot_break_is_refused_in_one_sentence(tmp_path: Path, fault: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        works(tmp_path, fault)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_two_of_a_kind_on_one_link_at_a_time_contradict_each_other(tmp_path: Path) -> None:
    first, later = "at: 0s, for: 500ms, leaf: 1, kind: degrade, rate: 50%", "spine: 1, kind: degrade, rate: 25%"
    works(tmp_path, first, f"at: 500ms, {later}")
    works(tmp_path, f"direction: up, {first}", f"direction: down, at: 0s, {later}")
    with pytest.raises(SpecError, match=r"contradict each other"):
        works(tmp_path, first, f"at: 499ms, {later}")


@pytest.mark.parametrize("kind", ["kind: down", "kind: loss, share: 1%", "kind: flap, for: 1s, period: 400ms"])
def test_what_acts_by_the_same_program_contradicts_each_other_too(tmp_path: Path, kind: str) -> None:
    first = "at: 0s, for: 500ms, link: leaf1-spine1, kind: blackhole"
    works(tmp_path, first, f"at: 400ms, link: leaf1-spine2, {kind}")
    works(tmp_path, first, f"at: 500ms, link: leaf1-spine1, {kind}")
    with pytest.raises(SpecError, match=r"contradict each other"):
        works(tmp_path, first, f"at: 400ms, link: leaf1-spine1, {kind}")


def test_a_controller_is_lost_once_at_a_time_and_where_there_is_one(tmp_path: Path) -> None:
    lost = "at: 10%, for: 200ms, kind: controller_down"
    [fault, _] = first_faults(works(tmp_path, lost, "at: 0s, spine: 1, kind: degrade, rate: 50%"))
    assert (
        isinstance(fault, ControllerDown) and fault.for_s == 0.2 and fault.words(FABRIC).startswith("controller_down")
    )
    with pytest.raises(SpecError, match=r"contradict each other"):
        works(tmp_path, lost, "at: 0s, kind: controller_down")
    routers = {"fabric": {"leaves": 2, "spines": 2, "hosts_per_leaf": 2, "dataplane": "linux"}}
    content = {"name": "x", "traffic": [{"collective": "alltoall", "size": "4MB"}], "seeds": [1], **routers,
               "faults": [{"at": "10%", "kind": "controller_down"}]}  # fmt: skip
    with pytest.raises(SpecError, match=r"faults\.0: Linux routers have no controller to lose") as error:
        Replays(restore_experiment({**content, "schemes": ["ecmp"]}, "x")).check_emulable()
    assert len(str(error.value).splitlines()) == 1
    for more in ({"schemes": ["hedera-100ms"]}, {"schemes": ["ecmp"], "reaction": {"network": "controller"}}):
        Replays(restore_experiment({**content, **more}, "x")).check_emulable()


def test_faults_go_through_a_manifest(tmp_path: Path) -> None:
    work = works(tmp_path, "at: 30%, for: 200ms, link: leaf2-spine1, kind: degrade, rate: 12.5%, direction: up")
    again = Replays(restore_experiment(work.experiment.as_json(), "manifest.json"))
    assert again.faults(again.runs[0]) == work.faults(work.runs[0])


def test_a_program_has_no_bound_to_take_parts_of(tmp_path: Path) -> None:
    experiment = works(tmp_path, "at: 30%, spine: 1, kind: degrade, rate: 50%", schemes="[ecmp]").experiment
    with pytest.raises(SpecError, match=r"faults\.0: a program has no bound"):
        Programs(experiment, Program(("true",), (0, 1), 10.0))


@pytest.mark.parametrize(
    "fault",
    ["kind: blackhole, direction: up, at: 10%", "kind: loss, share: 0.1%, at: 0s", "kind: loss, share: 7%, at: 0s"],
)
def test_losses_go_through_a_manifest_and_have_the_runs_seed(tmp_path: Path, fault: str) -> None:
    work = works(tmp_path, f"{fault}, link: leaf2-spine1", "at: 0s, for: 1s, leaf: 2, kind: degrade, rate: 50%")
    [loss, _] = work.faults(work.runs[0])
    assert isinstance(loss, Loss) and loss.seed == work.runs[0].seed
    again = Replays(restore_experiment(work.experiment.as_json(), "manifest.json"))
    assert again.faults(again.runs[0]) == work.faults(work.runs[0])


def test_a_link_that_flaps_is_down_for_half_of_every_period_and_up_at_the_end(tmp_path: Path) -> None:
    flaps = first_faults(works(tmp_path, "at: 100ms, for: 900ms, link: leaf1-spine1, kind: flap, period: 400ms"))
    assert {fault.kind for fault in flaps} == {"down"}
    times_s = [(fault.at_s, fault.end_s) for fault in flaps]
    np.testing.assert_allclose(times_s, [(0.1, 0.3), (0.5, 0.7)])
    assert [fault.again for fault in flaps] == [False, True]
    run = healthy_run()
    never = [Happened(fault, run.start_s) for fault in flaps]
    assert len(failures(planted(run, faults=never))["faults"]) == 1, "a run may end before it happens again"


@given(st.floats(0.001, 0.999), st.integers(0, 2**48))
def test_which_packets_are_lost_follows_from_the_seed_and_how_many_from_the_share(share: float, seed: int) -> None:
    """Within six standard deviations, and never two alike."""
    lost = [dropped(number, share, seed) for number in range(2000)]
    assert abs(sum(lost) - 2000 * share) <= 6 * (2000 * share * (1 - share)) ** 0.5 + 1
    assert lost == [dropped(number, share, seed) for number in range(2000)]
    assert not any(dropped(number, 0.0, seed) for number in range(100))
    assert all(dropped(number, 1.0, seed) for number in range(100))


# What is possible


def crossing(size_bytes: int) -> Schedule:
    flows = [Flow(host, host, (host + 2) % 4, size_bytes, channel=0) for host in range(4)]
    return Schedule("test", "test", 4, 1, size_bytes, flows)


def slower(**changes: Any) -> Degrade:
    return replace(Degrade(at_s=0.0, links=((0, 0),), rate_bps=5_000_000), **changes)


def test_the_bound_is_what_a_leafs_links_carry_over_time() -> None:
    """Two uplinks of 20 Mb/s for 40 Mb; with one at 5 for the first second, that brings 25."""
    size_bytes = int(20e6 / 8 / FABRIC.wire_bytes(1))
    schedule = crossing(size_bytes)
    assert bound_under_s(schedule, FABRIC, range(4), []) == pytest.approx(1.0, rel=1e-4)
    assert bound_under_s(schedule, FABRIC, range(4), [slower()]) == pytest.approx(40 / 25, rel=1e-4)
    assert bound_under_s(schedule, FABRIC, range(4), [slower(for_s=1.0)]) == pytest.approx(1 + 15 / 40, rel=1e-4)
    assert bound_under_s(schedule, FABRIC, range(4), [slower(at_s=2.0)]) == pytest.approx(1.0, rel=1e-4)


def test_a_dead_link_carries_nothing_and_random_loss_takes_nothing_for_certain() -> None:
    schedule = crossing(int(20e6 / 8 / FABRIC.wire_bytes(1)))
    hole, loss = Blackhole(at_s=0.5, links=((0, 0),)), Loss(at_s=0.0, links=((0, 0),), share=0.5)
    assert bound_under_s(schedule, FABRIC, range(4), [hole]) == pytest.approx(0.5 + 20 / 20, rel=1e-4)
    assert bound_under_s(schedule, FABRIC, range(4), [loss]) == pytest.approx(1.0, rel=1e-4)


def test_theory_is_not_asked_what_it_cannot_tell() -> None:
    hole, slow = Blackhole(at_s=0.5, links=((0, 0),)), slower()
    plans = {name: plan_traffic(crossing(2_000_000), FABRIC, range(4), scheme_of(name)) for name in ("ecmp", "spray")}
    assert predict_run(plans["ecmp"], FABRIC, 1, [slow]) is not None
    assert predict_run(plans["ecmp"], FABRIC, 1, [slow, hole]) is None
    assert predict_run(plans["spray"], FABRIC, 1, [slow]) is None
    assert predict_run(plans["spray"], FABRIC, 1) is not None


@given(
    st.lists(
        st.builds(
            Degrade,
            at_s=st.floats(0, 2), for_s=st.none() | st.floats(0.01, 2), rate_bps=st.integers(1_000_000, 19_999_999),
            links=st.sampled_from([((0, 0),), ((1, 1),), ((0, 1), (1, 1))]),
            direction=st.sampled_from(["up", "down", "both"]),
        ),
        max_size=3,
    ),
    st.sampled_from(["ecmp", "ethereal", "subflow-4"]),
)  # fmt: skip
def test_no_model_beats_the_bound_and_less_to_carry_never_takes_less(faults: list[Fault], scheme: str) -> None:
    schedule = crossing(2_000_000)
    plan = plan_traffic(schedule, FABRIC, range(4), scheme_of(scheme))
    spines = choose_spines(plan, FABRIC, 1)
    least_s = max(bound_s(schedule, FABRIC, range(4)), bound_under_s(schedule, FABRIC, range(4), faults))
    assert least_s >= bound_under_s(schedule, FABRIC, range(4), faults[1:]) * (1 - 1e-9)
    assert simulate(plan, FABRIC, spines, changes=capacity_changes(FABRIC, faults)).cct_s >= least_s * (1 - 1e-7)


def test_the_fluid_model_slows_down_and_catches_up() -> None:
    """A flow alone on a link: 20 Mb at 20 Mb/s, but at 5 for the second half second."""
    schedule = Schedule("test", "test", 4, 1, 1, [Flow(0, 0, 2, int(20e6 / 8 / FABRIC.wire_bytes(1)))])
    plan = plan_traffic(schedule, FABRIC, range(4), scheme_of("ecmp"))
    changes = capacity_changes(FABRIC, [slower(at_s=0.5, for_s=0.5)])
    assert simulate(plan, FABRIC, np.array([0]), changes=changes).cct_s == pytest.approx(0.5 + 0.5 + 7.5 / 20, rel=1e-4)
    assert simulate(plan, FABRIC, np.array([1]), changes=changes).cct_s == pytest.approx(1.0, rel=1e-4)


# What ports were meant to do


def happened(run: ReplayEvidence, fault: Fault, *rates_bps: int, late_s: float = 0.001) -> Happened:
    """`fault`, begun and ended on the uplink alone, with what the kernel then said."""
    port, origin_s = place(run, UPLINK), run.start_s
    begun, ended = (
        [Change(port, moment, moment + late_s, rate_bps)]
        for moment, rate_bps in zip((origin_s + fault.at_s, origin_s + fault.end_s), rates_bps, strict=True)
    )
    return Happened(fault, origin_s + fault.at_s, begun, ended)


def test_a_timeline_knows_what_a_port_could_send() -> None:
    run = healthy_run()
    fault = slower(at_s=0.5, for_s=0.5)
    timeline = Timeline(run.ports, [happened(run, fault, 5_000_000, 20_000_000)])
    port, other = place(run, UPLINK), place(run, "leaf2-eth3")
    start_s, end_s = run.start_s + np.array([0.0, 0.6, 0.0]), run.start_s + np.array([0.4, 0.9, 2.0])
    least, most = timeline.could_send_bytes(port, start_s, end_s)
    usual = 20e6 / 8 * (end_s - start_s)
    np.testing.assert_allclose(least[:2], [1e6, 0.3 * 5e6 / 8])
    np.testing.assert_allclose(most[:2], least[:2])
    assert least[2] < usual[2] - 0.5 * 15e6 / 8 < most[2] < least[2] + 0.1 * 20e6 / 8
    np.testing.assert_allclose(timeline.could_send_bytes(other, start_s, end_s), [usual, usual])


def test_a_port_that_does_not_slow_down_as_asked_is_told() -> None:
    """In the healthy run it sends at its rate throughout: under a fault, that is too much."""
    run = healthy_run()
    fault = slower(at_s=0.2, for_s=0.6)
    failed = failures(planted(run, faults=[happened(run, fault, 5_000_000, 20_000_000)]))
    assert any(UPLINK in reason and "exceeded its rate" in reason for reason in failed["work conservation"])


def test_faults_that_are_late_or_not_as_asked_or_never_were_fail_a_run() -> None:
    run = healthy_run()
    fault = slower(at_s=0.2, for_s=0.6)
    for found, said in (
        (happened(run, fault, 20_000_000, 20_000_000), "was shaped to 20 Mb/s, 5 Mb/s was asked"),
        (happened(run, fault, 5_000_000, 20_000_000, late_s=0.15), "150 ms late"),
        (Happened(fault, run.start_s + fault.at_s), "did not come about"),
    ):
        reasons = failures(planted(run, faults=[found])).get("faults", [])
        assert any(said in reason for reason in reasons), (said, reasons)


def test_what_a_fault_took_is_booked_to_it_to_the_packet() -> None:
    run = healthy_run()
    port = place(run, "spine1-eth1")
    after = run.measured.after.copy()
    for column, name in (("tx_packets", "spine1-eth2"), ("rx_packets", "leaf2-eth3"), ("tx_packets", "leaf2-eth1"),
                         ("rx_packets", "h3-eth0")):  # fmt: skip
        after.loc[place(run, name), column] -= 7
    for booked, believed in ((7, True), (6, False), (8, False)):
        moment_s = run.start_s + 0.5
        taken = Happened(
            slower(at_s=0.5), moment_s, [], [Change(port, moment_s, moment_s, None, booked, booked * 9000)]
        )
        failed = failures(planted(run, after=after, faults=[taken]))
        assert ("conservation" not in failed) is believed


def test_a_fault_has_converged_once_its_last_packet_is_lost() -> None:
    """On the port where that takes longest, of the fault that takes longest; what takes no packet says nothing."""
    run = healthy_run()
    begun_s, ports = run.start_s + 0.2, [place(run, name) for name in ("leaf1-eth3", "spine1-eth1", "leaf2-eth3")]
    begun = [Change(port, begun_s, begun_s + 0.01) for port in ports]
    lost_s = (begun_s + 0.03, begun_s + 0.26, None)
    ended = [
        Change(port, begun_s + 0.5, begun_s + 0.5, last_destroyed_s=last_s)
        for port, last_s in zip(ports, lost_s, strict=True)
    ]
    longest = Happened(slower(at_s=0.2, for_s=0.5), begun_s, begun, ended)
    assert longest.converged_s == pytest.approx(0.25)
    spotless = Happened(slower(at_s=0.2, for_s=0.5), begun_s, begun, begun)
    judged = judge_replay(planted(run, faults=[spotless, longest]), {"run_id": "1"})
    assert spotless.converged_s is None and judged.row["converged_s"] == pytest.approx(0.25)
    frame = judged.frames["faults"]
    assert list(frame.converged_s[(frame.fault == 1) & (frame.event == "end")]) == pytest.approx([0.25] * 3)
    assert frame.converged_s.count() == 3


# What is shown of them


def test_results_keep_what_every_fault_changed_and_figures_show_when() -> None:
    run = healthy_run()
    faults = [happened(run, slower(at_s=0.2, for_s=0.6), 5_000_000, 20_000_000), Happened(slower(at_s=9.0), 0.0)]
    judged = judge_replay(planted(run, faults=faults), {"run_id": "1", "scheme": "ecmp"})
    frame = judged.frames["faults"]
    assert list(zip(frame.event, frame.port, frame.rate_bps, strict=True)) == [
        ("begin", UPLINK, 5_000_000), ("end", UPLINK, 20_000_000),
    ]  # fmt: skip
    np.testing.assert_allclose(frame.due_s, [0.2, 0.8])
    np.testing.assert_allclose(frame.confirmed_s, [0.201, 0.801])
    assert judged.row["faults"].startswith("degrade leaf1-spine1 from 0.2 s to 0.8 s; degrade leaf1-spine1 from 9 s")
    queues = judged.frames["queues"].assign(scheme="ecmp")
    for shown, bands in ((frame.assign(scheme="ecmp"), [(0.201, 0.801)]), (frame.iloc[:0].assign(scheme=""), [])):
        axes = timeline(queues, queues.iloc[:0], ["ecmp"], "", 1e6, shown).axes[0]
        drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        found = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in drawn]
        np.testing.assert_allclose(np.reshape(found, (-1, 2)), np.reshape(bands, (-1, 2)))


def test_a_run_in_which_nothing_came_about_has_an_empty_frame() -> None:
    run = healthy_run()
    frame = judge_replay(planted(run, faults=[Happened(slower(at_s=9.0), 0.0)]), {"run_id": "1"}).frames["faults"]
    check_frame("faults", "1", frame.assign(run_id="1"))
    assert frame.empty and "faults" not in judge_replay(run, {"run_id": "1"}).frames
