"""The command as a user meets it: answers, interruptions, bad input; and nothing left behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import pytest

from emulator.doctor.diagnose import TOOLS

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-P", "-m", "experiments.cli"]
TIMEOUT_S = 300

TINY = """\
name: tiny
fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2, host_rate: 10mbit}
traffic:
  - {collective: permutation, channels: 2, size: SIZE}
schemes: [SCHEMES]
seeds: [1]
"""


def experiment(folder: Path, size: str = "500KB", schemes: str = "ecmp, spray, ethereal") -> Path:
    path = folder / "tiny.yaml"
    path.write_text(TINY.replace("SIZE", size).replace("SCHEMES", schemes))
    return path


def host_state() -> dict[str, object]:
    """What a run could leave on the host: links, named namespaces, sysctls, mounts."""
    sysctls = ("net/core/wmem_default", "net/core/rmem_default", "net/core/wmem_max", "net/ipv4/tcp_wmem")
    return {
        "links": sorted(os.listdir("/sys/class/net")),  # noqa: PTH208 - names are all that is wanted
        "namespaces": sorted(path.name for path in Path("/run/netns").glob("*")),
        "openvswitch": Path("/run/openvswitch").exists(),
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if line.startswith("spraylab ")],
        "sysctls": {name: (Path("/proc/sys") / name).read_text() for name in sysctls},
    }


def descendants(pid: int) -> set[int]:
    """Every process below `pid`, as the host sees them."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def lives_apart(pid: int) -> bool:
    """Whether a process has a network of its own: it is in a sandbox."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/ns/net").stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
    return False


@contextmanager
def started(*arguments: str, types: str = "") -> Iterator[subprocess.Popen[str]]:
    """The command, running, whose user has typed so much."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdin
        process.stdin.write(types)
        process.stdin.close()
        process.stdin = None
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


