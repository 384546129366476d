"""Any process of a run is struck by any signal at any moment: nothing is left behind, nothing finished is lost, and
`--resume` does the rest. Not part of the default run: `./spraylab test --storm`, `--storm --kills 100 --seed 7`.
"""

from __future__ import annotations

import os
import random
import re
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
captures: uplinks
"""
RUNS = 3
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL]
PLANES = ["linux", "ovs"]
KINDS = {
    "the command": "",
    "what makes namespaces": r"unshare --net",
    "the sandbox's first": r"^\S*python.* emulator\.sandbox ",
    "a host's holder": r"holder\.py",
    "the sampler": r"emulator\.meters\.sampler",
    "the capture": r"emulator\.meters\.capture",
    "the switch": "ovs-vswitchd unix:",
    "its database": "ovsdb-server --remote",
    "the controller": r"controllers\.ovs\.app",
    "anything": "",
}
"""The processes of a run by the form of their command lines; one of each kind is struck in turn."""
OF_OVS = ("the switch", "its database", "the controller")
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


def of_kind(kind: str, command: int) -> list[int]:
    """The processes of the run that `command` performs that are of a kind; whatever else it starts is anything."""
    if kind == "the command":
        return [command]
    return sorted(pid for pid in descendants(command) if re.search(KINDS[kind], command_line(pid)))


def strike_of(seed: int, number: int) -> tuple[str, signal.Signals, str, random.Random]:
    """What is struck by which signal on which data plane, and luck for the rest.

    Of as many strikes in a row as there are kinds, each is of another; in two rows, each kind meets SIGKILL.
    """
    luck, (row, place) = random.Random(f"{seed} {number}"), divmod(number, len(KINDS))
    kind = list(KINDS)[place]
    kills = (seed + row + place) % 2 == 0
    chosen = signal.SIGKILL if kills else luck.choice([each for each in SIGNALS if each != signal.SIGKILL])
    return kind, chosen, "ovs" if kind in OF_OVS else luck.choice(PLANES), luck


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
    strike: tuple[int, int], whole_s: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, number, plane, luck = strike_of(*strike)
    # Late enough, and most of what a run starts has ended.
    delay_s = luck.random() * whole_s[plane] * (1 if kind == "the command" else 0.7)
    path, out, temporary = experiment(tmp_path, plane), tmp_path / "results", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = machine()
    with started("run", str(path), "--out", str(out)) as process:
        time.sleep(delay_s)
        wait_until(lambda: process.poll() is not None or bool(of_kind(kind, process.pid)), END_S)
        victim = luck.choice(of_kind(kind, process.pid) or [process.pid])  # by now there may be none of it any more
        told = f"{plane}: {number.name} after {delay_s:.2f} s to {kind}: {command_line(victim)[-90:]}"
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
