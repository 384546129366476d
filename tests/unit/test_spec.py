"""An experiment file: what it means, and one helpful sentence for everything that can be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from experiment_files import GOOD, MATRIX, Load, sentence

from emulator.topology import LeafSpine
from experiments.spec.experiment import (
    Experiment,
    catalog_names,
    load_experiment,
    restore_experiment,
)
from experiments.spec.messages import SpecError

# What is right


def test_quick_is_the_experiment_that_the_readme_promises() -> None:
    quick = load_experiment("quick")
    assert quick.fabric.topology() == LeafSpine(4, 4, 4, 10_000_000, 10_000_000, 9000, 4_000_000)
    assert [quick.schedule(index, 1).collective for index in range(3)] == ["permutation", "alltoall", "matrix"]
    assert quick.schemes == ("ecmp", "spray", "ethereal")
    assert quick.seeds == (1, 2, 3)
    permutation = quick.schedule(0, 1)
    assert {(flow.src, flow.dst) for flow in permutation.flows} == {(rank, (rank + 4) % 16) for rank in range(16)}
    assert permutation.channels == 4 and permutation.payload_bytes == 16 * 2_000_000
    assert quick.schedule(2, 1).payload_bytes == 16 * 2_000_000


@pytest.mark.parametrize("name", catalog_names())
def test_every_experiment_of_the_catalog_is_right_and_named_as_its_file(name: str) -> None:
    assert load_experiment(name).name == name


def test_only_the_counts_and_the_traffic_have_no_default(load: Load) -> None:
    experiment = load("fabric: {leaves: 2, spines: 3, hosts_per_leaf: 1}\ntraffic: [{collective: alltoall}]\n")
    assert experiment.name == "exp"
    assert experiment.seeds == (1, 2, 3)
    assert experiment.placement == "packed" and experiment.captures == "none"
    assert experiment.tcp().congestion_control == "cubic" and experiment.tcp().stall_timeout_s == 10.0
    assert experiment.fabric.topology().hosts == 2


def test_fabric_links_are_as_fast_as_host_links_unless_said(load: Load) -> None:
    assert load(GOOD, "fabric.host_rate=1gbit").fabric.fabric_rate_bps == 10**9
    assert load(GOOD, "fabric.host_rate=1gbit", "fabric.fabric_rate=500mbit").fabric.fabric_rate_bps == 500_000_000


@pytest.mark.parametrize("placement", ["packed", "interleaved"])
def test_a_permutation_goes_to_the_same_place_of_the_next_leaf(load: Load, placement: str) -> None:
    experiment = load(GOOD, f"placement={placement}")
    schedule = experiment.schedule(0, 1)
    fabric, hosts = experiment.fabric.topology(), experiment.hosts(schedule, 1)
    for flow in schedule.flows:
        leaf, next_leaf = fabric.leaf_of(hosts[flow.src]), fabric.leaf_of(hosts[flow.dst])
        assert next_leaf == (leaf + 1) % 4
        if leaf < 3 or placement == "packed":  # interleaved, the ring closes in another place
            assert hosts[flow.dst] % 4 == hosts[flow.src] % 4


def test_a_seed_moves_random_ranks_and_shuffled_orders(load: Load) -> None:
    experiment = load(GOOD, "placement=random", "traffic.1.order=shuffled")
    schedules = [experiment.schedule(1, seed) for seed in (1, 1, 2)]
    hosts = [experiment.hosts(schedule, seed) for schedule, seed in zip(schedules, (1, 1, 2), strict=True)]
    assert schedules[0] == schedules[1] != schedules[2]
    assert hosts[0] == hosts[1] != hosts[2]


def test_a_matrix_is_found_beside_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "two.cm").write_text(MATRIX)
    file = tmp_path / "there" / "exp.yaml"
    file.write_text("fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2}\ntraffic: [{matrix: two.cm}]\n")
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment("there/exp.yaml")
    monkeypatch.chdir("/")
    assert [(flow.src, flow.dst) for flow in experiment.schedule(0, 1).flows] == [(0, 1), (3, 2)]


def test_an_experiment_survives_its_manifest() -> None:
    quick = load_experiment("quick", ["stall_timeout=50ms", "traffic.1.window=2", "fabric.fabric_rate=2.5mbit"])
    assert restore_experiment(json.loads(json.dumps(quick.as_json())), "manifest.json") == quick


def test_a_damaged_manifest_is_refused_by_its_name() -> None:
    content = load_experiment("quick").as_json()
    content["fabric"]["spines"] = 64
    with pytest.raises(SpecError, match=r"^out/manifest\.json: fabric\.spines: 64 is too large"):
        restore_experiment(content, "out/manifest.json")
    damaged: Any = []
    with pytest.raises(SpecError, match=r"^out/manifest\.json: "):
        restore_experiment(damaged, "out/manifest.json")


# What is wrong in a file: (what is replaced, by what, line, key, what the sentence says)

WRONG = [
    ("spines: 4", "spines: 64", 4, "fabric.spines", "a path tag is a 6-bit DSCP value, so at most 63"),
    ("spines: 4", "spines: 0", 4, "fabric.spines", "at least 1 spine"),
    ("spines: 4", "spines: -1", 4, "fabric.spines", "at least 1 spine"),
    ("spines: 4", "spines: four", 4, "fabric.spines", "'four' is not a whole number from 1 to 63"),
    ("spines: 4", "spines: 4.0", 4, "fabric.spines", "4.0 is not a whole number from 1 to 63"),
    ("spines: 4", "spines: true", 4, "fabric.spines", "true is not a whole number from 1 to 63"),
    ("spines: 4", "spines:", 4, "fabric.spines", "an empty value is not a whole number"),
    ("spines: 4", "spins: 4", 4, "fabric.spins", "unknown key 'spins'; did you mean 'spines'?"),
    ("  spines: 4\n", "", 2, "fabric.spines", "is missing; write a whole number from 1 to 63"),
    ("leaves: 4", "leaves: 1", 3, "fabric.leaves", "at least 2"),
    ("leaves: 4", "leaves: 257", 3, "fabric.leaves", "at most 256 leaves"),
    ("hosts_per_leaf: 4", "hosts_per_leaf: 257", 5, "fabric.hosts_per_leaf", "at most 256 hosts"),
    ("host_rate: 20mbit", "host_rate: 8MB", 6, "fabric.host_rate", "is a size, not a rate; write a rate such as"),
    ("host_rate: 20mbit", "host_rate: 20", 6, "fabric.host_rate", "unit is missing; write a rate such as 20mbit"),
    ("host_rate: 20mbit", "host_rate: -20mbit", 6, "fabric.host_rate", "negative; write a rate such as 20mbit"),
    ("host_rate: 20mbit", "host_rate: 5bit", 6, "fabric.host_rate", "so write 72112bit or more, or a smaller mtu"),
    ("host_rate: 20mbit", "host_rate: 2000gbit", 6, "fabric.host_rate", "a rate is at most 1000gbit"),
    ("host_rate: 20mbit", "fabric_rate: 1kbit", 6, "fabric.fabric_rate", "would take more than a second"),
    ("mtu: 9000", "mtu: 100", 7, "fabric.mtu", "at least 576"),
    ("mtu: 9000", "mtu: 9217", 7, "fabric.mtu", "at most 9216"),
    ("queue: 4MB", "queue: 50mbit", 8, "fabric.queue", "is a rate, not a size; write a size such as 4MB"),
    ("queue: 4MB", "queue: 18027B", 8, "fabric.queue", "2 frames of 9014 bytes, so write 18028B or more"),
    ("queue: 4MB", "queue: 4GiB", 8, "fabric.queue", "less than 4GiB"),
    ("queue: 4MB", "queue: 4MB\n  burst: 0", 9, "fabric.burst", "at least 1 frame"),
    ("queue: 4MB", "queue: 4MB\n  burst: 8", 9, "fabric.burst", "one packet of less than 64KiB"),
    ("queue: 4MB", "queue: 20000B\n  burst: 2", 9, "fabric.burst", "so at most 1"),
    ("queue: 4MB", "queue: 4MB\n  dataplane: osv", 9, "fabric.dataplane", "auto, ovs, linux; did you mean 'ovs'?"),
    ("permutation", "permutations", 10, "traffic.0.collective", "use one of allreduce, allgather"),
    ("permutation", "7", 10, "traffic.0.collective", "7 is not the name of a collective such as alltoall"),
    ("collective: p", "colective: p", 10, "traffic.0.colective", "did you mean 'collective'?"),
    ("    size: 4MB", "    size: 4mb", 12, "traffic.0.size", "4MB is; write a size such as 4MB"),
    ("    size: 4MB", "    size: 3B", 12, "traffic.0.size", "too small to cut into 4 channels"),
    ("    size: 4MB", "    algorithm: ring", 12, "traffic.0.algorithm", "use one of shift"),
    ("    size: 4MB", "    window: 2", 12, "traffic.0.window", "unknown option 'window' of permutation"),
    ("    size: 4MB", "    shift: 16", 12, "traffic.0.shift", "sends every rank to itself"),
    ("    size: 4MB", "    matrix: x.cm", 10, "traffic.0", "both a collective and a matrix; keep one"),
    ("channels: 4", "channels: 0", 11, "traffic.0.channels", "at least 1 connection"),
    ("channels: 4", "channels: 65", 11, "traffic.0.channels", "at most 64 connections"),
    ("window: 3", "window: 0", 13, "traffic.1.window", "1 or more flows"),
    ("window: 3", "order: sorted", 13, "traffic.1.order", "use one of rotated, synchronised, shuffled"),
    ("{collective: alltoall, size: 4MB, window: 3}", "alltoall", 13, "traffic.1", "write one"),
    ("{collective: alltoall, size: 4MB, window: 3}", "{matrix: no.cm}", 13, "traffic.1.matrix", "cannot be read"),
    ("{collective: alltoall, size: 4MB, window: 3}", "{matrix: 3}", 13, "traffic.1.matrix", "one such as perm.cm"),
    ("[ecmp, ethereal]", "[]", 14, "schemes", "at least one"),
    ("[ecmp, ethereal]", "ecmp", 14, "schemes", "not a list such as [ecmp, spray, ethereal]"),
    ("[ecmp, ethereal]", "[ecmp, ecmp]", 14, "schemes", "ecmp is there twice; keep one"),
    ("[ecmp, ethereal]", "[ecmp, eternal]", 14, "schemes.1", "known are ecmp, spray, spray-random, ethereal"),
    ("[ecmp, ethereal]", "[subflow-1]", 14, "schemes.0", "K from 2 to 64"),
    ("[ecmp, ethereal]", "[4]", 14, "schemes.0", "does not belong in a list such as [ecmp, spray, ethereal]"),
    ("windows: fitted", "windows: fited", 16, "transport.windows", "one of fitted, default; did you mean 'fitted'?"),
    ("windows: fitted", "congestion_control: BBR v2", 16, "transport.congestion_control", "such as cubic"),
    ("- 2", "- 65536", 19, "seeds.1", "16 bits, so at most 65535"),
    ("- 2", "- -1", 19, "seeds.1", "from 0 to 65535"),
    ("- 2", "- 1", 17, "seeds", "1 is there twice; keep one"),
    ("- 2", "- two", 19, "seeds.1", "whole numbers such as [1, 2, 3]"),
    ("name: test", "name: a/b", 1, "name", "letters, digits"),
    ("name: test", "name: test\nplacement: pack", 2, "placement", "not one of packed, interleaved, random"),
    ("name: test", "name: test\ncaptures: some", 2, "captures", "'some' is not one of none, uplinks, hosts, all"),
    ("name: test", "name: test\nstall_timeout: 10", 2, "stall_timeout", "write a time such as 10ms or 2s"),
    ("name: test", "name: test\nreplay: {processes: 0}", 2, "replay.processes", "a whole number from 1 to 256"),
    ("name: test", "name: test\nreplay: {process: 2}", 2, "replay.process", "did you mean 'processes'?"),
    ("name: test", "name: test\nverify: 2", 2, "verify", "2 is not true or false"),
    ("name: test", "name: test\ncolour: red", 2, "colour", "unknown key 'colour'; known are name, fabric, traffic"),
    ("name: test", "name: test\nname: test2", 2, "name", "there twice; keep one"),
    ("traffic:", "traffics:", 9, "traffics", "did you mean 'traffic'?"),
]


@pytest.mark.parametrize(("old", "new", "line", "key", "said"), WRONG)
def test_what_is_wrong_is_said_with_file_line_key_and_remedy(
    load: Load, old: str, new: str, line: int, key: str, said: str
) -> None:
    assert GOOD.count(old) >= 1
    message = sentence(load, GOOD.replace(old, new, 1))
    assert message.startswith(f"exp.yaml:{line}: {key}: ")
    assert said in message


def test_an_algorithm_that_cannot_serve_so_many_ranks_is_refused_before_anything_is_built(load: Load) -> None:
    text = GOOD.replace("hosts_per_leaf: 4", "hosts_per_leaf: 3").replace(
        "{collective: alltoall, size: 4MB, window: 3}", "{collective: allreduce, algorithm: halving-doubling}"
    )
    message = sentence(load, text)
    assert message.startswith("exp.yaml:13: traffic.1: ") and "power of two of ranks, not 12: use 8 or 16" in message


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (MATRIX.replace("3->2", "3->4"), "rank 4 is out of range"),
        (MATRIX.removesuffix(" size 1000\n"), "exp.cm:4: no size"),
        (MATRIX.replace("Nodes 4", "Nodes 5"), "5 ranks do not fit on 4 hosts"),
        ("", "Nodes"),
    ],
)
def test_a_wrong_matrix_is_refused_with_its_own_line(load: Load, matrix: str, said: str) -> None:
    Path("exp.cm").write_text(matrix)
    message = sentence(load, "fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2}\ntraffic:\n  - matrix: exp.cm\n")
    assert message.startswith("exp.yaml:3: traffic.0.matrix: ")
    assert said in message


def test_all_mistakes_are_told_in_the_order_of_their_lines(load: Load) -> None:
    text = GOOD.replace("- 2", "- two").replace("mtu: 9000", "mtu: 1").replace("[ecmp", "[ecmpp")
    with pytest.raises(SpecError) as refused:
        load(text)
    places = [" ".join(line.split()[:2]) for line in str(refused.value).splitlines()]
    assert places == ["exp.yaml:7: fabric.mtu:", "exp.yaml:14: schemes.0:", "exp.yaml:19: seeds.1:"]


def test_of_very_many_mistakes_the_rest_are_counted(load: Load) -> None:
    with pytest.raises(SpecError) as refused:
        load(GOOD + "".join(f"key{number}: 1\n" for number in range(1000)))
    lines = str(refused.value).splitlines()
    assert len(lines) == 51 and lines[-1] == "exp.yaml: and 950 more"


def test_a_misspelt_key_is_not_also_counted_as_missing(load: Load) -> None:
    assert sentence(load, GOOD.replace("spines: 4", "spins: 4")).endswith("did you mean 'spines'?")


def test_a_wrong_host_rate_is_one_error_although_the_fabric_rate_follows_it(load: Load) -> None:
    assert "fabric.host_rate: '20'" in sentence(load, GOOD.replace("20mbit", "20"))


def test_the_least_rate_is_that_of_a_frame_a_second_and_100gbit_is_none_too_high(load: Load) -> None:
    assert load(GOOD, "fabric.host_rate=72112bit").fabric.host_rate_bps == 72_112
    assert "too small" in sentence(load, GOOD, "fabric.host_rate=72111bit")
    assert load(GOOD, "fabric.host_rate=4720bit", "fabric.mtu=576").fabric.fabric_rate_bps == 4720
    assert load(GOOD, "fabric.mtu=9216", "fabric.burst=7").fabric.mtu_bytes == 9216
    assert "at most 7" in sentence(load, GOOD, "fabric.mtu=9216", "fabric.burst=8")
    assert load(GOOD, "fabric.host_rate=100gbit").fabric.fabric_rate_bps == 10**11


# Overrides


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("fabric.spines=8", lambda experiment: experiment.fabric.spines == 8),
        ("seeds=[7]", lambda experiment: experiment.seeds == (7,)),
        ("seeds.1=7", lambda experiment: experiment.seeds == (1, 7)),
        ("traffic.0.size=1MiB", lambda experiment: experiment.traffic[0].size_bytes == 2**20),
        ("transport.reordering=default", lambda experiment: experiment.tcp().reordering == "default"),
        ("stall_timeout=2s", lambda experiment: experiment.tcp().stall_timeout_s == 2.0),
        ("traffic=[{collective: broadcast}]", lambda experiment: len(experiment.traffic) == 1),
    ],
)
def test_an_override_changes_its_key(load: Load, override: str, found: Callable[[Experiment], bool]) -> None:
    assert not found(load(GOOD))
    assert found(load(GOOD, override))


def test_an_override_may_add_a_mapping_that_the_file_lacks(load: Load) -> None:
    text = GOOD.replace("transport:\n  windows: fitted\n", "")
    assert load(text, "transport.windows=default").tcp().windows == "default"


def test_the_last_override_counts_and_is_the_one_blamed(load: Load) -> None:
    assert load(GOOD, "fabric.spines=64", "fabric.spines=8").fabric.spines == 8
    message = sentence(load, GOOD, "traffic.0.size=1MB", "traffic=[{collective: alltoall, size: 1}]")
    assert message.startswith("--set traffic=[{collective: alltoall, size: 1}]: traffic.0.size: '1' is not a size")
    message = sentence(load, GOOD, "traffic=[{collective: alltoall}]", "traffic.0.size=1")
    assert message.startswith("--set traffic.0.size=1: '1' is not a size")


@pytest.mark.parametrize(
    ("override", "rest"),
    [
        ("fabric.spines=64", "64 is too large: a path tag is a 6-bit DSCP value, so at most 63 spines"),
        ("fabric.spins=8", "unknown key 'spins'; did you mean 'spines'?"),
        ("traffic.1.window=0", "window must be 1 or more flows, not 0; leave it out for no limit"),
        ("transprt.windows=default", "transprt: unknown key 'transprt'; did you mean 'transport'?"),
        ("fabric={leaves: 4, spines: 4}", "fabric.hosts_per_leaf: is missing; write a whole number from 1 to 256"),
        ("traffic.2.size=1MB", "traffic has no item '2'; its items are traffic.0 to traffic.1"),
        ("traffic.-1.size=1MB", "traffic has no item '-1'; its items are traffic.0 to traffic.1"),
        ("name.x=1", "name is a single value, so there is no 'x' in it"),
        ("seeds=[1", "the value is not valid YAML"),
        ("seeds", "write KEY=VALUE, such as fabric.spines=8"),
        ("=8", "write KEY=VALUE, such as fabric.spines=8"),
        ("fabric..spines=8", "write KEY=VALUE, such as fabric.spines=8"),
    ],
)
def test_a_wrong_override_is_told_as_it_was_typed(load: Load, override: str, rest: str) -> None:
    assert sentence(load, GOOD, override) == f"--set {override}: {rest}"


def test_what_an_override_makes_impossible_is_told_where_it_is_written(load: Load) -> None:
    Path("exp.cm").write_text(MATRIX)
    text = "fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2}\ntraffic:\n  - matrix: exp.cm\n"
    message = sentence(load, text, "fabric.hosts_per_leaf=1")
    assert message.startswith("exp.yaml:3: traffic.0.matrix: ") and "2 hosts (2 leaves x 1)" in message
