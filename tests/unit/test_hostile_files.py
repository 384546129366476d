"""What somebody names in a file or an option, or leaves lying about, leads to nothing that they could not reach alone.

Beside tests/unit/test_hostile_folder.py, which is about results folders; docs/security.md says what is promised.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from results_example import results_folder
from test_hostile_folder import NOBODY, SECRET, TRAPS, acting_as, lay
from watched import untouched

from experiments import cli
from experiments.spec.experiment import load_experiment
from experiments.spec.messages import SpecError
from traffic.formats import FORMATS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")

ROOT = Path(__file__).parents[2]
FABRIC = "fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2}\nseeds: [1]\n"
TIMEOUT_S = 60.0
LONG = f"root:$6${'s' * 80}:19000:0:99999:7:::\n"  # a line as /etc/shadow has it
ENTRIES = {
    "an entry": "traffic: [{{{key}: {path}}}]\n",
    "one of several": "traffic: [{{together: [{{{key}: {path}}}]}}]\n",
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the user's, and in `outside` what is not to be touched."""
    path = Path(tempfile.mkdtemp(prefix="spraylab-test-"))
    (path / "outside").mkdir()
    (path / "outside" / "secret").write_text(SECRET)
    for each in (path, path / "outside", path / "outside" / "secret"):
        os.chown(each, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def experiment(folder: Path, traffic: str = "traffic: [{collective: alltoall}]\n") -> Path:
    path = folder / "mine.yaml"
    path.write_text(FABRIC + traffic)
    return path


def refused(path: Path) -> str:
    began = time.monotonic()
    with pytest.raises(SpecError) as error:
        load_experiment(str(path))
    assert time.monotonic() - began < 10, "nobody waits for the other end of a pipe"
    assert "\n" not in str(error.value)
    return str(error.value)


# What is read


@pytest.mark.parametrize("where", ENTRIES)
@pytest.mark.parametrize("key", FORMATS)
def test_a_file_that_an_experiment_names_is_opened_by_the_callers_rights(
    key: str, where: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's own is not, though root looks; nor by way of a link."""
    secret = place / "outside" / "secret"
    os.chown(secret, 0, 0)
    secret.chmod(0o600)
    (place / "link").symlink_to(secret)
    for named in (secret, place / "link"):
        path = experiment(place, ENTRIES[where].format(key=key, path=named))
        with untouched(secret), acting_as("sudo", monkeypatch):
            assert "Permission denied" in refused(path)


@pytest.mark.parametrize("key", FORMATS)
def test_a_file_of_another_kind_shows_little_of_itself(key: str, place: Path) -> None:
    (place / "shadow").write_text(LONG * 3)
    assert "s" * 30 not in refused(experiment(place, ENTRIES["an entry"].format(key=key, path="shadow")))


@pytest.mark.parametrize("where", ENTRIES)
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("key", FORMATS)
def test_what_is_no_file_is_not_read(key: str, kind: str, where: str, place: Path) -> None:
    lay(kind, place / "odd", place / "outside")
    said = refused(experiment(place, ENTRIES[where].format(key=key, path="odd")))
    assert f"is a {kind}" in said


# What is written

WRITERS = {
    "predict --csv": ["predict", "mine.yaml", "--csv", "PLACE"],
    "import --out": ["import", "two.csv", "--out", "PLACE"],
    "init": ["init", "PLACE"],
    "report --out": ["report", "r", "--out", "PLACE"],
    "captures --parquet": ["captures", "empty.pcap", "--parquet", "PLACE"],
}
PCAP = bytes.fromhex("d4c3b2a1 02000400 00000000 00000000 ffff0000 01000000")


@pytest.fixture
def at_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, with something for every writer, as the working directory."""
    experiment(place)
    (place / "two.csv").write_text("src,dst,bytes\n0,1,1000\n")
    (place / "empty.pcap").write_bytes(PCAP)
    results_folder(place / "r", ["permutation"], ["ecmp"], [1])
    for each in place.rglob("*"):
        os.chown(each, NOBODY, NOBODY)
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("who", ["root", "sudo"])
@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("writer", WRITERS)
def test_only_regular_files_are_written(
    writer: str, trap: str, who: str, at_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, outside = at_work / "target.yaml", at_work / "outside"
    lay(trap, path, outside)
    before = os.lstat(path)
    words = [str(path) if word == "PLACE" else word for word in WRITERS[writer]]
    with untouched(outside, outside / "secret"), acting_as(who, monkeypatch):
        done = CliRunner().invoke(cli.main, words)
    assert done.exit_code == 2, done.output
    assert str(path) in done.stderr.splitlines()[-1]
    now = os.lstat(path)
    assert (now.st_ino, now.st_mode, now.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)


@pytest.mark.parametrize("who", ["sudo", "a user"])
@pytest.mark.parametrize("writer", WRITERS)
def test_where_the_caller_may_not_write_nobody_does(
    writer: str, who: str, at_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = at_work / "root's"
    roots.mkdir(mode=0o700)
    words = [str(roots / "target.yaml") if word == "PLACE" else word for word in WRITERS[writer]]
    with acting_as(who, monkeypatch):
        done = CliRunner().invoke(cli.main, words)
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1 and "Permission denied" in done.stderr
    assert list(roots.iterdir()) == []


# What lies about

STEERED = ["MPLCONFIGDIR", "MATPLOTLIBRC", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HOME", "PYTHONPATH", "PYTHONHOME"]
PLANTED = ["matplotlibrc", "sitecustomize.py", "usercustomize.py", "pandas.py", "matplotlib.py", "evil.py"]
START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from experiments.cli import main; main()"


def as_root_for_somebody(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As the launcher starts it, under `sudo --preserve-env`."""
    surroundings = {name: str(folder / "planted") for name in STEERED} | {"MPLBACKEND": "module://evil"}
    return subprocess.run(
        [sys.executable, "-I", "-B", "-c", START, *words],
        cwd=folder / "planted", env={**os.environ, **surroundings, "SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY)},
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("laid", ["a program", "a link", "a pipe"])
def test_a_report_is_drawn_by_nobodys_settings(at_work: Path, laid: str) -> None:
    """A link there is neither followed nor its lines quoted, a pipe not waited for, and nothing is left."""
    planted, trace, secret = at_work / "planted", at_work / "ran", at_work / "outside" / "shadow"
    planted.mkdir()
    secret.write_text(LONG)
    for name in PLANTED:
        if laid == "a program":
            (planted / name).write_text(f"open({str(trace)!r}, 'a').write({name!r})\n")
        elif laid == "a link":
            (planted / name).symlink_to(secret)
        else:
            os.mkfifo(planted / name)
    for each in (planted, *planted.iterdir()):
        os.chown(each, NOBODY, NOBODY, follow_symlinks=False)
    with untouched(secret):
        done = as_root_for_somebody(at_work, "report", "../r")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in planted.iterdir()) == sorted(PLANTED)
    assert not trace.exists()
    assert stat.S_ISREG((at_work / "r" / "report.html").lstat().st_mode)


# What is said of it


def test_every_promise_names_tests_that_there_are() -> None:
    last, tests = "", 0
    for row in (ROOT / "docs" / "security.md").read_text().splitlines():
        *_, held_by = row.strip("|").split("|")
        named = re.findall(r"`([\w/]*\.py)?::(\w+)`", held_by) if row.startswith("| ") else []
        assert named or not row.startswith("| ") or row == "| promise | held by |", row
        for path, test in named:
            last = path or last
            assert f"def {test}(" in (ROOT / "tests" / last).read_text(), (last, test)
            tests += 1
    assert tests > 20