def wait_until(condition: object, seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def alive(pids: set[int]) -> set[int]:
    def running(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
        except OSError:
            return False

    return {pid for pid in pids if running(pid)}


@pytest.mark.smoke
def test_a_run_answers_and_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = host_state()
    out = tmp_path / "results"
    done = run("run", str(experiment(tmp_path)), "--out", str(out))
    assert done.returncode == 0, done.stdout
    assert str(out) in done.stdout.replace("\n", "")
    runs = pd.read_csv(out / "runs.csv")
    assert list(runs.scheme) == ["ecmp", "spray", "ethereal"]
    assert (runs.cct_s >= runs.bound_s * 0.97).all()
    ethereal = runs[runs.scheme == "ethereal"].iloc[0]
    assert ethereal.congestion_ratio <= 1.05
    for frame in ("flows", "subflows", "links", "queues"):
        assert set(pd.read_parquet(out / f"{frame}.parquet").run_id) == set(runs.run_id)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["fabric"]["dataplane"] in done.stdout
    with capsys.disabled():
        print(f"\ndata plane: {manifest['fabric']['dataplane']}")
    assert len(manifest["fabric"]["shaping"]) == 2 * (4 + 4)
    assert host_state() == before


def test_kill_9_in_the_middle_of_a_run_leaves_nothing(tmp_path: Path) -> None:
    before = host_state()
    out = tmp_path / "results"
    with started("run", str(experiment(tmp_path, size="20MB")), "--out", str(out)) as process:
        log = out / "run.log"
        assert wait_until(lambda: log.exists() and " run 001" in log.read_text())
        time.sleep(1)
        family = descendants(process.pid)
        assert len(family) > 5
        process.send_signal(signal.SIGKILL)
        assert wait_until(lambda: not alive(family)), alive(family)
    assert host_state() == before


def test_ctrl_c_keeps_what_had_finished_and_resume_does_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "results"
    with started("run", str(experiment(tmp_path, size="1500KB")), "--out", str(out)) as process:
        assert wait_until(lambda: (out / "runs.csv").exists())
        family = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 130
        assert wait_until(lambda: not alive(family)), alive(family)
    assert "Traceback" not in said
    assert f"--resume {out}" in said.replace("\n", " ")
    first = pd.read_csv(out / "runs.csv")
    assert 0 < len(first) < 3
    done = run("run", "--resume", str(out))
    assert done.returncode == 0, done.stdout
    after = pd.read_csv(out / "runs.csv")
    assert list(after.scheme) == ["ecmp", "spray", "ethereal"]
    pd.testing.assert_frame_equal(after.iloc[: len(first)], first)


@pytest.mark.parametrize("words", ["doctor", "shell EXPERIMENT", "calibrate", "bench setup", "run EXPERIMENT"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_command_as_ctrl_c_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, number: signal.Signals
) -> None:
    before, temporary = host_state(), tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.chdir(tmp_path)
    arguments = words.replace("EXPERIMENT", str(experiment(tmp_path, size="20MB"))).split()
    with started(*arguments, types="h1 sleep 60\n") as process:
        assert wait_until(lambda: any(map(lives_apart, descendants(process.pid))), seconds=20)
        family = descendants(process.pid)
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 128 + number, said
        assert wait_until(lambda: not alive(family)), alive(family)
    assert f"interrupted by {number.name}" in said and "Traceback" not in said
    assert list(temporary.iterdir()) == []
    assert host_state() == before


def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    path = str(experiment(tmp_path, schemes="ethereal, ecmp"))
    with started("run", path, "--out", str(outs[0])) as one, started("run", path, "--out", str(outs[1])) as two:
        for process in (one, two):
            said, _ = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, said
    for out in outs:
        runs = pd.read_csv(out / "runs.csv")
        assert len(runs) == 2
        assert runs[runs.scheme == "ethereal"].congestion_ratio.max() <= 1.05
        # All bytes of this fabric's schedule, and no other's, crossed its links.
        links = pd.read_parquet(out / "links.parquet")
        up = links[(links.direction == "up") & links.spine.notna()].groupby("run_id").tx_bytes.sum()
        assert ((up > 2_000_000) & (up < 2_200_000)).all(), up


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (["--set", "fabric.spines=0"], 2, ["fabric.spines", "at least 1"]),
        (["--set", "fabric.spines=64"], 2, ["fabric.spines", "at most 63"]),
        (["--set", "fabric.spin=4"], 2, ["spin", "spines"]),
        (["--set", "traffic.0.size=-4MB"], 2, ["size", "negative"]),
        (["--set", "schemes=[sprey]"], 2, ["sprey", "spray"]),
        (["--set", "fabric.host_rate=20mb"], 2, ["host_rate", "20mbit"]),
    ],
)
def test_bad_input_is_one_sentence_and_builds_nothing(
    tmp_path: Path, change: list[str], status: int, words: list[str]
) -> None:
    done = run("run", str(experiment(tmp_path)), *change, "--out", str(tmp_path / "results"))
    assert done.returncode == status
    assert "Traceback" not in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1, done.stdout
    for word in words:
        assert word in done.stdout
    assert not (tmp_path / "results").exists()


def test_no_space_for_results_is_said_before_anything_is_built(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "spraylab-test", str(full)], check=True, timeout=10)
    try:
        done = run("run", str(experiment(tmp_path)), "--out", str(full / "results"))
    finally:
        subprocess.run(["umount", "--lazy", str(full)], check=True, timeout=10)  # whoever looks in keeps it busy
    assert done.returncode == 2
    assert "No space left on device" in done.stdout
    assert "Traceback" not in done.stdout
    assert "fabric up" not in done.stdout


def test_a_dry_run_builds_nothing(tmp_path: Path) -> None:
    done = run("run", str(experiment(tmp_path)), "--dry-run", "--out", str(tmp_path / "results"))
    assert done.returncode == 0
    assert "001" in done.stdout
    assert not (tmp_path / "results").exists()


def test_nothing_that_the_environment_names_runs_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything it takes is first on the PATH, and a sitecustomize.py where Python is told to look."""
    path, trace, planted = str(experiment(tmp_path, schemes="spray")), tmp_path / "ran", tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(f"open({str(trace)!r}, 'a').write('sitecustomize.py')\n")
    for tool in (tool.name for tool in TOOLS):
        (planted / tool).write_text(f"#!/bin/sh\necho {tool} >>{trace}\nexit 1\n")
        (planted / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{planted}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{planted}:{os.environ['PYTHONPATH']}")
    monkeypatch.setenv("BASH_ENV", str(planted / "nft"))
    # The command is started as its launcher starts it; only that here it is this checkout's.
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from experiments.cli import main; main()"
    for words in (["doctor"], ["run", path, "--set", "fabric.dataplane=ovs", "--out", str(tmp_path / "results")]):
        done = subprocess.run(
            [sys.executable, "-I", "-c", start, *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert not trace.exists(), trace.read_text()
