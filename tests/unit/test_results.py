"""Results survive whatever ends a run: rows are complete or absent, and what had finished stays."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from emulator import caller
from experiments.judge.evidence import ReplayEvidence
from experiments.judge.rows import Judged, judge_replay
from experiments.results import folder as results
from experiments.results.folder import ResultsError, ResultsFolder, default_path
from experiments.results.reading import FORMAT_VERSION

MANIFEST = {"experiment": {"name": "unit"}, "command": "spraylab run unit"}
FRAMES = ("flows", "subflows", "links", "queues")
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder.create(tmp_path / "results" / "unit", MANIFEST)


@pytest.fixture(scope="module")
def one_run(healthy: ReplayEvidence) -> Judged:
    identity = {"run_id": "?", "experiment": "unit", "scheme": "ethereal", "traffic": "perm", "seed": 1}
    return judge_replay(healthy, identity)


def named(judged: Judged, run_id: str, **values: object) -> Judged:
    return replace(judged, row={**judged.row, "run_id": run_id, **values})


@contextmanager
def disk_that_takes(limit_bytes: int) -> Iterator[None]:
    """No file may grow beyond `limit_bytes`: writing more fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def one_sentence(error: pytest.ExceptionInfo[ResultsError]) -> str:
    message = str(error.value)
    assert "\n" not in message and "Traceback" not in message and "Errno" not in message
    return message


# Writing and reading


def test_what_is_appended_is_read_back(folder: ResultsFolder, one_run: Judged) -> None:
    reasons = 'work conservation: leaf1-eth3 stayed below its rate: 90.0% of it, so "no"; machine: 100% busy'
    folder.append(named(one_run, "a"))
    folder.append(named(one_run, "b", fidelity="fail", fidelity_reasons=reasons))
    runs = ResultsFolder.open(folder.path).runs()
    assert list(runs.run_id) == ["a", "b"]
    assert list(runs.columns) == list(one_run.row), "the header is written once"
    assert list(runs.fidelity_reasons) == ["", reasons]
    for column, value in one_run.row.items():
        if isinstance(value, float):
            assert runs[column][0] == value, "to the last bit"
    assert runs.cct_s.dtype == float and runs.seed.dtype == int


@pytest.mark.parametrize("name", ["1", "007", "null", "NA", "1e5", "a,b", "ü"])
def test_names_stay_text(folder: ResultsFolder, one_run: Judged, name: str) -> None:
    """Or a resumed experiment would not find the runs it has."""
    folder.append(named(one_run, name, experiment=name, algorithm=""))
    row = folder.runs().iloc[0]
    assert (row.run_id, row.experiment, row.algorithm) == (name, name, "")


def test_number_that_is_missing_stays_a_number(folder: ResultsFolder, one_run: Judged) -> None:
    folder.append(named(one_run, "a"))
    folder.append(named(one_run, "b", congestion_ratio=float("nan")))
    assert folder.runs().congestion_ratio.median() == 1.0


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_read_back_with_their_run(folder: ResultsFolder, one_run: Judged, name: str) -> None:
    folder.append(named(one_run, "a"))
    folder.append(named(one_run, "b"))
    frame = folder.frame(name)
    assert frame.columns[0] == "run_id" and list(frame.run_id.unique()) == ["a", "b"]
    for run_id in ("a", "b"):
        own = frame[frame.run_id == run_id].drop(columns="run_id").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, one_run.frames[name].reset_index(drop=True), check_dtype=False)
    whole = pd.read_parquet(folder.path / f"{name}.parquet")
    assert len(whole) == len(frame), "a folder of files is a data set to any reader of parquet"


def test_appending_leaves_the_frames_as_they_were(folder: ResultsFolder, one_run: Judged) -> None:
    before = {name: list(frame.columns) for name, frame in one_run.frames.items()}
    folder.append(named(one_run, "a"))
    assert {name: list(frame.columns) for name, frame in one_run.frames.items()} == before


def test_new_folder_is_empty(folder: ResultsFolder) -> None:
    assert len(folder.runs()) == 0 and set(folder.runs().get("run_id", [])) == set()
    assert len(folder.frame("flows")) == 0
    assert folder.manifest() == {"format": FORMAT_VERSION, **MANIFEST}
    assert (folder.path / results.LOG).exists()


def test_manifest_is_replaced_as_a_whole(folder: ResultsFolder) -> None:
    folder.write_manifest({**folder.manifest(), "fabric": {"dataplane": "ovs-user"}})
    assert folder.manifest() == {"format": FORMAT_VERSION, **MANIFEST, "fabric": {"dataplane": "ovs-user"}}
    with disk_that_takes(10), pytest.raises(ResultsError):
        folder.write_manifest({**folder.manifest(), "fabric": {"dataplane": "ovs-kernel"}})
    assert folder.manifest()["fabric"] == {"dataplane": "ovs-user"}


# Interruptions


def test_verdict_is_replaced_and_has_a_version(folder: ResultsFolder) -> None:
    for within in (0.05, 0.1):
        folder.write_verdict({"within": within})
        assert json.loads((folder.path / "verdict.json").read_text()) == {"format": FORMAT_VERSION, "within": within}


