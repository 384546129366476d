"""The format of a results folder, name by name. Others read these files: a change here is a decision, and is told.

Whoever adds a name adds it here and in CHANGELOG.md; whoever takes one away, or renames it, raises `FORMAT_VERSION`.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from synthetic import FABRIC, healthy_run, ports_of

from emulator.ports import Shaping
from experiments.judge.evidence import Built
from experiments.judge.rows import judge_replay
from experiments.results.folder import ResultsFolder
from experiments.results.inputs import begun
from experiments.results.manifest import manifest, record_fabric
from experiments.runs.loads.replays import Replays
from experiments.spec.experiment import experiment_file, load_experiment

RUNS_COLUMNS = (
    "run_id experiment scheme traffic collective algorithm channels ranks leaves spines hosts_per_leaf host_rate_bps "
    "fabric_rate_bps uneven mtu_bytes burst_frames dataplane size_bytes seed "
    "flows subflows cut_flows cct_s bound_s cct_over_bound "
    "predicted_cct_s predicted_low_s predicted_high_s emulated_over_predicted explained "
    "step_s step_over_bound exposed_s exposed_mean_s overlap job_steps request_p50_s request_p99_s "
    "algbw_bps busbw_bps congestion_ratio fct_p50_s fct_p99_s "
    "retransmitted_segments timeouts out_of_order_segments drops_packets faults destroyed_packets converged_s "
    "queue_peak_bytes cpu_idle_min verified fidelity fidelity_reasons"
)

FRAMES_COLUMNS = {
    "flows": "run_id flow src dst src_host dst_host step channel size_bytes start_s fct_s",
    "subflows": "run_id subflow src_host dst_host src_port path_tag retransmitted_segments retransmitted_bytes "
    "timeouts reordering_seen out_of_order_segments received_bytes min_rtt_s moves",
    "links": "run_id port node peer leaf spine host direction rate_bps tx_bytes tx_packets rx_packets drops_packets "
    "queue_peak_bytes",
    "queues": "run_id time_s sent_bytes backlog_bytes drops_packets port",
}

MANIFEST_KEYS = {
    "": "format experiment within command started machine versions sysctls inputs fabric",
    "experiment": "name fabric traffic schemes transport replay placement seeds captures faults verify stall_timeout",
    "machine": "kernel cores cpu architecture memory_bytes",
    "versions": "python revision spraylab os-ken numpy pandas pyarrow",
    "fabric": "dataplane openvswitch setup_s packet_buffer_bytes shaping",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ResultsFolder:
    """What a run of the catalog's first experiment leaves behind."""
    work = Replays(load_experiment("quick"))
    path, file = tmp_path_factory.mktemp("format") / "results", experiment_file("quick")
    folder = begun(path, manifest(work.experiment), work.experiment, file)
    ports = ports_of(FABRIC)
    shaping: dict[str, Shaping | None] = {port.name: port.shaping for port in ports}
    record_fabric(folder, Built("linux", "a test", None, {"ready": 0.1}, None, ports, shaping))
    run = work.runs[0]
    folder.append(judge_replay(healthy_run(), work.identity(run, work.plan(run), "linux")))
    return folder


def test_the_columns_of_runs_csv(folder: ResultsFolder) -> None:
    with (folder.path / "runs.csv").open() as file:
        assert next(csv.reader(file)) == RUNS_COLUMNS.split()


@pytest.mark.parametrize("name", FRAMES_COLUMNS)
def test_the_columns_of_frames(folder: ResultsFolder, name: str) -> None:
    assert list(folder.frame(name)) == FRAMES_COLUMNS[name].split()


@pytest.mark.parametrize("part", MANIFEST_KEYS)
def test_the_keys_of_manifest_json(folder: ResultsFolder, part: str) -> None:
    content = json.loads(Path(folder.path / "manifest.json").read_text())
    assert list(content[part] if part else content) == MANIFEST_KEYS[part].split()


def test_a_ports_shaping_in_manifest_json(folder: ResultsFolder) -> None:
    first = next(iter(folder.manifest()["fabric"]["shaping"].values()))
    assert list(first) == ["rate_bps", "burst_bytes", "queue_bytes"]
