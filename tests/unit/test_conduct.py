"""What a results folder, and the answer, say of runs that did not finish and of machines that changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from results_example import manifest_of, results_folder
from synthetic import ports_of

from emulator.errors import EmulatorError
from emulator.meters.capture import capture_points
from emulator.order import FabricOrder
from emulator.scripted import Scripted
from experiments import cli
from experiments.commands import performing
from experiments.commands.output import Console
from experiments.judge.evidence import Built, ReplayEvidence
from experiments.judge.network import captures_are_complete
from experiments.results.folder import ResultsFolder
from experiments.results.manifest import manifest as asked_of
from experiments.results.manifest import note_machine
from experiments.results.sentences import as_json, lines, sentence
from experiments.runs.loads import replays
from experiments.runs.loads.replays import Replays
from experiments.runs.messages import Event, Failed, Job, Lost
from experiments.spec.experiment import load_experiment

EXPERIMENT = """\
name: tiny
fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2, host_rate: 10mbit}
traffic: [{collective: permutation, size: 1MB}]
schemes: [ecmp, spray, ethereal]
seeds: [1]
"""
REASON = "h1: no answer [errno 110] from h3"


@pytest.fixture
def work(tmp_path: Path) -> Replays:
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    return Replays(load_experiment(str(tmp_path / "tiny.yaml")))


@pytest.fixture
def folder(tmp_path: Path, work: Replays) -> ResultsFolder:
    return ResultsFolder.create(tmp_path / "results", asked_of(work.experiment))


def built(work: Replays, dataplane: str = "ovs-user") -> Built:
    return Built(dataplane, "a test", None, {"ready": 0.1}, None, ports_of(work.topology), {})


def console() -> Console:
    return Console(StringIO(), width=300)


def said(console: Console) -> str:
    return str(console.stream.getvalue())


def test_runs_that_did_not_finish_are_in_the_folder_and_in_the_answer(work: Replays, folder: ResultsFolder) -> None:
    def all_fail(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        yield built(work)
        yield from (Failed(job.run_id, REASON) for job in jobs)

    ids = [run.run_id for run in work.runs]
    assert [run.run_id for run in performing.conduct(work, folder, console(), Scripted(all_fail))] == ids
    assert list(folder.failed_runs().run_id) == ids
    assert set(folder.failed_runs().reason) == {REASON}
    last = console()
    performing.answer(folder, work, last)
    assert f"{', '.join(ids)} did not finish: {REASON}" in said(last), "one reason is said once"
    assert f"--resume {folder.path}" in said(last)


def test_what_ends_the_sandbox_is_why_the_rest_did_not_finish(work: Replays, folder: ResultsFolder) -> None:
    def breaks(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        yield built(work)
        yield Failed(jobs[0].run_id, REASON)
        raise EmulatorError("the sandbox ended")

    with pytest.raises(EmulatorError):
        performing.conduct(work, folder, console(), Scripted(breaks))
    assert list(folder.failed_runs().reason) == [REASON, "the sandbox ended", "the sandbox ended"]


def test_an_interruption_is_no_failure(work: Replays, folder: ResultsFolder) -> None:
    def interrupted(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        yield built(work)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        performing.conduct(work, folder, console(), Scripted(interrupted))
    assert folder.failed_runs().empty


def test_resume_tries_them_again(work: Replays, folder: ResultsFolder) -> None:
    tried: list[str] = []

    def try_all(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        tried.extend(job.run_id for job in jobs)
        yield built(work)

    folder.record_failed([work.runs[0].run_id], REASON)
    performing.conduct(work, folder, console(), Scripted(try_all))
    assert tried == [run.run_id for run in work.runs]


@pytest.mark.parametrize("taken", [None, pd.DataFrame(columns=["port", "packets", "drops_packets"])])
def test_captures_that_are_not_there_are_missed(
    tmp_path: Path, healthy: ReplayEvidence, monkeypatch: pytest.MonkeyPatch,
    taken: pd.DataFrame | None,
) -> None:  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT + "captures: all\n")
    work = Replays(load_experiment(str(tmp_path / "tiny.yaml")))
    judged: list[list[str]] = []

    def all_finish(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        yield built(work)
        yield from (replace(healthy.measured, run_id=job.run_id, captures=taken) for job in jobs)

    def judge(evidence: ReplayEvidence, *_: object) -> None:
        judged.append(captures_are_complete(evidence))
        raise EmulatorError("enough")

    monkeypatch.setattr(replays, "judge_replay", judge)
    folder = ResultsFolder.create(tmp_path / "out", asked_of(work.experiment))
    with pytest.raises(EmulatorError, match="enough"):
        performing.conduct(work, folder, console(), Scripted(all_finish))
    [reasons] = judged
    points = capture_points(ports_of(work.topology), "all")
    if taken is None:
        assert reasons == [f"h1-eth0 and {len(points) - 1} other ports were to be captured, and no capture was taken"]
    else:
        assert reasons == [f"{port.name}: was to be captured, and its file is missing" for port in points]


def test_an_answer_with_numbers_names_them_too(tmp_path: Path, work: Replays) -> None:
    folder = results_folder(tmp_path / "some", traffics=["permutation"], schemes=["ecmp"], seeds=[1])
    folder.record_failed([f"{number:03d}-late" for number in range(2, 14)], REASON)
    last = console()
    performing.answer(folder, work, last)
    assert f"002-late, 003-late, 004-late and 9 more did not finish: {REASON}" in said(last)
    assert (folder.path / "report.html").exists()


def test_an_answer_is_table_lines_and_sentence(tmp_path: Path, work: Replays) -> None:
    folder = results_folder(tmp_path / "some")
    last = console()
    verdict = performing.answer(folder, work, last)
    words = said(last)
    places = [words.index(each) for each in ("CCT / bound", *lines(verdict), sentence(verdict), "report:")]
    assert places == sorted(places) and len(lines(verdict)) == 2
    content = json.loads((folder.path / "verdict.json").read_text())
    assert content == {"format": 1, **json.loads(json.dumps(as_json(verdict)))}


def test_no_run_at_all_is_no_verdict_in_the_file_as_well(work: Replays, folder: ResultsFolder) -> None:
    assert performing.answer(folder, work, console()).outcome is None
    overall = json.loads((folder.path / "verdict.json").read_text())["overall"]
    assert (overall["outcome"], overall["runs"], overall["finished"]) == (None, 3, 0)


# Exit statuses


def resumed(folder: ResultsFolder, *options: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    """What `run --resume` says of a folder to which nothing is added."""
    monkeypatch.setattr(performing, "become_root", lambda: None)
    monkeypatch.setattr(performing, "conduct", lambda *_, **__: [])
    return CliRunner().invoke(cli.main, ["run", "--resume", str(folder.path), *options])


@pytest.mark.parametrize(
    ("failed", "options", "status"),
    [
        ((), (), 0),
        ((), ("--fail-on", "fidelity", "--fail-on", "spraying-pays"), 0),
        ((), ("--within", "1%", "--fail-on", "spraying-pays"), 3),
        ((), ("--within", "1%", "--fail-on", "fidelity"), 0),
        (("001-ecmp-s1",), ("--fail-on", "spraying-pays"), 3),
        (("001-ecmp-s1",), ("--fail-on", "fidelity"), 3),
        (("001-ecmp-s1",), (), 0),
    ],
)
def test_fail_on_has_an_exit_status_of_its_own(
    tmp_path: Path, failed: Sequence[str], options: Sequence[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collective has two seeds: where one of ECMP's cannot be trusted, there is no verdict on it."""
    experiment = {**manifest_of()["experiment"], "traffic": [{"collective": "permutation", "size": "5MB"}]}
    folder = results_folder(tmp_path / "r", ["permutation"], failed=failed, manifest=manifest_of(experiment=experiment))
    done = resumed(folder, *options, monkeypatch=monkeypatch)
    assert done.exit_code == status, done.output
    assert ("spraylab: --fail-on " in done.output) == (status == 3)
    assert "Traceback" not in done.output


