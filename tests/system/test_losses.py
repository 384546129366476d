"""A process that everything rests upon is killed in the middle of a run: named at once, and the other runs go on."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from test_command import TIMEOUT_S, descendants, experiment, host_state, started, wait_until

SOON_S = 15.0  # of killing: the run has failed, and the next is under way on a fabric built anew


def process_of(command: int, words: str) -> int:
    """The process below `command` with `words` in its command line; of several the last."""
    found = [pid for pid in descendants(command) if words in command_line(pid)]
    return max(found)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("words", "plane", "reason"),
    [
        ("ovs-vswitchd unix:", "ovs", "ovs-vswitchd was ended by SIGKILL"),
        ("ovsdb-server --remote", "ovs", "ovsdb-server was ended by SIGKILL"),
        ("controllers.ovs.app", "ovs", "the OpenFlow controller was ended by SIGKILL"),
        ("emulator.meters.sampler", "linux", "the sampler (was ended by SIGKILL|has ended, which nobody asked it to)"),
        ("holder.py", "linux", "the process that holds spine2 has ended, which nobody asked it to"),
    ],
)
def test_a_killed_process_is_named_and_the_other_runs_go_on(
    tmp_path: Path, words: str, plane: str, reason: str
) -> None:
    before, out = host_state(), tmp_path / "results"
    path, log = str(experiment(tmp_path, size="1500KB")), out / "run.log"
    with started("run", path, "--set", f"fabric.dataplane={plane}", "--out", str(out)) as process:
        assert wait_until(lambda: log.exists() and " run 002" in log.read_text())
        time.sleep(0.5)
        killed = time.monotonic()
        os.kill(process_of(process.pid, words), signal.SIGKILL)
        assert wait_until(lambda: " run 003" in log.read_text())
        assert time.monotonic() - killed < SOON_S
        said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    [failed] = pd.read_csv(out / "failed_runs.csv").to_dict("records")
    assert failed["run_id"].startswith("002-") and re.fullmatch(reason, failed["reason"])
    assert sorted(run_id[:3] for run_id in pd.read_csv(out / "runs.csv").run_id) == ["001", "003"]
    assert "the fabric is built anew" in said and "Traceback" not in said
    assert host_state() == before