def test_resume_sees_the_finished_runs(folder: ResultsFolder, one_run: Judged) -> None:
    for run_id in ("a", "b"):
        folder.append(named(one_run, run_id))
    again = ResultsFolder.open(folder.path)
    assert set(again.runs().run_id) == {"a", "b"}
    again.append(named(one_run, "c"))
    assert list(again.runs().run_id) == ["a", "b", "c"]


def test_run_ended_between_its_frames_and_its_row_is_absent(folder: ResultsFolder, one_run: Judged) -> None:
    """The row would be longer than the disk has room for; the frames are not."""
    folder.append(named(one_run, "a"))
    frames = {name: len(folder.frame(name)) for name in FRAMES}
    largest = max(path.stat().st_size for path in folder.path.glob("*.parquet/*"))
    with disk_that_takes(2 * largest), pytest.raises(ResultsError) as error:
        folder.append(named(one_run, "b", fidelity_reasons="x" * 3 * largest))
    assert str(folder.path) in one_sentence(error)
    assert list(folder.runs().run_id) == ["a"]
    assert {name: len(folder.frame(name)) for name in FRAMES} == frames
    folder.append(named(one_run, "b"))  # there is room again
    assert list(folder.runs().run_id) == ["a", "b"]
    assert {name: len(folder.frame(name)) for name in FRAMES} == {name: 2 * count for name, count in frames.items()}