def test_threshold_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = results_folder(tmp_path / "r")
    assert resumed(folder, "--within", "7.5%", monkeypatch=monkeypatch).exit_code == 0
    assert folder.manifest()["within"] == 0.075
    resumed(folder, monkeypatch=monkeypatch)
    assert json.loads((folder.path / "verdict.json").read_text())["within"] == 0.075


@pytest.mark.parametrize("command", ["run quick", "report nowhere"])
@pytest.mark.parametrize("wrong", ["five", "100%", "-1%", ""])
def test_wrong_threshold_is_one_sentence(command: str, wrong: str) -> None:
    done = CliRunner().invoke(cli.main, [*command.split(), "--within", wrong])
    assert done.exit_code == 2
    [sentence] = done.output.splitlines()
    assert sentence.startswith("spraylab: --within: ") and sentence.endswith("write 5% or 0.05")


# Machines


def elsewhere(folder: ResultsFolder, **machine: object) -> None:
    """As if the folder's runs came from a machine of another kind."""
    manifest = folder.manifest()
    folder.write_manifest({**manifest, "machine": {**manifest["machine"], **machine}})


def test_the_same_machine_goes_on_without_a_word(folder: ResultsFolder) -> None:
    elsewhere(folder, memory_bytes=1)
    before = folder.manifest()
    assert not note_machine(folder)
    assert folder.manifest() == before


