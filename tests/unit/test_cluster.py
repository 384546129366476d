"""Runs on the machines of a cluster, which is played here: no test needs Dask."""

from __future__ import annotations

import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path

import pandas as pd
import pytest
from played_cluster import FIRST, SECOND, Played, cluster
from results_example import results_folder
from synthetic import FABRIC, healthy_run
from test_program_runs import program_of, watched

from emulator.errors import EmulatorError
from emulator.files import Folder
from emulator.order import FabricOrder
from emulator.programs import Ended, Output
from emulator.scripted import Scripted
from experiments.commands import performing
from experiments.commands.common import How
from experiments.commands.output import Console
from experiments.judge.evidence import Built
from experiments.results.folder import ResultsFolder
from experiments.results.machines import effect
from experiments.results.manifest import here
from experiments.results.manifest import manifest as asked_of
from experiments.runs import cluster as clusters
from experiments.runs.cluster import Cluster, groups_of
from experiments.runs.loads.programs import Program, Programs
from experiments.runs.messages import Event, Failed, Gone, Job, Progress, Started
from experiments.runs.outside import Done, Outcome, Sandboxes
from experiments.runs.worker import CapturePiece
from experiments.spec.experiment import load_experiment
from experiments.spec.messages import SpecError
from traffic.watch import Far

SCHEMES = ("ecmp", "spray", "ethereal")


def unlimited(_hosts: int) -> None:
    """A machine that nobody calibrated."""


@pytest.fixture
def local() -> Played:
    return Played(FIRST, SECOND)


@pytest.fixture
def work(tmp_path: Path) -> Programs:
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nfabric: {leaves: 2, spines: 2, hosts_per_leaf: 2, "
        f"host_rate: {FABRIC.host_rate_bps}bit, fabric_rate: {FABRIC.fabric_rate_bps}bit}}\n"
        f"traffic: [{{collective: permutation, size: 1MB}}]\nschemes: [{', '.join(SCHEMES)}]\nseeds: [1, 2, 3, 4]\n"
    )
    return Programs(load_experiment(str(tmp_path / "tiny.yaml")), Program(("hostname",), (0,), 60.0))


@pytest.fixture
def folder(tmp_path: Path, work: Programs) -> ResultsFolder:
    return ResultsFolder.create(tmp_path / "results", {**asked_of(work.experiment), **program_of(work)})


