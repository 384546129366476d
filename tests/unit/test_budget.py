"""What is too much is refused in a sentence, soon and without trying; what is not, is not."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import EVERY_SCHEME

from emulator.doctor import kernel
from emulator.sandbox import AMPLE_OPEN_FILES
from emulator.topology import LeafSpine
from experiments.runs.loads.replays import Replays
from experiments.runs.loads.sweeps import replay_work
from experiments.runs.predict import predictions
from experiments.spec import budget
from experiments.spec.experiment import Experiment, load_experiment
from experiments.spec.messages import SpecError
from traffic.collectives import COLLECTIVES, ScheduleError, algorithm_of, build_schedule
from traffic.placement import place
from traffic.plan import plan_traffic
from traffic.schedule import Flow, Schedule
from traffic.schemes import scheme_of

ALGORITHMS = [(name, algorithm) for name, kind in COLLECTIVES.items() for algorithm in kind.algorithms]
quickly = settings(max_examples=300, deadline=None, derandomize=True)


@quickly
@given(
    st.sampled_from(ALGORITHMS),
    st.integers(2, 17) | st.sampled_from([2, 4, 8, 16]),
    st.integers(1, 4),
    st.none() | st.integers(1, 5),
    st.none() | st.integers(1, 4),
)
def test_flows_are_as_many_as_are_listed(
    algorithm: tuple[str, str], ranks: int, channels: int, chunks: int | None, window: int | None
) -> None:
    chosen = algorithm_of(*algorithm)
    given_ = {"chunks": chunks, "window": window}
    options: dict[str, Any] = {
        name: value for name, value in given_.items() if name in chosen.options and value is not None
    }
    try:
        schedule = build_schedule(*algorithm, ranks=ranks, size_bytes=400_000, channels=channels, **options)
    except ScheduleError as error:
        assert "power of two" in str(error)
    else:
        assert chosen.flow_count(ranks, channels, **options) == len(schedule.flows)


def test_chunks_below_one_count_nothing_away() -> None:
    assert algorithm_of("allreduce").flow_count(8, chunks=-5) == 0


@quickly
@given(
    st.integers(2, 4),
    st.integers(1, 7),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 15), st.integers(1, 15), st.integers(1, 3000), st.integers(0, 1)), min_size=1),
    st.sampled_from(EVERY_SCHEME),
)
def test_pieces_are_bounded(
    leaves: int, spines: int, per_leaf: int, flows: list[tuple[int, int, int, int]], scheme: str
) -> None:
    fabric = LeafSpine(leaves, spines, per_leaf)
    ranks = fabric.hosts
    listed = [
        Flow(number, src % ranks, (src + 1 + by % (ranks - 1)) % ranks, size, step)
        for number, (src, by, size, step) in enumerate(flows)
    ]
    schedule = Schedule("matrix", "x", ranks, 1, 1, listed)
    hosts = place("packed", fabric, ranks, 1)
    assert len(plan_traffic(schedule, fabric, hosts, scheme_of(scheme)).pieces) <= scheme_of(scheme).most_pieces(
        schedule, fabric, hosts
    )


def refused(experiment: Experiment, emulated: bool = True) -> str:
    def ask() -> None:
        if emulated:
            Replays(experiment).check_emulable()
        else:
            next(predictions(experiment))

    with pytest.raises(SpecError) as error:
        ask()
    assert "\n" not in str(error.value)
    return str(error.value)


TWO = "fabric={leaves: 2, spines: 2, hosts_per_leaf: 256}"


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("scale-65536", ["traffic.1.window=4"], "4,294,901,760 flows are more than can be listed (at most 300,000)"),
        ("quick", ["traffic=[{collective: broadcast, size: 1GB, chunks: 100000000}]"], "1,500,000,000 flows"),
        ("quick", [TWO, "traffic=[{collective: alltoall, channels: 64, window: 1}]"], "16,744,448 flows"),
        ("quick", [f"seeds={list(range(1000))}", f"traffic=[{'{collective: alltoall},' * 99}]"], "297,000 runs"),
        (
            "quick",
            [TWO, "traffic=[{collective: alltoall, size: 100MB}]", "schemes=[subflow-64]"],
            "in 16,744,448 pieces",
        ),
    ],
)
def test_what_cannot_be_listed_is_refused_soon_by_its_number(name: str, overrides: list[str], said: str) -> None:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert said in refused(load_experiment(name, overrides), emulated=False)
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000


def test_what_a_run_would_list_is_refused_before_it(tmp_path: Path) -> None:
    many = ["fabric={leaves: 4, spines: 4, hosts_per_leaf: 256}", "traffic=[{collective: alltoall, channels: 64}]"]
    assert "67,043,328 flows" in refused(load_experiment("quick", many))


LARGE = "fabric={leaves: %d, spines: 16, hosts_per_leaf: 16, host_rate: 1mbit}"
SEEDS = f"seeds={list(range(1000))}"
ALL_TO_ALL = "traffic=[{collective: alltoall, size: 100MB}]"
TEN = {
    "strain.jitter": [f"{share}%" for share in range(10)],
    "traffic.0.size": [f"{size}MB" for size in range(3, 13)],
    "stall_timeout": [f"{seconds}s" for seconds in range(10, 20)],
    **{f"fabric.{key}": list(range(2, 12)) for key in ("leaves", "spines", "hosts_per_leaf")},
    "transport.windows": list(range(10)),
    "strain.sizes": list(range(10)),
    "strain.stragglers.slow": list(range(10)),
    "fabric.mtu": list(range(10)),
}


def swept(keys: int) -> str:
    return "sweep=" + json.dumps({key: TEN[key] for key in list(TEN)[:keys]})


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("scale-65536", [], "65536 hosts are more than a machine emulates"),
        ("quick", ["traffic=[{collective: broadcast, algorithm: tree, chunks: 100000000}]"], "1,500,000,000 flows"),
        ("quick", [LARGE % 16, ALL_TO_ALL], "65,280 connections, which take 130,660 open files"),
        ("quick", [LARGE % 8, ALL_TO_ALL, "schemes=[subflow-64]"], "1,040,384 connections"),
        ("quick", [LARGE % 32, ALL_TO_ALL], "261,632 connections"),
        (
            "quick",
            [LARGE % 8, ALL_TO_ALL, f"seeds={list(range(1000))}", "placement=random"],
            "3,000 runs of 48,768,000",
        ),
        ("quick", [LARGE % 8, ALL_TO_ALL, swept(3)], "1,000 points of 16,256,000 flows in all"),
        ("quick", [swept(10)], "10,000,000,000 points"),
        ("quick", [LARGE % 8, ALL_TO_ALL, f"sweep={{traffic.0.channels: {list(range(1, 65))}}}"], "in all are more"),
        ("quick", ["traffic=[{collective: broadcast, size: 1GB, chunks: 60000}]"], "900,000 flows are more"),
        ("quick", ["traffic=[{hpcc: FLOWS}]"], "300,001 flows are more than the 300,000 that are read"),
        ("quick", ["traffic=[{job: ddp, model: resnet50, compute: 1s, ranks: 65536}]"], "more than 300,000 flows"),
        ("quick", ["traffic=[{job: ep, model: mixtral, ranks: 65536, group: 65536}]"], "more than 300,000 flows"),
        ("quick", ["traffic=[{job: pp, model: llama3-8b, group: 4, microbatches: 1000000}]"], "more than 300,000"),
        ("quick", ["traffic=[{astra: LAYERS, unit: us, iterations: 100}]"], "more than 300,000 flows"),
        (
            "quick",
            [f"traffic=[{{together: [{'{job: ddp, model: resnet50, compute: 1s, ranks: 2},' * 65}]}}]"],
            "1 to 64",
        ),
        ("quick", [f"traffic=[{{together: [{'{astra: LAYERS, unit: us},' * 64}]}}]"], ": use fewer"),
    ],
)
def test_what_is_too_large_to_emulate_is_refused_before_anything_is_built(
    name: str, overrides: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "most_open_files", lambda: 20_000)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    flows = tmp_path / "flows.txt"
    flows.write_text("300001\n" + "0 1 3 100 1000 2.0\n" * 3)
    given = [each.replace("FLOWS", str(flows)) for each in overrides]
    layers = tmp_path / "layers.txt"
    layers.write_text("DATA\n2000\n" + "conv -1 5 NONE 0 5 NONE 0 5 ALLREDUCE 1048576 5\n" * 2000)
    with pytest.raises(SpecError) as error:
        replay_work(load_experiment(name, [each.replace("LAYERS", str(layers)) for each in given])).check_emulable()
    assert said in str(error.value) and "\n" not in str(error.value)
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000


def test_connections_are_refused_that_have_no_port_or_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "many.cm").write_text(
        "Nodes 2\nConnections 56000\n" + "".join(f"0->1 id {number} start 0 size 9\n" for number in range(56_000))
    )
    (tmp_path / "many.yaml").write_text(
        "fabric: {leaves: 2, spines: 2, hosts_per_leaf: 1}\ntraffic: [matrix: many.cm]\n"
    )
    experiment = load_experiment(str(tmp_path / "many.yaml"), ["schemes=[ecmp]"])
    assert "56,000 connections from h1, and a host has ports for 55,536" in refused(experiment)
    monkeypatch.setattr(budget, "most_open_files", lambda: 600)
    Replays(load_experiment("quick", ["schemes=[ecmp]"])).check_emulable()
    message = refused(load_experiment("quick", ["schemes=[subflow-64]"]))
    assert "open files, and this machine allows 600 (ulimit -Hn)" in message


def test_everything_of_the_catalog_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "most_open_files", lambda: AMPLE_OPEN_FILES)
    Replays(load_experiment("quick")).check_emulable()
    Replays(load_experiment("scale-16x16")).check_emulable()
    experiment = load_experiment("scale-65536", ["traffic=[{collective: permutation, channels: 4, size: 256KiB}]"])
    assert next(predictions(experiment))["flows"] == 4 * 65_536


def test_a_congestion_control_that_this_kernel_lacks_is_refused_before_anything_is_built() -> None:
    experiment = load_experiment("quick", ["transport.congestion_control=foo"])
    with pytest.raises(SpecError, match=r"^quick: transport\.congestion_control: this kernel has .*cubic.* no foo to"):
        Replays(experiment).check_kernel()
    Replays(load_experiment("quick")).check_kernel()
    assert len(list(predictions(experiment, jitter=0))) == len(Replays(experiment).runs), "a model has no kernel"


def test_a_congestion_control_that_can_be_loaded_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("kernel/net/ipv4/tcp_vegas.ko.zst:\n")
    monkeypatch.setattr(kernel, "_modules", lambda: tmp_path)
    assert kernel.without_congestion_control("vegas") is None
    assert kernel.without_congestion_control("vega") is not None
