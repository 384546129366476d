"""A cluster's rates: emulated slower by one factor, and predicted as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from results_example import manifest_of, results_folder

from emulator.topology import LeafSpine
from experiments.cli import main
from experiments.commands.common import read_experiment
from experiments.machine import calibration
from experiments.results.folder import ResultsFolder
from experiments.runs.loads.replays import Replays
from experiments.runs.predict import predict
from experiments.spec.experiment import Experiment, load_experiment, restore_experiment
from experiments.spec.messages import SpecError
from experiments.spec.scale import Scale, oversubscription, rounded_up
from traffic.schedule import Compute, Flow, Schedule

TEXT = """\
fabric: {{leaves: 4, spines: 2, hosts_per_leaf: 4, host_rate: 400gbit, fabric_rate: 200gbit{more}}}
traffic: [{{collective: permutation, channels: 4, size: {size}}}]
schemes: [ecmp, spray, ethereal]
seeds: [1]
"""


@pytest.fixture(autouse=True)
def uncalibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def write(more: str = "", size: str = "2MB") -> str:
    Path("mine.yaml").write_text(TEXT.format(more=more, size=size))
    return "mine.yaml"


def emulated(more: str = "", size: str = "2MB") -> Experiment:
    return read_experiment(write(more, size), ())


def refused(more: str = "", size: str = "2MB") -> str:
    with pytest.raises(SpecError) as error:
        Replays(emulated(more, size)).check_emulable()
    assert "\n" not in str(error.value)
    return str(error.value)


def spraylab(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="spraylab", env={"COLUMNS": "300"})


# The factor


def test_a_clusters_rates_are_divided_by_one_factor() -> None:
    fabric = emulated().fabric
    assert fabric.slower.factor == 40_000 and str(fabric.slower) == "1:40000"
    topology, real = fabric.topology(), fabric.at_scale(1).topology()
    assert (topology.host_rate_bps, topology.fabric_rate_bps) == (10_000_000, 5_000_000)
    assert (real.host_rate_bps, real.fabric_rate_bps) == (400_000_000_000, 200_000_000_000)
    assert replace(topology, host_rate_bps=0, fabric_rate_bps=0) == replace(real, host_rate_bps=0, fabric_rate_bps=0)
    assert oversubscription(topology) == oversubscription(real) == 4.0


def test_what_calibrate_found_is_what_links_are_scaled_to(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"dataplane": "linux", "hosts": 16, "burst_frames": 1, "total_bps": 1_600_000_000}
    monkeypatch.setattr(calibration, "load", lambda: calibration.Calibration([row]))
    assert emulated().fabric.slower.factor == 5_000  # to 80 of the 100 Mb/s
    assert emulated(", dataplane: ovs").fabric.slower.factor == 40_000, "of which nothing is known"


def test_rates_that_were_chosen_for_an_emulation_stay() -> None:
    experiment = load_experiment("quick")
    assert calibration.to_scale(experiment).fabric.topology() == experiment.fabric.topology()
    assert read_experiment("quick", ["fabric.host_rate=999mbit"]).fabric.slower.factor == 1
    assert read_experiment("quick", ["fabric.host_rate=1gbit"]).fabric.slower.factor == 100


def test_a_factor_that_is_given_is_taken() -> None:
    assert emulated(", scale: 8000").fabric.topology().host_rate_bps == 50_000_000
    assert read_experiment("quick", ["fabric.scale=10"]).fabric.topology().host_rate_bps == 1_000_000


@given(st.floats(1, 1e12))
def test_a_factor_is_round_and_no_less_than_is_needed(least: float) -> None:
    factor = rounded_up(least)
    assert least <= factor <= 1.1 * least + 1
    assert len(str(factor).rstrip("0")) <= 2 or factor == 100


# Times


@given(st.integers(1, 10**6))
def test_every_time_of_a_schedule_is_multiplied_and_no_byte(factor: int) -> None:
    flows = [Flow(0, 0, 1, 1000), Flow(1, 1, 0, 10, start_s=0.5)]
    real = Schedule("x", "y", 2, 1, 1010, flows, computes=[Compute(2, 0, 0.25, waits_for=(0,))])
    slow = Scale(factor).schedule(real)
    assert [flow.start_s for flow in slow.flows] == [0.0, 0.5 * factor]
    assert [each.seconds for each in slow.computes] == [0.25 * factor]
    assert [flow.size_bytes for flow in slow.flows] == [1000, 10] and slow.size_bytes == 1010


@pytest.mark.parametrize("strain", ["", "strain: {jitter: 20%}"])
def test_theory_of_the_slow_fabric_is_that_of_the_cluster_times_the_factor(strain: str) -> None:
    """The similarity that the whole scale rests on: times to one factor, ratios the same."""
    Path("mine.yaml").write_text(TEXT.format(more="", size="2MB") + strain)
    real = predict(load_experiment("mine.yaml"), jitter=0)
    slow = predict(read_experiment("mine.yaml", ()), jitter=0)
    assert (slow.predicted_cct_s / real.predicted_cct_s).tolist() == pytest.approx([40_000] * len(real))
    assert (slow.bound_s / real.bound_s).tolist() == pytest.approx([40_000] * len(real))
    assert slow.congestion_ratio.tolist() == pytest.approx(real.congestion_ratio.tolist())


def test_faults_come_as_late_and_leave_as_little_as_on_the_cluster() -> None:
    Path("mine.yaml").write_text(
        TEXT.format(more="", size="2MB")
        + "faults: [{at: 10us, for: 5us, link: leaf1-spine1, kind: degrade, rate: 100gbit},"
        + " {at: 50%, spine: 2, kind: degrade, rate: 50%}]"
    )
    [first, second] = read_experiment("mine.yaml", ()).broken(8.0, 1)
    assert (first.at_s, first.for_s) == pytest.approx((0.4, 0.2))
    assert first.left_bps(5_000_000) == second.left_bps(5_000_000) == 2_500_000
    assert second.at_s == pytest.approx(4.0)
    [first, _] = load_experiment("mine.yaml").broken(8.0, 1)
    assert (first.at_s, first.left_bps(200_000_000_000)) == (10e-6, 100_000_000_000)


# Refusals


def test_what_cannot_be_emulated_is_refused_in_a_sentence_with_what_would_fit() -> None:
    assert "carries about 10mbit: leave it out, or write 40000" in refused(", scale: none")
    message = refused(size="1GB")
    assert "at 1:40000, a run takes" in message and "a size of 30MB would fit" in message
    Replays(emulated(size="30MB")).check_emulable()
    assert "takes more than a second on the slowest: about " in refused_small_links()


def refused_small_links() -> str:
    changes = ["fabric.leaves=32", "fabric.hosts_per_leaf=32", "fabric.fabric_rate=10gbit"]
    with pytest.raises(SpecError) as error:
        read_experiment(write(), changes)
    return str(error.value)


@pytest.mark.parametrize("scale", ["0", "1.5", "-3", "true", "fast", "[]"])
def test_what_is_no_scale_is_said_at_its_key(scale: str) -> None:
    assert "mine.yaml:1: fabric.scale: " in (message := refused(f", scale: {scale}"))
    assert message.endswith("a whole number such as 8000")


def test_a_factor_that_leaves_no_rate_is_refused() -> None:
    message = refused(", scale: 100000000")
    assert "a frame would take more than a second, so at most " in message
    most = int(message.split("at most ")[1].split(",")[0])
    assert emulated(f", scale: {most}").fabric.slower.factor == most
    assert "at most" in refused(f", scale: {most + 1}")


# What people see


def test_run_says_the_scale_and_predict_is_of_the_cluster() -> None:
    planned = spraylab("run", write(), "--dry-run")
    assert planned.exit_code == 0
    rates = "links of 400gbit and 200gbit (hosts, fabric) are emulated at 10mbit and 5mbit"
    assert f"scale 1:40000: {rates}" in planned.stdout
    assert "oversubscribed 4:1" in planned.stdout and "docs/cluster.md" in planned.stdout
    expected = spraylab("predict", "mine.yaml")
    assert expected.exit_code == 0
    assert "16 hosts, links of 400gbit and 200gbit (hosts, fabric); a leaf is oversubscribed 4:1" in expected.stdout
    assert "By theory, no need for packet spraying" in expected.stdout
    assert "µs" in expected.stdout, "times are the cluster's"


def test_a_cluster_of_a_thousand_hosts_is_answered_by_theory_and_refused_in_a_sentence() -> None:
    one_seed = ("cluster-1024", "--set", "seeds=[1]")
    expected = spraylab("predict", *one_seed, "--jitter", "0")
    assert expected.exit_code == 0 and "By theory, " in expected.stdout and "oversubscribed 2:1" in expected.stdout
    assert "flows were counted" in expected.stdout
    done = spraylab("run", *one_seed, "--dry-run")
    [line] = done.stderr.splitlines()
    assert done.exit_code == 2 and "use fewer hosts" in line


def test_results_keep_what_was_asked_and_the_factor() -> None:
    experiment = emulated()
    kept = experiment.as_json()
    assert kept["fabric"]["host_rate"] == "400gbit" and kept["fabric"]["scale"] == 40_000
    assert restore_experiment(kept, "manifest.json") == experiment


def test_what_is_shown_again_says_the_scale() -> None:
    manifest = manifest_of()
    manifest["experiment"]["fabric"]["scale"] = 40_000
    folder = results_folder(Path("scaled"), manifest=manifest)
    assert ResultsFolder.open(folder.path).scale() == 40_000
    assert "Emulated at 1:40000: a time here is 40000 times the cluster's" in spraylab("show", "scaled").stdout
    results_folder(Path("plain"))
    assert "Emulated at" not in spraylab("show", "plain").stdout


def test_oversubscription_is_what_hosts_send_over_what_spines_take() -> None:
    assert oversubscription(LeafSpine(2, 2, 8, 10, 20)) == 2.0
