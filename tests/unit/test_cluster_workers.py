"""Which schedulers and workers of a cluster are taken, and what they get to make runs from."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from played_cluster import FIRST, NEEDS, SECOND, Played, cluster

from emulator.errors import EmulatorError
from experiments.commands import performing
from experiments.results.inputs import begun
from experiments.results.manifest import here
from experiments.results.manifest import manifest as asked_of
from experiments.runs.cluster import Cluster
from experiments.runs.loads.sweeps import replay_work
from experiments.runs.scheduler import Address, emulating
from experiments.runs.worker import Asked, Needs, greet
from experiments.spec.experiment import load_experiment
from experiments.spec.messages import SpecError


def lacks_root() -> str:
    return "it does not run as root: have its owner start it as root"


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (Needs({"spraylab": "9.9"}), "its spraylab is .*, this command's 9.9: have the same checkout on both"),
        (Needs({}, examine=lacks_root), "does not run as root: have its owner start it as root"),
        (Needs({}, ("no-such",)), "no no-such to load"),
        (Needs({}, schemes=["mptcp-4"]), "mptcp-4 will not run there: no MPTCP here"),
    ],
)
def test_a_worker_that_is_not_fit_is_refused_before_any_run(
    needs: Needs, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traffic.schemes.mptcp.without_mptcp", lambda: "no MPTCP here")
    with pytest.raises(EmulatorError, match=words) as refused, cluster(Played(FIRST, SECOND), needs):
        pass
    assert str(refused.value).count(socket.gethostname()) == 2, "each worker is named"


def test_what_a_data_plane_cannot_do_is_told_and_not_refused() -> None:
    greeting = greet(Needs({}, schemes=["hedera-100ms"], dataplane="ovs-user"))
    assert not greeting.lacks
    assert "hedera-100ms will not run" in greeting.warnings[0]


def test_a_scheduler_without_workers_that_emulate_is_refused() -> None:
    with pytest.raises(EmulatorError, match="--resources fabric=1"), cluster(Played()):
        pass


@pytest.mark.parametrize("address", ["tls://10.0.0.2:9000", "tcp://127.0.0.1:9000", "tcp://[::1]:9000"])
def test_workers_that_emulate_are_known_by_what_they_were_started_with(address: str) -> None:
    workers: Mapping[str, Any] = {
        address: {"resources": {"fabric": 1}, "local_directory": "/tmp/a"},
        "tcp://10.0.0.3:9000": {"resources": {}, "local_directory": "/tmp/b"},
    }
    assert list(emulating(workers).values()) == [address]


def test_a_worker_whom_others_can_reach_is_refused() -> None:
    with pytest.raises(SpecError, match=r"10\.0\.0\.2:9000 is not encrypted"):
        emulating({"tcp://10.0.0.2:9000": {"resources": {"fabric": 1}, "local_directory": "/tmp/a"}})


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://192.0.2.1:8786", "TLS"),
        ("tcp://head:8786", "TLS"),
        ("tls://head", "no scheduler's address"),
        ("http://head:80", "no scheduler's address"),
        ("nowhere.json", "nowhere.json"),
    ],
)
def test_an_address_that_is_none_or_not_private_is_refused(address: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Address.of(address)


def test_a_scheduler_file_names_its_address(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"address": "tls://10.0.0.1:8786"}')
    assert Address.of(str(tmp_path / "s.json")).url == "tls://10.0.0.1:8786"


def test_without_dask_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SpecError, match=r"\./spraylab --setup cluster installs it"):
        Cluster(Address.of("tls://head:8786"), NEEDS).__enter__()


def test_nobody_listens_there() -> None:
    pytest.importorskip("distributed")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        where = Address.of(f"tcp://127.0.0.1:{bound.getsockname()[1]}")
        with pytest.raises(EmulatorError, match="not to be reached"), Cluster(where, NEEDS):
            pass


def test_what_runs_are_made_from_makes_the_same_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "flows.cm").write_text("Nodes 4\nConnections 1\n0->2 id 1 start 0 size 500000\n")
    (tmp_path / "m.yaml").write_text(
        "name: m\nfabric: {leaves: 2, spines: 2, hosts_per_leaf: 2, host_rate: 10mbit}\ntraffic: [{matrix: flows.cm}]\n"
    )
    experiment = load_experiment(str(tmp_path / "m.yaml"))
    folder = begun(tmp_path / "out", asked_of(experiment), experiment, tmp_path / "m.yaml")
    (tmp_path / "flows.cm").unlink()
    (tmp_path / "elsewhere").mkdir()
    made = performing.asked_of(folder, replay_work(experiment)).work(tmp_path / "elsewhere")
    assert made.runs == replay_work(experiment).runs
    made.prepare(made.runs[0])


def test_what_is_sent_is_written_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for place in ("../flows.csv", "/tmp/flows.csv"):
        with pytest.raises(SpecError, match="no place in a results folder"):
            Asked({}, {place: b""}, replay_work).work(tmp_path / "own")


def test_a_greeting_says_what_the_machine_is() -> None:
    greeting = greet(NEEDS)
    assert (greeting.node, greeting.lacks) == (socket.gethostname(), "")
    assert greeting.about == here()