@pytest.mark.parametrize("room", [0, 0.3, 0.6, 0.9])
def test_full_disk_leaves_what_was_there(folder: ResultsFolder, one_run: Judged, room: float) -> None:
    """There is room for so much of the largest file."""
    folder.append(named(one_run, "a"))
    before = (folder.path / "runs.csv").read_bytes()
    largest = max(path.stat().st_size for path in folder.path.glob("*.parquet/*"))
    with disk_that_takes(int(room * largest)), pytest.raises(ResultsError) as error:
        folder.append(named(one_run, "b"))
    assert re.match(rf"cannot write results to {folder.path}: \w+", one_sentence(error))
    assert (folder.path / "runs.csv").read_bytes() == before
    for name in FRAMES:
        assert set(folder.frame(name).run_id) == {"a"}
        assert len(pd.read_parquet(folder.path / f"{name}.parquet")), "no half-written file spoils the others"
    assert not list(folder.path.rglob("*.part")), "nothing is left that nobody will read"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says of the disk reaches the user."""
    monkeypatch.setattr(os, "fsync", lambda _: Path("/dev/full").write_text("x"))
    with pytest.raises(ResultsError) as error:
        ResultsFolder.create(tmp_path / "full", MANIFEST)
    assert one_sentence(error) == f"cannot write results to {tmp_path / 'full'}: No space left on device"
    monkeypatch.undo()
    ResultsFolder.create(tmp_path / "full", MANIFEST)  # once there is room, the same command works


# Runs that did not finish


def test_run_that_did_not_finish_is_remembered(folder: ResultsFolder, one_run: Judged) -> None:
    assert folder.failed_runs().empty
    reason = 'h1: "connect": no answer,\nafter 10 s; [Errno 110]'
    folder.append(named(one_run, "a"))
    folder.record_failed(["007"], reason)
    folder.record_failed(["c", "d"], "the sandbox ended")
    failed = ResultsFolder.open(folder.path).failed_runs()
    assert list(zip(failed.run_id, failed.reason, strict=True)) == [
        ("007", reason), ("c", "the sandbox ended"), ("d", "the sandbox ended"),
    ]  # fmt: skip
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", time) for time in failed.time)
    assert list(folder.runs().run_id) == ["a"], "it has no numbers"


def test_it_is_forgotten_once_it_finishes(folder: ResultsFolder, one_run: Judged) -> None:
    folder.record_failed(["a", "b"], "first")
    folder.record_failed(["b"], "second")
    assert list(folder.failed_runs().reason) == ["first", "second"], "one line a run, its last reason"
    folder.append(named(one_run, "b"))
    assert list(folder.failed_runs().run_id) == ["a"]
    folder.append(named(one_run, "a"))
    assert folder.failed_runs().empty
    assert not (folder.path / "failed_runs.csv").exists(), "who looks into the folder sees that nothing is missing"


def test_run_that_finished_never_counts_as_failed(folder: ResultsFolder, one_run: Judged) -> None:
    """Not even if the power went between the one file and the other."""
    folder.append(named(one_run, "a"))
    (folder.path / "failed_runs.csv").write_text("run_id,reason,time\na,gone,now\nb,gone,now\n")
    assert list(folder.failed_runs().run_id) == ["b"]


def test_damaged_list_of_failures_is_reported(folder: ResultsFolder) -> None:
    (folder.path / "failed_runs.csv").write_text("run,why\na,b\n")
    with pytest.raises(ResultsError) as error:
        folder.failed_runs()
    assert "failed_runs.csv" in one_sentence(error)


# Folders that will not do


def test_folder_that_holds_results_is_refused(folder: ResultsFolder, one_run: Judged) -> None:
    folder.append(named(one_run, "a"))
    with pytest.raises(ResultsError) as error:
        ResultsFolder.create(folder.path, MANIFEST)
    message = one_sentence(error)
    assert str(folder.path) in message and "--out" in message and "--resume" in message
    assert list(folder.runs().run_id) == ["a"]


@pytest.mark.parametrize("name", ["runs.csv", "manifest.json", "run.log"])
def test_so_is_one_that_holds_a_part_of_some(folder: ResultsFolder, one_run: Judged, name: str, tmp_path: Path) -> None:
    folder.append(named(one_run, "a"))
    (tmp_path / "copy").mkdir()
    shutil.copy(folder.path / name, tmp_path / "copy")
    with pytest.raises(ResultsError, match="already holds results"):
        ResultsFolder.create(tmp_path / "copy", MANIFEST)
    assert [path.name for path in (tmp_path / "copy").iterdir()] == [name]


def test_empty_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert ResultsFolder.create(tmp_path / "mine", MANIFEST).manifest()["command"]


def test_two_that_start_together_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "20260101-120000")
    paths = [ResultsFolder.create(default_path("quick"), MANIFEST).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(path.name.startswith("quick-20260101-120000") for path in paths)


def test_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ResultsError) as error:
        ResultsFolder.create(tmp_path / "file", MANIFEST)
    assert str(tmp_path / "file") in one_sentence(error)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that any user can reach, as pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="spraylab-test-"))
    path.chmod(0o777)
    yield path
    path.chmod(0o777)
    shutil.rmtree(path)


def test_read_only_folder(shared: Path, one_run: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # nothing is read-only to root, but results are written as the user who called sudo
        monkeypatch.setenv("SUDO_UID", str(NOBODY))
        monkeypatch.setenv("SUDO_GID", str(NOBODY))
    folder = ResultsFolder.create(shared / "unit", MANIFEST)
    folder.append(named(one_run, "a"))
    folder.path.chmod(0o555)
    try:
        with pytest.raises(ResultsError) as error:
            folder.append(named(one_run, "b"))
        assert one_sentence(error) == f"cannot write results to {folder.path}: Permission denied"
        with pytest.raises(ResultsError, match="Permission denied"):
            ResultsFolder.create(folder.path / "below", MANIFEST)
        assert list(folder.runs().run_id) == ["a"]
    finally:
        folder.path.chmod(0o777)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_files_belong_to_the_user_who_called_sudo(
    shared: Path, one_run: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    groups = os.getgroups()
    folder = ResultsFolder.create(shared / "deep" / "unit", MANIFEST)
    folder.append(named(one_run, "a"))
    written = [shared / "deep", *(shared / "deep").rglob("*")]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in written} == {(NOBODY, NOBODY)}
    assert len(written) > 8
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 0, groups), "and we are who we were"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_folder_of_a_group_that_the_user_is_in_will_do(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = 54_321
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    os.chown(shared, 0, group)
    shared.chmod(0o770)
    with pytest.raises(ResultsError, match="Permission denied"):
        ResultsFolder.create(shared / "no member", MANIFEST)
    caller._groups_of.cache_clear()
    with monkeypatch.context() as member:
        member.setattr(os, "getgrouplist", lambda _, own: [own, group])
        ResultsFolder.create(shared / "member", MANIFEST)
    caller._groups_of.cache_clear()
    assert (shared / "member").stat().st_uid == NOBODY


def test_what_is_no_results_folder_is_not_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ResultsError) as error:
            ResultsFolder.open(path)
        assert str(path) in one_sentence(error) and "manifest.json" in one_sentence(error)


@pytest.mark.parametrize("content", ['{"format": 99}', "{}", "[]", "{", ""])
def test_manifest_of_another_version_or_none_is_refused(folder: ResultsFolder, content: str) -> None:
    (folder.path / "manifest.json").write_text(content)
    for read in (folder.manifest, lambda: ResultsFolder.open(folder.path)):
        with pytest.raises(ResultsError) as error:
            read()
        assert "manifest.json" in one_sentence(error)
    if "99" in content:
        assert "99" in one_sentence(error) and str(FORMAT_VERSION) in one_sentence(error)


def test_columns_of_another_version_are_not_mixed(folder: ResultsFolder, one_run: Judged) -> None:
    """A row under another row's headings would be wrong without a word."""
    folder.append(named(one_run, "a"))
    with pytest.raises(ResultsError) as error:
        folder.append(named(one_run, "b", brand_new=1))
    assert "runs.csv" in one_sentence(error)
    assert list(folder.runs().run_id) == ["a"]


@pytest.mark.parametrize("content", ["run_id,cct_s\na,1\nb,2,3\n", "", "\0\0\xff"])
def test_damaged_rows_are_reported(folder: ResultsFolder, content: str) -> None:
    (folder.path / "runs.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(ResultsError) as error:
        folder.runs()
    assert "runs.csv" in str(error.value)


def test_manifest_is_json_that_people_can_read(folder: ResultsFolder) -> None:
    text = (folder.path / "manifest.json").read_text()
    assert json.loads(text)["format"] == FORMAT_VERSION and len(text.splitlines()) > 4
