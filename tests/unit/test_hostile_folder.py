"""What somebody puts into a results folder is not followed out of it, by whoever the command runs for."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from results_example import results_folder
from synthetic import FABRIC
from watched import untouched

from emulator.caller import as_caller, home
from experiments import cli
from experiments.judge.rows import Judged
from experiments.machine.calibration import calibration_file, load, save
from experiments.results.folder import ResultsError, ResultsFolder, new_file, write_in
from experiments.results.inputs import restored
from experiments.results.output import OutputLogs
from experiments.results.report import report_path, write_report
from experiments.spec.experiment import load_experiment
from experiments.spec.messages import SpecError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")

NOBODY = 65534
RUN = "001-ecmp-s1"
SECRET = "the secret of somebody else"


def append(folder: ResultsFolder) -> None:
    import pandas as pd

    row = dict(folder.runs().iloc[0]) | {"run_id": RUN}
    folder.append(Judged(row, {"flows": pd.DataFrame({"flow": [1]})}))


def log_output(folder: ResultsFolder) -> None:
    with OutputLogs(folder.files / "output", FABRIC, lambda *_, **__: None) as logs:
        logs.begin(RUN, [0])
        logs.write([(0, b"hello\n")])


def capture(folder: ResultsFolder) -> None:
    directory = folder.files / "captures" / RUN
    directory.make()
    directory.empty("h1-eth0.pcap").close()


def read_captures(folder: ResultsFolder) -> None:
    with (folder.files / "captures" / RUN).open("h1-eth0.pcap"):
        pass


def use(folder: ResultsFolder) -> None:
    with folder.in_use() as log:
        log.write(b"the log\n")


def report(folder: ResultsFolder) -> None:
    write_report([folder], report_path([folder]))


def copy_in(folder: ResultsFolder) -> None:
    folder._copy_in({"inputs/perm.cm": b"Nodes 2\n"})


def create(folder: ResultsFolder) -> None:
    for name in ("runs.csv", "manifest.json"):
        (folder.path / name).unlink()
    ResultsFolder.create(folder.path, {"experiment": {}})


def frontier_figure(folder: ResultsFolder) -> None:
    write_in(folder.inner("figures"), "frontier-1.svg", "<svg/>")


def swept_input(folder: ResultsFolder) -> None:
    content = json.loads((folder.path / "manifest.json").read_text())
    content["experiment"]["sweep"] = {"traffic.0": [{"matrix": "inputs/perm.cm"}]}
    content["inputs"] = {"inputs/perm.cm": {"origin": "/perm.cm", "sha256": "0" * 64}}
    with as_caller():
        (folder.path / "manifest.json").write_text(json.dumps(content))
    restored(folder)


PROBES: dict[str, tuple[str, Callable[[ResultsFolder], object]]] = {
    "manifest read": ("manifest.json", lambda folder: folder.manifest()),
    "manifest written": ("manifest.json", lambda folder: folder.write_manifest({"experiment": {}})),
    "runs read": ("runs.csv", lambda folder: folder.runs()),
    "runs written": ("runs.csv", append),
    "failures read": ("failed_runs.csv", lambda folder: folder.failed_runs()),
    "failures written": ("failed_runs.csv", lambda folder: folder.record_failed(["x"], "why")),
    "verdict": ("verdict.json", lambda folder: folder.write_verdict({})),
    "log of one who resumes": ("run.log", use),
    "log of one who begins": ("run.log", create),
    "frame read": (f"flows.parquet/{RUN}.parquet", lambda folder: folder.frame("flows")),
    "frame written": (f"flows.parquet/{RUN}.parquet", append),
    "frames' folder read": ("flows.parquet", lambda folder: folder.frame("flows")),
    "frames' folder written": ("flows.parquet", append),
    "output": (f"output/{RUN}/h1.log", log_output),
    "output's folder": ("output", log_output),
    "a run's output's folder": (f"output/{RUN}", log_output),
    "capture written": (f"captures/{RUN}/h1-eth0.pcap", capture),
    "captures' folder": ("captures", capture),
    "a run's captures' folder": (f"captures/{RUN}", capture),
    "capture read": (f"captures/{RUN}/h1-eth0.pcap", read_captures),
    "page": ("report.html", report),
    "figures' folder": ("figures", report),
    "a figure": ("figures/cct-01-permutation.svg", report),
    "a frontier's figure": ("figures/frontier-1.svg", frontier_figure),
    "a frontier's figures' folder": ("figures", frontier_figure),
    "input that a sweep reads": ("inputs/perm.cm", swept_input),
    "input": ("inputs/perm.cm", copy_in),
    "inputs' folder": ("inputs", copy_in),
}
TRAPS = ("link", "link to a folder", "dangling link", "pipe", "device")
WHO = ("root", "sudo", "a user")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return results_folder(tmp_path_factory.mktemp("hostile") / "r", ["permutation"], ["ecmp"], [1]).path


@pytest.fixture
def place(example: Path) -> Iterator[Path]:
    """A results folder that is the user's, and beside it what is not to be touched: the user's as well."""
    path = Path(tempfile.mkdtemp(prefix="spraylab-test-"))
    shutil.copytree(example, path / "r")
    (path / "outside").mkdir()
    (path / "outside" / "secret").write_text(SECRET)
    for each in (path, *path.rglob("*")):
        os.chown(each, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def lay(trap: str, path: Path, outside: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    match trap:
        case "link":
            path.symlink_to(outside / "secret")
        case "link to a folder":
            path.symlink_to(outside)
        case "dangling link":
            path.symlink_to(outside / "made by root")
        case "pipe":
            os.mkfifo(path)
        case "device":
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))  # /dev/full
    for each in (path, *path.parents):
        if each.is_relative_to(outside.parent):
            os.chown(each, NOBODY, NOBODY, follow_symlinks=False)


@contextlib.contextmanager
def acting_as(who: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As root, as root for a user who called sudo, or as that user alone."""
    if who == "sudo":
        monkeypatch.setenv("SUDO_UID", str(NOBODY))
        monkeypatch.setenv("SUDO_GID", str(NOBODY))
    if who == "a user":
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("probe", PROBES)
def test_nothing_outside_is_opened(
    probe: str, trap: str, who: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, act = PROBES[probe]
    outside, path = place / "outside", place / "r" / name
    lay(trap, path, outside)
    before = os.lstat(path)
    folder = ResultsFolder(place / "r")
    began = time.monotonic()
    watched = [outside, outside / "secret"] + ([path] if trap in ("pipe", "device") else [])
    with untouched(*watched), acting_as(who, monkeypatch), pytest.raises((ResultsError, OSError)) as refused:
        act(folder)
    assert time.monotonic() - began < 10, "nobody waits for the other end of a pipe"
    assert SECRET not in str(refused.value) and "\n" not in str(refused.value)
    assert [each.name for each in outside.iterdir()] == ["secret"]
    now = os.lstat(path)
    assert (now.st_ino, now.st_mode) == (before.st_ino, before.st_mode), "it is left as it is"
    assert not list((place / "r").rglob("*.part"))


class Witness:
    """Notes under whose rights files are opened, made, renamed and removed while `on`."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[tuple[str, str, int]] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, about: tuple[object, ...]) -> None:
        if self.on and event in ("open", "os.mkdir", "os.rename", "os.remove", "os.listdir", "os.scandir"):
            path = about[0]
            if isinstance(path, str | bytes | os.PathLike):
                self.seen.append((event, os.fsdecode(path), os.geteuid()))


@pytest.fixture(scope="session")
def witness() -> Witness:
    return Witness()


def test_all_of_the_folder_is_by_the_callers_rights(
    place: Path, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where root has none, as in a home that comes by NFS, it works all the same."""
    with acting_as("sudo", monkeypatch):
        witness.on = True
        try:
            folder = ResultsFolder.open(place / "r")
            for act in (use, log_output, capture, read_captures, report):
                act(folder)
            folder.frame("flows")
            with pytest.raises(SpecError):
                load_experiment(str(place / "outside" / "secret"))
            new = ResultsFolder.create(place / "new" / "r", folder.manifest(), {"inputs/a.cm": b"a"})
            new.write_manifest({**new.manifest(), "within": 0.1})
            new.record_failed(["late"], "why")
            new.failed_runs()
            with new_file(place / "page.html") as file:
                file.write(b"page")
            append(folder)
        finally:
            witness.on = False
    inside = [each for each in witness.seen if each[1].startswith(str(place)) or not each[1].startswith("/")]
    assert len(inside) > 20
    assert not [each for each in inside if each[2] != NOBODY]
    assert all(path.stat().st_uid == NOBODY for path in place.rglob("*"))


# Whose rights these are


@pytest.mark.parametrize("junk", ["x", "-1", "1.5", "9" * 30, "4294967295", "0x10", "١"])
def test_a_caller_that_is_no_number_is_a_sentence(junk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not root, who may do more."""
    monkeypatch.setenv("SUDO_UID", junk)
    monkeypatch.setenv("SUDO_GID", "1000")
    done = CliRunner().invoke(cli.main, ["predict", "quick"])
    assert (done.exit_code, len(done.output.splitlines())) == (2, 1)
    assert "SUDO_UID" in done.output


def test_a_user_without_a_name_or_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `docker run --user 12345`."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUDO_UID", "54321")
    monkeypatch.setenv("SUDO_GID", "54321")
    assert home() is None and calibration_file() is None and load() is None
    with pytest.raises(ResultsError, match="XDG_STATE_HOME"):
        save([])
    monkeypatch.setenv("SUDO_UID", "0")
    assert home() == Path("/root")
