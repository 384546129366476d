"""What it costs to have runs performed by a Dask cluster, its workers all on this machine, beside performing them here.

Needs root, and Dask: `./spraylab --setup cluster`.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from emulator.errors import EmulatorError
from emulator.files import Folder
from emulator.inherited import environment, python
from experiments.judge.evidence import Built
from experiments.runs.cluster import Cluster
from experiments.runs.loads.sweeps import replay_work
from experiments.runs.outside import Done, Outcome, conducted
from experiments.runs.scheduler import Address, Scheduler
from experiments.runs.work import Work
from experiments.runs.worker import Asked, Needs
from experiments.spec.experiment import Experiment

WORKERS = (1, 2)
_START_TIMEOUT_S = 30.0
_LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard")
_SHORT = {
    "name": "sweep",
    "fabric": {"leaves": 2, "spines": 2, "hosts_per_leaf": 2, "host_rate": "10mbit"},
    "traffic": [{"collective": "permutation", "size": "350KB"}],
    "schemes": ["ecmp", "spray", "ethereal", "subflow-2", "subflow-3"],
    "seeds": [1, 2, 3, 4],  # all schemes of one go to the same worker: they are shared out evenly
}


def run(workers: Sequence[int] = WORKERS) -> list[dict[str, Any]]:
    """A row for every number of workers: seconds that 20 short runs take here and there once the first fabric is up.

    `overhead_ms` is what a run takes longer there of one worker's time: in its way over the scheduler, in waiting for
    what is to be done next, and in fabrics that are built anew for it.
    """
    work = replay_work(Experiment.model_validate(_SHORT))
    here_s = _here_s(work)
    rows = []
    for count in workers:
        took_s = _there_s(work, count)
        rows.append(
            {
                "workers": count,
                "runs": len(work.runs),
                "here_s": round(here_s, 2),
                "there_s": round(took_s, 2),
                "overhead_ms": round((took_s * count - here_s) / len(work.runs) * 1e3, 1),
            }
        )
    return rows


def _here_s(work: Work) -> float:
    with tempfile.TemporaryDirectory() as name, (Path(name) / "run.log").open("a+b") as log:
        return _took_s(conducted(work, work.runs, log, Folder(Path(name))), work)


def _there_s(work: Work, count: int) -> float:
    asked = Asked(work.experiment.as_json(), {}, replay_work)
    with _workers(count) as address, Cluster(address, Needs({})) as cluster, tempfile.TemporaryFile() as log:
        return _took_s(cluster.conducted(asked, work, work.runs, log, Folder(Path()), _unlimited), work)


def _unlimited(_hosts: int) -> None:
    """Calibration is of no use to so little."""


def _took_s(outcomes: Iterator[Outcome], work: Work) -> float:
    started, done = 0.0, 0
    for outcome in outcomes:
        if isinstance(outcome, Built):
            started = started or time.monotonic()
        done += isinstance(outcome, Done)
    if done < len(work.runs):
        raise EmulatorError(f"{len(work.runs) - done} of {len(work.runs)} runs did not finish")
    return time.monotonic() - started


@contextmanager
def _workers(count: int) -> Iterator[Address]:
    """A scheduler on loopback, and so many workers that have found it."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        file = Path(name) / "scheduler.json"
        _start(running, name, "scheduler", *_LOOPBACK, "--port", "0", "--scheduler-file", str(file))
        own = ("--scheduler-file", str(file), "--resources", "fabric=1", "--nthreads", "1", "--no-nanny")
        for _ in range(count):
            _start(running, name, "worker", *_LOOPBACK, *own)
        end_s = time.monotonic() + _START_TIMEOUT_S
        while not file.exists() or _there(file) < count:
            if time.monotonic() > end_s:
                raise EmulatorError(f"{count} Dask workers did not start within {_START_TIMEOUT_S:g} s")
            time.sleep(0.2)
        yield Address.of(str(file))


def _start(running: ExitStack, folder: str, which: str, *words: str) -> None:
    process = subprocess.Popen(
        python(f"distributed.cli.dask_{which}", *words),
        cwd=folder,
        env=environment(DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED="false"),  # it takes time from the emulation
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    running.callback(process.wait)
    running.callback(process.kill)


def _there(file: Path) -> int:
    scheduler = Scheduler(Address.of(str(file)))
    try:
        return len(scheduler.workers())
    finally:
        scheduler.close()
