"""A results folder has all that its runs are made from: it goes on where it is moved to, and says what it lacks."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from experiments import cli
from experiments.commands import performing
from experiments.results import manifest as manifests
from experiments.results.folder import ResultsError, ResultsFolder
from experiments.results.inputs import begun, restored
from experiments.results.manifest import manifest as asked_of
from experiments.runs.loads.replays import Replays
from experiments.runs.loads.sweeps import replay_work
from experiments.spec.experiment import load_experiment

EXPERIMENT = """\
# what I wanted to know
name: tiny
fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2, host_rate: 10mbit}
traffic:
  - matrix: traffic/perm.cm
  - {collective: permutation, size: 1MB}
  - matrix: other/perm.cm
  - matrix: traffic/perm.cm
seeds: [1, 2]
"""
MATRIX = "Nodes 4\nConnections 1\n0->2 id 1 start 0 size 1000000\n"
OTHER = "Nodes 4\nConnections 1\n1->3 id 1 start 0 size 2000000\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """An experiment of several files."""
    folder = tmp_path / "mine"
    for name, content in (("traffic", MATRIX), ("other", OTHER)):
        (folder / name).mkdir(parents=True)
        (folder / name / "perm.cm").write_text(content)
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    return folder / "tiny.yaml"


@pytest.fixture
def moved(mine: Path, tmp_path: Path) -> ResultsFolder:
    """A folder begun with it and moved; of what it was begun with, nothing is left."""
    experiment = load_experiment(str(mine))
    begun(tmp_path / "results", asked_of(experiment), experiment, mine)
    shutil.move(tmp_path / "results", tmp_path / "elsewhere")
    shutil.rmtree(mine.parent)
    return ResultsFolder.open(tmp_path / "elsewhere")


def test_files_that_only_a_sweep_names_are_copied_and_keep_their_runs_names(mine: Path, tmp_path: Path) -> None:
    swept = "sweep: {traffic.0.matrix: [traffic/perm.cm, other/perm.cm], strain.jitter: [0, 5%]}\n"
    mine.write_text(EXPERIMENT.replace("seeds: [1, 2]\n", swept).replace("  - matrix: other/perm.cm\n", ""))
    experiment = load_experiment(str(mine))
    before = [(run.run_id, run.label) for run in replay_work(experiment).runs]
    assert len(set(before)) == len(before) == 4 * 3 * 3 * 3
    assert str(tmp_path) not in str(before)
    begun(tmp_path / "results", asked_of(experiment), experiment, mine)
    shutil.move(tmp_path / "results", tmp_path / "elsewhere")
    shutil.rmtree(mine.parent)
    folder = ResultsFolder.open(tmp_path / "elsewhere")
    again = restored(folder)
    assert [(run.run_id, run.label) for run in replay_work(again).runs] == before
    sent = {tuple(point.experiment.schedule(0, 1).flows) for point in again.points()}
    assert {flows[0].size_bytes for flows in sent} == {1_000_000, 2_000_000}
    [other] = (folder.path / "inputs").glob("*/perm.cm")
    other.write_text(MATRIX)
    with pytest.raises(ResultsError, match=r"inputs/.*perm\.cm is not as it was copied"):
        restored(folder)


def test_a_sweep_that_leads_out_of_its_folder_is_not_read(mine: Path, tmp_path: Path) -> None:
    mine.write_text(EXPERIMENT + "sweep: {traffic.0.matrix: [traffic/perm.cm, other/perm.cm]}\n")
    experiment = load_experiment(str(mine))
    folder = begun(tmp_path / "results", asked_of(experiment), experiment, mine)
    content = json.loads((folder.path / "manifest.json").read_text())
    content["experiment"]["sweep"]["traffic.0.matrix"][1] = "../mine/other/perm.cm"
    (folder.path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=r"sweep\.traffic\.0\.matrix is .*, none of its inputs"):
        restored(ResultsFolder.open(folder.path))


def resumed(path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr(performing, "become_root", lambda: None)
    monkeypatch.setattr(performing, "conduct", lambda *_, **__: [])
    return CliRunner().invoke(cli.main, ["run", "--resume", str(path)])


def test_what_an_experiment_is_made_of_is_copied(mine: Path, moved: ResultsFolder) -> None:
    manifest = moved.manifest()
    contents = {
        "inputs/experiment.yaml": (mine, EXPERIMENT),
        "inputs/perm.cm": (mine.parent / "traffic" / "perm.cm", MATRIX),
        "inputs/3/perm.cm": (mine.parent / "other" / "perm.cm", OTHER),
    }
    assert {str(path.relative_to(moved.path)) for path in moved.path.rglob("inputs/**/*.*")} == contents.keys()
    for place, (origin, content) in contents.items():
        assert (moved.path / place).read_text() == content
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        assert manifest["inputs"][place] == {"origin": str(origin), "sha256": sha256}
    matrices = [entry.get("matrix") for entry in manifest["experiment"]["traffic"]]
    assert matrices == ["inputs/perm.cm", None, "inputs/3/perm.cm", "inputs/perm.cm"]


def test_a_moved_folder_has_the_same_runs(mine: Path, tmp_path: Path) -> None:
    experiment = load_experiment(str(mine))
    begun(tmp_path / "results", asked_of(experiment), experiment, mine)
    before = Replays(experiment)
    flows = [before.ideal(run)[0].flows for run in before.runs]
    shutil.move(tmp_path / "results", tmp_path / "elsewhere")
    shutil.rmtree(mine.parent)
    after = Replays(restored(ResultsFolder.open(tmp_path / "elsewhere")))
    assert after.runs == before.runs
    assert [after.ideal(run)[0].flows for run in after.runs] == flows


def test_files_of_several_jobs_at_the_same_time_are_copied_too(mine: Path, tmp_path: Path) -> None:
    """And one of them that has changed is found out."""
    both = "together: [{matrix: traffic/perm.cm}, {matrix: other/perm.cm}]"
    mine.write_text(EXPERIMENT.replace("matrix: other/perm.cm", both, 1))
    experiment = load_experiment(str(mine), ["fabric.leaves=4"])
    folder = begun(tmp_path / "results", asked_of(experiment), experiment, mine)
    shutil.rmtree(mine.parent)
    [several] = [entry for entry in restored(folder).traffic if entry.key == "together"]
    assert [part.file for part in several.parts if part.file] == [
        folder.path / place for place in ("inputs/perm.cm", "inputs/3/perm.cm")
    ]
    (folder.path / "inputs/3/perm.cm").write_text(MATRIX)
    with pytest.raises(ResultsError, match="not as it was copied"):
        restored(folder)


def test_it_goes_on_from_another_working_directory(
    moved: ResultsFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(moved.path.parent)
    done = resumed(Path(moved.path.name), monkeypatch)
    assert done.exit_code == 0, done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("inputs/perm.cm", "inputs/perm.cm is missing: it is the copy of "),
        ("inputs", "inputs/perm.cm is missing: it is the copy of "),
        ("manifest.json", "is no results folder: it has no manifest.json"),
    ],
)
def test_a_partial_copy_says_what_is_missing_and_why(
    moved: ResultsFolder, place: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = moved.path / place
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = resumed(moved.path, monkeypatch)
    assert done.exit_code == 2
    [sentence] = done.output.splitlines()
    assert said in sentence and str(moved.path) in sentence


def test_the_copy_of_the_file_itself_is_for_people(moved: ResultsFolder) -> None:
    (moved.path / "inputs" / "experiment.yaml").unlink()
    assert restored(moved).name == "tiny"


def test_a_copy_that_was_changed_is_not_used(moved: ResultsFolder) -> None:
    (moved.path / "inputs" / "perm.cm").write_text(OTHER)
    with pytest.raises(ResultsError, match="is not as it was copied"):
        restored(moved)


def test_a_copy_that_leads_elsewhere_is_not_read(moved: ResultsFolder, tmp_path: Path) -> None:
    (tmp_path / "perm.cm").write_text(MATRIX)
    (moved.path / "inputs" / "perm.cm").unlink()
    (moved.path / "inputs" / "perm.cm").symlink_to(tmp_path / "perm.cm")
    with pytest.raises(ResultsError, match=r"perm.cm is a link, not a regular file"):
        restored(moved)


@pytest.mark.parametrize("place", ["../perm.cm", "inputs/none.cm", "perm.cm", "inputs/../perm.cm"])
def test_what_is_no_copy_is_not_read(moved: ResultsFolder, place: str) -> None:
    (moved.path.parent / "perm.cm").write_text(MATRIX)
    manifest = moved.manifest()
    manifest["experiment"]["traffic"][0]["matrix"] = place
    moved.write_manifest(manifest)
    with pytest.raises(ResultsError, match=re.escape(f"traffic.0.matrix is {place!r}, none of its inputs")):
        restored(moved)


@pytest.mark.parametrize("place", ["../perm.cm", "/etc/passwd", "inputs/../../perm.cm", "", "inputs//perm.cm"])
def test_nor_what_is_said_to_be_one_and_is_elsewhere(moved: ResultsFolder, place: str) -> None:
    (moved.path.parent / "perm.cm").write_text(MATRIX)
    sha256 = hashlib.sha256(MATRIX.encode()).hexdigest()
    manifest = moved.manifest()
    manifest["inputs"][place] = {"origin": "x", "sha256": sha256}
    if not place.startswith("/"):
        manifest["experiment"]["traffic"][0]["matrix"] = place
    moved.write_manifest(manifest)
    if place.startswith("/"):
        assert restored(moved), "nobody reads it"
    else:
        with pytest.raises(ResultsError):
            restored(moved)


def test_a_folder_of_before_goes_on_where_its_files_still_are(mine: Path, tmp_path: Path) -> None:
    experiment = load_experiment(str(mine))
    folder = ResultsFolder.create(tmp_path / "results", asked_of(experiment))
    assert restored(folder) == experiment


def test_a_name_that_is_no_text_does_not_spoil_the_manifest(mine: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd-\udcff"
    shutil.copytree(mine.parent, odd)
    experiment = load_experiment(str(odd / "tiny.yaml"))
    folder = begun(tmp_path / "results", asked_of(experiment), experiment, odd / "tiny.yaml")
    assert restored(folder).name == "tiny"


@pytest.mark.parametrize("command", ["run", "exec"])
def test_both_commands_copy(command: str, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performing, "become_root", lambda: None)
    monkeypatch.setattr(performing, "conduct", lambda *_, **__: [])
    words = [command, "--out", str(tmp_path / "out"), str(mine), *(["--", "true"] if command == "exec" else [])]
    done = CliRunner().invoke(cli.main, words)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "inputs" / "experiment.yaml").read_text() == EXPERIMENT
    assert (tmp_path / "out" / "inputs" / "perm.cm").read_text() == MATRIX
    shutil.rmtree(mine.parent)
    again = CliRunner().invoke(cli.main, [command, "--resume", str(tmp_path / "out")])
    assert again.exit_code == 0, again.output


# Of which spraylab


def revision(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> Any:
    monkeypatch.setattr(manifests, "_CHECKOUT", checkout)
    return manifests._revision.__wrapped__()


def test_the_revision_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def git(*words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True, text=True, timeout=20
        ).stdout.strip()

    assert revision(monkeypatch, tmp_path) is None, "an installed package"
    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-qm", "first")
    git("tag", "v1")
    head = git("rev-parse", "HEAD")
    assert revision(monkeypatch, tmp_path) == head and re.fullmatch("[0-9a-f]{40}", head)
    (tmp_path / "file").write_text("b")
    assert revision(monkeypatch, tmp_path) == f"{head}-dirty"
    monkeypatch.setattr("emulator.inherited.PATH", "/nowhere")
    assert revision(monkeypatch, tmp_path) is None, "a machine without git"


def test_the_manifest_has_version_and_revision(mine: Path) -> None:
    versions = asked_of(load_experiment(str(mine)))["versions"]
    assert versions["spraylab"] and "revision" in versions
    json.dumps(versions)
