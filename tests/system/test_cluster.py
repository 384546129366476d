"""Runs on two workers of Dask's, one of which is killed: all rows, none twice, and nothing of its fabric left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
from test_command import COMMAND, descendants, host_state

distributed = pytest.importorskip("distributed")

EXPERIMENT = """\
name: cluster
fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2, host_rate: 10mbit}
traffic: [{collective: permutation, size: 350KB}]
schemes: [ecmp, spray, ethereal, subflow-2]
seeds: [1, 2, 3]
"""
LOCAL = ("--protocol", "tls", "--host", "127.0.0.1", "--no-dashboard")
WORKER = ("--resources", "fabric=1", "--nthreads", "1", "--no-nanny")
TIMEOUT_S = 120


@pytest.fixture(autouse=True)
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One authority, which vouches for all three sides."""
    made = distributed.Security.temporary()
    for name, content in {"ca": made.tls_ca_file, "cert": made.tls_client_cert, "key": made.tls_client_key}.items():
        (tmp_path / name).write_text(content)
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    monkeypatch.setenv(f"{tls}CA_FILE", str(tmp_path / "ca"))
    for side in ("SCHEDULER", "WORKER", "CLIENT"):
        monkeypatch.setenv(f"{tls}{side}__CERT", str(tmp_path / "cert"))
        monkeypatch.setenv(f"{tls}{side}__KEY", str(tmp_path / "key"))


def until(come: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not come():
        assert time.monotonic() < end_s
        time.sleep(0.05)


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts programs of Dask's, which end with the test."""
    with ExitStack() as running:

        def start(*words: str) -> subprocess.Popen[bytes]:
            log = running.enter_context((tmp_path / f"{words[0]}.log").open("ab"))
            command = [sys.executable, "-m", "dask", *words]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
            running.callback(process.wait)
            running.callback(process.kill)
            return process

        yield start


def started(dask: Callable[..., subprocess.Popen[bytes]], folder: Path) -> tuple[str, list[subprocess.Popen[bytes]]]:
    """A scheduler on loopback, by its file, and workers."""
    file = folder / "scheduler.json"
    dask("scheduler", *LOCAL, "--port", "0", "--scheduler-file", str(file))
    until(lambda: file.exists() and file.read_text().endswith("}"))
    address = str(json.loads(file.read_text())["address"])
    return str(file), [dask("worker", address, *LOCAL, "--name", name, *WORKER) for name in ("one", "two")]


def asked(folder: Path, file: str) -> list[str]:
    """The command that has the experiment performed there."""
    (folder / "e.yaml").write_text(EXPERIMENT)
    return [*COMMAND, "run", str(folder / "e.yaml"), "--on", file, "--out", str(folder / "out")]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_a_worker_that_is_killed_costs_no_run_and_leaves_nothing(
    dask: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    before, out, log = host_state(), tmp_path / "out", tmp_path / "command.log"
    file, workers = started(dask, tmp_path)
    with log.open("wb") as said:
        running = subprocess.Popen(asked(tmp_path, file), stdout=said, stderr=said)
    try:
        # The killed one has finished a run, and has a fabric and another under way.
        until(lambda: (out / "runs.csv").exists() and pd.read_csv(out / "runs.csv").machine.nunique() == 2)
        of_fabric = descendants(workers[0].pid)
        assert of_fabric
        workers[0].send_signal(signal.SIGKILL)
        assert running.wait(TIMEOUT_S) == 0, log.read_text()
    finally:
        running.kill()
        running.wait()
    until(lambda: all(gone(pid) for pid in of_fabric))
    runs = pd.read_csv(out / "runs.csv")
    assert len(runs) == 12 == runs.run_id.nunique()
    assert runs.machine.nunique() == 2
    assert not (out / "failed_runs.csv").exists()
    assert json.loads((out / "manifest.json").read_text())["machines"].keys() == set(runs.machine)
    assert "performs no further runs" in log.read_text()
    assert host_state() == before


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_however_the_command_ends_nothing_is_left_on_the_workers(
    dask: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, ending: signal.Signals
) -> None:
    file, workers = started(dask, tmp_path)
    log = tmp_path / "command.log"
    with log.open("wb") as said:
        running = subprocess.Popen(asked(tmp_path, file), stdout=said, stderr=said)
    until(lambda: log.read_text().count("fabric up") >= 1)
    running.send_signal(ending)
    if ending == signal.SIGINT:  # it waits for them
        assert running.wait(30) == 130, log.read_text()
        assert [descendants(worker.pid) for worker in workers] == [set(), set()]
    else:
        running.wait()
        until(lambda: [descendants(worker.pid) for worker in workers] == [set(), set()])
    assert (tmp_path / "out" / "manifest.json").exists()