def finishing(before: Callable[[Job], Iterator[Event] | None] = lambda job: None) -> Sandboxes:
    """Every run finishes as a healthy one does, after what `before` yields, if anything."""
    run = healthy_run()
    measured = watched(run).measured

    def script(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        yield Built("linux", "a test", None, {"ready": 0.1}, None, run.ports, {})
        for job in jobs:
            yield Started(job.run_id)
            yield Output({0: f"this is {job.run_id}\n".encode()})
            yield from before(job) or ()
            yield Ended(0.0, 1.0, 0, None, "", {0: 6})
            yield replace(measured, run_id=job.run_id)

    return Scripted(script)


def until(come: Callable[[], bool]) -> None:
    """Wait for it, but not forever."""
    end_s = time.monotonic() + 20
    while not come():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def conducted(met: Cluster, work: Programs, folder: ResultsFolder, sandbox: Sandboxes) -> Iterator[Outcome]:
    asked, captures = performing.asked_of(folder, work), Folder(folder.path / "captures")
    return met.conducted(asked, work, work.runs, BytesIO(), captures, unlimited, sandbox)


def ids(outcomes: Sequence[Outcome], kind: type[Done | Started | Failed]) -> list[str]:
    return [outcome.run_id for outcome in outcomes if isinstance(outcome, kind)]


def test_a_folder_is_as_from_one_machine_but_for_the_column_that_names_it(
    local: Played, work: Programs, folder: ResultsFolder, tmp_path: Path
) -> None:
    console = Console(StringIO(), width=300)
    with cluster(local) as met:
        assert performing.conduct(work, folder, console, finishing(), met) == []
    there = folder.runs()
    alone = ResultsFolder.create(tmp_path / "alone", folder.manifest())
    performing.conduct(work, alone, Console(StringIO()), finishing())
    pd.testing.assert_frame_equal(
        there.drop(columns="machine").sort_values("run_id", ignore_index=True), alone.runs(), check_like=True
    )
    assert there.groupby("seed").machine.nunique().max() == 1, "schemes are compared on one machine"
    names = set(there.machine)
    assert len(names) == 2, "both have something to do"
    assert names == folder.manifest()["machines"].keys()
    for about in folder.manifest()["machines"].values():
        assert about["fabric"]["dataplane"] == "linux" and about["versions"] == here()["versions"]
    assert "two workers are on" in console.stream.getvalue()
    for run in work.runs:
        assert (folder.path / "output" / run.run_id / "h1.log").read_text() == f"this is {run.run_id}\n"
    performing.answer(folder, work, Console(StringIO()))
    assert "Machines: " in (folder.path / "report.html").read_text()


def test_what_a_lost_worker_had_left_is_done_by_another_and_no_row_comes_twice(
    local: Played, work: Programs, folder: ResultsFolder
) -> None:
    tried = Counter[str]()

    def first_is_lost(job: Job) -> Iterator[Event] | None:
        tried[job.run_id] += 1
        if job.run_id == work.runs[1].run_id and tried[job.run_id] == 1:
            local.lose(local.mine.address)  # but it goes on, and finishes what nobody waits for any more
        return None

    with cluster(local) as met:
        outcomes = list(conducted(met, work, folder, finishing(first_is_lost)))
    assert sorted(ids(outcomes, Done)) == [run.run_id for run in work.runs]
    [gone] = [outcome for outcome in outcomes if isinstance(outcome, Gone)]
    assert "its worker has ended" in gone.reason
    assert sum(tried.values()) == len(work.runs) + 1, "only what was under way is done again"


def test_what_a_lost_worker_still_says_is_not_heard(local: Played, work: Programs, folder: ResultsFolder) -> None:
    heard = threading.Event()

    def holds(job: Job) -> Iterator[Event] | None:
        if local.mine.address == FIRST and FIRST in local.there:
            local.lose(FIRST)
            heard.wait(20)  # until another has done it
        return None

    rows, pieces = Counter[str](), CapturePiece("of-the-lost", work.runs[0].run_id, "leaf1.pcap", 0, b"half")
    with cluster(local) as met:
        for outcome in conducted(met, work, folder, finishing(holds)):
            if isinstance(outcome, Done):
                rows[outcome.run_id] += 1
                local.sent.append(pickle.dumps(pieces))
                heard.set()
    assert set(rows.values()) == {1} and len(rows) == len(work.runs)
    assert not (folder.path / "captures" / work.runs[0].run_id).exists()


@pytest.mark.parametrize(("run_s", "fabrics"), [(1.0, 2), (100.0, 4)])
def test_few_fabrics_are_built_for_what_is_short(
    local: Played, work: Programs, folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch, run_s: float, fabrics: int
) -> None:
    monkeypatch.setattr(Programs, "estimate_s", lambda self, run: run_s)
    with cluster(local) as met:
        outcomes = list(conducted(met, work, folder, finishing()))
    assert sum(isinstance(outcome, Built) for outcome in outcomes) == fabrics
    assert len(ids(outcomes, Done)) == len(work.runs)


def test_a_machine_that_comes_later_gets_its_share(work: Programs, folder: ResultsFolder) -> None:
    alone = Played(FIRST)

    def waits(job: Job) -> Iterator[Event] | None:
        if job.run_id != work.runs[0].run_id:
            until(lambda: alone.begun[SECOND] > 0)
        return None

    with cluster(alone) as met:
        for outcome in conducted(met, work, folder, finishing(waits)):
            if isinstance(outcome, Done) and SECOND not in alone.there:
                alone.there[SECOND] = ThreadPoolExecutor(1)
    assert alone.begun[SECOND] > 1, "a greeting, and runs"


def test_a_machine_that_cannot_build_a_fabric_gets_no_more_runs(
    local: Played, work: Programs, folder: ResultsFolder
) -> None:
    refused = threading.Event()

    def once(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        if not refused.is_set():
            refused.set()
            raise EmulatorError("no private namespaces could be made here")
        with finishing()(BytesIO()) as healthy:
            yield from healthy.stream(None, _order, jobs)

    with cluster(local) as met:
        outcomes = list(conducted(met, work, folder, Scripted(once)))
    assert sorted(ids(outcomes, Done)) == [run.run_id for run in work.runs]
    [gone] = [outcome for outcome in outcomes if isinstance(outcome, Gone)]
    assert gone.reason == "no private namespaces could be made here"
    assert len({done.judged.row["machine"] for done in outcomes if isinstance(done, Done)}) == 1


def test_without_a_machine_it_ends_and_says_why(
    local: Played, work: Programs, folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_ALONE_S", 0.1)

    def never(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        raise EmulatorError("tc is missing")
        yield

    with cluster(local) as met, pytest.raises(EmulatorError, match=r"no machine .* is left; .*: tc is missing"):
        list(conducted(met, work, folder, Scripted(never)))


def test_a_run_that_ends_every_machine_is_given_up(work: Programs, folder: ResultsFolder) -> None:
    many = Played(*(f"tls://192.0.2.{number}:9000" for number in range(1, 6)))

    def deadly(job: Job) -> Iterator[Event] | None:
        if job.run_id == work.runs[0].run_id:
            many.lose(many.mine.address)
        return None

    with cluster(many) as met:
        outcomes = list(conducted(met, work, folder, finishing(deadly)))
    assert ids(outcomes, Failed) == [work.runs[0].run_id]
    assert sorted(ids(outcomes, Done)) == [run.run_id for run in work.runs[1:]]
    assert len(many.there) == 2, "three were lost"


def test_a_program_that_fails_ends_all(local: Played, work: Programs, folder: ResultsFolder) -> None:
    run = healthy_run()

    def fails(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        yield Built("linux", "a test", None, {"ready": 0.1}, None, run.ports, {})
        yield Failed(jobs[0].run_id, "h2 ended with exit status 3", 3)

    with cluster(local) as met:
        outcomes = list(conducted(met, work, folder, Scripted(fails)))
    assert 1 <= len(ids(outcomes, Failed)) <= 2, "of those under way at the time, and of no other"


def test_an_interruption_ends_what_is_under_way(local: Played, work: Programs, folder: ResultsFolder) -> None:
    begun, ended = Counter[str](), Counter[str]()

    def endless(job: Job) -> Iterator[Event]:
        begun[job.run_id] += 1
        try:
            while True:
                time.sleep(0.01)
                yield Progress(job.run_id, Far(0.5, 1, 2))
        finally:
            ended[job.run_id] += 1

    with cluster(local) as met:
        outcomes = conducted(met, work, folder, finishing(endless))
        built = 0
        while built < 2:
            built += isinstance(next(outcomes), Built)
        until(lambda: len(begun) == 2)
        outcomes.close()  # type: ignore[attr-defined]  # as whatever is raised while it is followed
        assert len(begun) == 2 and ended == begun, "once it has returned, nothing is under way any more"


def test_groups_are_what_is_compared(work: Programs) -> None:
    groups = groups_of(work, work.runs)
    assert [[run.scheme for run in group] for group in groups] == [list(SCHEMES)] * 4
    assert all(len({run.seed for run in group}) == 1 for group in groups)


def test_the_machines_effect_is_one_sentence() -> None:
    cells = [("a", "ecmp", 1.0), ("a", "spray", 2.0), ("b", "ecmp", 1.1), ("b", "spray", 2.2)]
    runs = pd.DataFrame(cells, columns=["machine", "scheme", "cct_over_bound"]).assign(
        traffic="alltoall", fidelity="pass"
    )
    assert "machine" not in effect(runs.drop(columns="machine"))
    assert effect(runs) == "Machines: a 2 runs, 2 trusted, 0.95 x; b 2 runs, 2 trusted, 1.05 x the median of all."


def test_a_folder_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "some", traffics=["permutation"], schemes=["ecmp"], seeds=[1])
    how = How(out=None, resume=folder.path, within=None, fail_on=(), dry_run=False, on="tls://head:8786")
    with pytest.raises(SpecError, match="go on without --on"):
        performing.check_where(folder, how)