def test_another_machine_is_said_and_both_are_kept(tmp_path: Path, work: Replays) -> None:
    folder = results_folder(
        tmp_path / "some",
        traffics=["permutation"],
        schemes=["ecmp"],
        seeds=[1],
        manifest=asked_of(work.experiment) | {"fabric": {"dataplane": "ovs-kernel"}},
    )
    elsewhere(folder, kernel="2.6.32", cores=640)
    first = folder.manifest()

    def one_fabric(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        yield built(work, "linux")

    warned = console()
    performing.conduct(work, folder, warned, Scripted(one_fabric))
    for words in ("warning", str(folder.path), "kernel was 2.6.32, is ", "cores was 640, is "):
        assert words in said(warned)
    manifest = folder.manifest()
    [part] = manifest.pop("resumed").values()
    assert manifest == first, "what was known of the first machine stays as it was"
    here = asked_of(work.experiment)
    assert (part["machine"], part["versions"]) == (here["machine"], here["versions"])
    assert part["runs_before"] == 1
    assert part["fabric"]["dataplane"] == "linux"

    assert not note_machine(folder), "this machine is known by now"


def test_another_version_is_another_machine(folder: ResultsFolder) -> None:
    manifest = folder.manifest()
    folder.write_manifest({**manifest, "versions": {**manifest["versions"], "spraylab": "0.0.1"}})
    [changed] = note_machine(folder)
    assert changed.startswith("spraylab was 0.0.1, is ")


def test_rows_are_told_apart_by_their_number(folder: ResultsFolder) -> None:
    """There and back again: three times, of which the last is on the first's machine."""
    here = folder.manifest()
    other: dict[str, Any] = {"machine": {**here["machine"], "kernel": "2.6.32"}, "versions": here["versions"]}
    folder.write_manifest({**here, "resumed": {"2000-01-01T00:00:00+0000": {**other, "runs_before": 0}}})
    note_machine(folder)
    kernels = [part["machine"]["kernel"] for part in folder.manifest()["resumed"].values()]
    assert kernels == ["2.6.32", here["machine"]["kernel"]]


def test_report_of_two_machines_shows_both(tmp_path: Path, work: Replays) -> None:
    from experiments.results.report import write_report

    folder = results_folder(tmp_path / "some", traffics=["permutation"], schemes=["ecmp"], seeds=[1])
    note_machine(folder)
    write_report([folder], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "6.1.0-example" in page and asked_of(work.experiment)["machine"]["kernel"] in page


def test_a_fabric_that_is_lost_is_built_anew_for_the_runs_that_are_left(work: Replays, folder: ResultsFolder) -> None:
    asked: list[list[str]] = []

    def loses_two(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        asked.append([job.run_id for job in jobs])
        yield built(work)
        if len(asked) == 1:
            yield Failed(jobs[0].run_id, "ovs-vswitchd was ended by SIGKILL")
            yield Lost("ovs-vswitchd was ended by SIGKILL")
        elif len(asked) == 2:
            yield Lost("the sampler was ended by SIGKILL")  # between two runs: none has failed for it
        else:
            yield from (Failed(job.run_id, REASON) for job in jobs)

    ids, shown = [run.run_id for run in work.runs], console()
    performing.conduct(work, folder, shown, Scripted(loses_two))
    assert asked == [ids, ids[1:], ids[1:]]
    assert list(folder.failed_runs().reason) == ["ovs-vswitchd was ended by SIGKILL", *[REASON] * (len(ids) - 1)]
    assert said(shown).count("the fabric is built anew") == 2
