"""When things break while a load plays: they do when they are due, the run ends, and every packet is accounted for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from controllers.dataplane import PLANES
from emulator.bpf import dropped
from emulator.files import Folder
from experiments.judge.rows import Judged
from experiments.runs.loads.replays import Replays
from experiments.runs.messages import Failed
from experiments.runs.outside import Done, conducted
from experiments.spec.experiment import restore_experiment

EVERY_SCHEME = ["ecmp", "spray", "ethereal", "subflow-4"]
FABRIC = {"leaves": 2, "spines": 2, "hosts_per_leaf": 2, "host_rate": "20mbit"}
BUSY = ("machine", "replay")  # what others do to a machine that several share


@pytest.fixture(params=PLANES)
def plane(request: pytest.FixtureRequest) -> str:
    asked: str = request.param
    return asked


def performed(folder: Path, plane: str, faults: list[Mapping[str, Any]], **more: Any) -> dict[str, Judged]:
    """What came of an AllToAll, or what else is asked, while `faults` happened, by scheme; all of it can be trusted."""
    content = {
        "name": "faults", "fabric": {**FABRIC, "dataplane": plane}, "seeds": [1], "schemes": EVERY_SCHEME,
        "traffic": [{"collective": "alltoall", "size": "3MB"}], "stall_timeout": "30s", "faults": faults, **more,
    }  # fmt: skip
    work = Replays(restore_experiment(content, "test"))
    work.check_emulable()
    found = {}
    log = (folder / "run.log").open("w+b")
    for outcome in conducted(work, work.runs, log, Folder(folder) / "captures"):
        assert not isinstance(outcome, Failed), outcome.reason
        if isinstance(outcome, Done):
            row = outcome.judged.row
            found[row["scheme"]] = outcome.judged
            reasons = [each for each in row["fidelity_reasons"].split("; ") if not each.startswith(BUSY)]
            assert not any(reasons), (row["scheme"], reasons)
            if row["fidelity"] != "pass":
                warnings.warn(f"{row['run_id']} is not judged by {row['fidelity_reasons']}", stacklevel=2)
    assert tuple(found) == work.experiment.schemes
    return found


def sent_while(judged: Judged, port: str, start_s: float, end_s: float) -> float:
    """Bits that a port sent between two moments of the run."""
    samples = judged.frames["queues"]
    samples = samples[samples.port == port]
    first, last = (samples[samples.time_s >= moment].iloc[0] for moment in (start_s, end_s))
    return float((last.sent_bytes - first.sent_bytes) * 8 / (last.time_s - first.time_s))


def changes(judged: Judged, event: str) -> pd.DataFrame:
    frame = judged.frames["faults"]
    return frame[frame.event == event]


def test_a_link_that_degrades_and_recovers(tmp_path: Path, plane: str) -> None:
    """Both ends, at once, to the rate asked; and nobody loses a packet by it."""
    slow = {"at": "20%", "for": "60%", "link": "leaf1-spine1", "kind": "degrade", "rate": "50%"}
    for scheme, judged in performed(tmp_path, plane, [slow]).items():
        begun, ended = changes(judged, "begin"), changes(judged, "end")
        assert sorted(begun.port) == sorted(ended.port) == ["leaf1-eth3", "spine1-eth1"]
        assert set(begun.rate_bps) == {10_000_000} and set(ended.rate_bps) == {20_000_000}
        assert (begun.confirmed_s - begun.due_s).max() < 0.05
        start_s, end_s = begun.confirmed_s.max() + 0.05, ended.asked_s.min() - 0.05
        assert sent_while(judged, "leaf1-eth3", start_s, end_s) < 10_000_000 * 1.1, scheme
        assert judged.row["drops_packets"] == judged.row["destroyed_packets"] == 0


def test_a_blackhole_takes_what_comes_and_books_it_to_the_packet(tmp_path: Path, plane: str) -> None:
    """Everything that a link carries for a while is lost, and sent again."""
    hole = {"at": "20%", "for": "300ms", "link": "leaf1-spine1", "kind": "blackhole"}
    for scheme, judged in performed(tmp_path, plane, [hole]).items():
        ended = changes(judged, "end")
        assert sorted(ended.port) == ["leaf1-eth3", "spine1-eth1"]
        assert judged.row["destroyed_packets"] == ended.destroyed_packets.sum() > 20, scheme
        assert judged.row["retransmitted_segments"] > 10
        assert judged.row["drops_packets"] == 0, "queues dropped nothing"


def test_a_link_that_flaps_comes_up_as_often_as_it_goes_down(tmp_path: Path, plane: str) -> None:
    flap = {"at": "10%", "for": "60%", "link": "leaf2-spine1", "kind": "flap", "period": "200ms"}
    for scheme, judged in performed(tmp_path, plane, [flap]).items():
        begun, ended = changes(judged, "begin"), changes(judged, "end")
        assert list(begun.fault) == list(ended.fault) and begun.fault.nunique() >= 2
        assert set(begun.port) == {"leaf2-eth3", "spine1-eth2"}
        assert (ended.asked_s.to_numpy() - begun.confirmed_s.to_numpy()).max() < 0.2
        assert judged.row["destroyed_packets"] > 0, scheme


def test_a_link_that_loses_some_packets_loses_those_that_its_seed_says(tmp_path: Path, plane: str) -> None:
    lossy = {"at": "0s", "link": "leaf1-spine2", "kind": "loss", "share": "5%", "direction": "up"}
    for scheme, judged in performed(tmp_path, plane, [lossy]).items():
        [end] = changes(judged, "end").itertuples()
        links = judged.frames["links"].set_index("port")
        place = list(links.index).index("spine2-eth1")
        came = int(links.rx_packets["spine2-eth1"])
        lost = np.cumsum([dropped(number, 0.05, 1 << 32 | place) for number in range(came)])
        assert end.port == "spine2-eth1"
        assert end.destroyed_packets in lost[-40:], (scheme, "but for those that came before it had begun")
        assert judged.row["destroyed_packets"] == end.destroyed_packets > 0
