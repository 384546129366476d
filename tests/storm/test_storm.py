"""Any process of a run is struck by any signal at any moment: nothing is left behind, nothing finished is lost, and
`--resume` does the rest. Not part of the default run: `./spraylab test --storm`, `--storm --kills 100 --seed 7`.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
from test_command import alive, descendants, host_state, run, started, wait_until

EXPERIMENT = """\
name: storm
fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2, host_rate: 10mbit, dataplane: PLANE}
traffic:
  - {collective: permutation, channels: 2, size: 400KB}
schemes: [ecmp, spray, ethereal]
seeds: [1]
"""
RUNS = 3
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL]
PLANES = ["linux", "ovs"]
END_S = 60.0
SYSCTLS = ("net/ipv4", "net/core", "kernel/hostname", "vm/overcommit_memory", "fs/file-max")


def machine() -> dict[str, object]:
    """All that a run could leave or change, but its results."""
    sysctls = {}
    for below in SYSCTLS:
        place = Path("/proc/sys") / below
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            try:
                sysctls[str(path)] = path.read_text()
            except OSError:  # not for reading
                continue
    return {
        **host_state(),
        "every sysctl": {name: value for name, value in sysctls.items() if not _moves(name)},
        "mount points": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
    }


def _moves(name: str) -> bool:
    """Whether it counts or follows the machine, rather than being set."""
    return any(word in name for word in ("inet_peer", "route/flush", "fastopen_key", "random"))


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "(gone)"


def finished(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "runs.csv") if (out / "runs.csv").exists() else pd.DataFrame({"run_id": []})


def assert_begins_with(rows: pd.DataFrame, kept: pd.DataFrame) -> None:
    if len(kept):
        pd.testing.assert_frame_equal(rows.iloc[: len(kept)], kept, check_dtype=False)


def experiment(folder: Path, plane: str) -> Path:
    path = folder / "storm.yaml"
    path.write_text(EXPERIMENT.replace("PLANE", plane))
    return path


@pytest.fixture(scope="session")
def whole_s(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """How long the command takes that nothing strikes, on each data plane: later, there is nothing left to strike."""
    took = {}
    for plane in PLANES:
        folder, began = tmp_path_factory.mktemp(plane), time.monotonic()
        assert run("run", str(experiment(folder, plane)), "--out", str(folder / "results")).returncode == 0
        took[plane] = time.monotonic() - began
    return took


def test_a_strike_leaves_nothing_and_loses_nothing(
    strike: int, whole_s: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    luck = random.Random(strike)
    plane, number, part = luck.choice(PLANES), luck.choice(SIGNALS), luck.random()
    delay_s = part * whole_s[plane]
    path, out, temporary = experiment(tmp_path, plane), tmp_path / "results", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = machine()
    with started("run", str(path), "--out", str(out)) as process:
        time.sleep(delay_s)
        # The command itself as often as all that it started.
        victim = process.pid if luck.random() < 0.5 else luck.choice(sorted({process.pid, *descendants(process.pid)}))
        told = f"{plane}: {number.name} after {delay_s:.2f} s to {command_line(victim)[-90:]}"
        family, kept = {process.pid, *descendants(process.pid)}, finished(out)
        try:
            os.kill(victim, number)
        except ProcessLookupError:
            told += " (which had ended)"
        said, _ = process.communicate(timeout=END_S)
        told += f" -> status {process.returncode}\n{said}"
        assert wait_until(lambda: not alive(family), END_S), (told, alive(family))
    print(told)
    # (Python tells of a Ctrl-C while it still imports what the command consists of.)
    assert "Traceback" not in said or not out.exists(), told
    assert machine() == before, told
    if number != signal.SIGKILL or victim != process.pid:
        assert list(temporary.iterdir()) == [], told
    rows = finished(out)
    assert_begins_with(rows, kept)
    if not (out / "manifest.json").exists():  # it was struck before there was anything to go on with
        assert rows.empty, told
        out = Path(tempfile.mkdtemp(dir=tmp_path)) / "results"
        done = run("run", str(path), "--out", str(out))
    else:
        done = run("run", "--resume", str(out))
    assert done.returncode == 0, (told, done.stdout)
    after = finished(out)
    assert sorted(run_id[:3] for run_id in after.run_id) == [f"{each:03}" for each in range(1, RUNS + 1)], told
    assert not (out / "failed_runs.csv").exists(), told
    assert_begins_with(after, rows)
    assert machine() == before, told
