"""Programs on the fabric: where they run, what they find, what is kept of what they say, how they are judged."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import FABRIC, healthy_run

from emulator.files import Folder
from emulator.order import FabricOrder
from emulator.programs import OUTPUT_LIMIT_BYTES, Ended, Launch, Output, environment
from emulator.scripted import Scripted
from emulator.topology import LeafSpine
from experiments.commands import performing
from experiments.commands.common import How
from experiments.commands.output import Console
from experiments.commands.performing import answer, conduct, perform
from experiments.commands.progress import in_short
from experiments.judge.evidence import Built, Measured, ProgramEvidence, ProgramResult, ReplayEvidence
from experiments.judge.invariants import failures
from experiments.judge.rows import judge_program
from experiments.results.folder import ResultsFolder
from experiments.results.manifest import manifest
from experiments.results.output import OutputLogs
from experiments.results.overview import render
from experiments.results.sentences import DEALT, sentence
from experiments.results.verdict import of_results
from experiments.runs.loads.programs import Program, ProgramLoad, Programs, parse_hosts
from experiments.runs.messages import Event, Failed, Job, Started
from experiments.spec.experiment import Experiment
from experiments.spec.messages import SpecError

SMALL = LeafSpine(2, 2, 4)
LAUNCH = Launch(("true",), (0, 1), 10.0, 29_500)


def experiment(fabric: LeafSpine = SMALL, **changes: Any) -> Experiment:
    counts = {name: getattr(fabric, name) for name in ("leaves", "spines", "hosts_per_leaf")}
    rates = {"host_rate": f"{fabric.host_rate_bps}bit", "fabric_rate": f"{fabric.fabric_rate_bps}bit"}
    traffic = [{"collective": "alltoall"}]
    return Experiment.model_validate({"name": "unit", "fabric": counts | rates, "traffic": traffic, **changes})


@pytest.mark.parametrize(
    ("text", "hosts"),
    [(None, tuple(range(8))), ("h1", (0,)), ("h1,h5-h8", (0, 4, 5, 6, 7)), ("h3, h1", (2, 0)), ("h2-h2", (1,))],
)
def test_hosts_in_order_of_rank(text: str | None, hosts: tuple[int, ...]) -> None:
    assert parse_hosts(text, SMALL) == hosts


@pytest.mark.parametrize(
    ("text", "said"),
    [("h9", "h1 to h8"), ("h0", "h1 to h8"), ("h3-h2", "h1 to h8"), ("", "no host"), ("x", "'x'"), ("h1,h1", "twice")],
)
def test_wrong_hosts_are_named(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_hosts(text, SMALL)


def programs(asked: Experiment, command: Sequence[str] = ("prog",), hosts: tuple[int, ...] = (0, 1)) -> Programs:
    return Programs(asked, Program(tuple(command), hosts, 5.0))


def test_a_run_for_every_scheme_and_seed_but_for_those_only_the_program_could_apply(tmp_path: Path) -> None:
    work = programs(experiment(schemes=["ecmp", "subflow-4", "ethereal"], seeds=[1, 2]))
    assert [(run.scheme, run.seed) for run in work.runs] == [("ecmp", 1), ("ethereal", 1), ("ecmp", 2), ("ethereal", 2)]
    assert work.left_out == ["subflow-4"]
    jobs = [work.job(run, Folder(tmp_path)) for run in work.runs]
    loads = [job.load for job in jobs if isinstance(job.load, ProgramLoad)]
    assert len({load.launch.master_port for load in loads}) == len({job.run_id for job in jobs}) == 4
    with pytest.raises(SpecError, match="subflow-4 cannot apply to an unmodified program"):
        programs(experiment(schemes=["subflow-4"]))


def test_a_program_is_restored_as_the_manifest_keeps_it() -> None:
    program = Program(("prog", "-x"), (3, 1), 2.5)
    assert Program.restored(json.loads(json.dumps(program.as_json())), "manifest.json") == program
    for broken in (None, {}, {"command": ["prog"]}, [1], {**program.as_json(), "timeout_s": "soon"}):
        with pytest.raises(SpecError, match=r"^manifest.json: holds no program"):
            Program.restored(broken, "manifest.json")


def test_ranks_find_each_other() -> None:
    launch = replace(LAUNCH, hosts=(5, 0, 3))
    found = [environment(SMALL, launch, rank) for rank in range(3)]
    assert [each["RANK"] for each in found] == ["0", "1", "2"]
    for each in found:
        assert each["WORLD_SIZE"] == "3"
        assert each["MASTER_ADDR"] == SMALL.host_ip(5)
        assert each["SPRAYLAB_HOSTS"].split(",") == [SMALL.host_ip(host) for host in (5, 0, 3)]


class Said(list[str]):
    def __call__(self, text: str, *_: object) -> None:
        self.append(text)


def ended(**totals: int) -> Ended:
    return Ended(0.0, 1.0, 0, None, "", {int(host.removeprefix("h")) - 1: total for host, total in totals.items()})


def logs(folder: Path) -> tuple[OutputLogs, Said]:
    said = Said()
    begun = OutputLogs(Folder(folder), SMALL, said)
    begun.begin("run", LAUNCH.hosts)
    said.clear()
    return begun, said


def test_output_is_kept_as_it_came_and_shown_by_line(tmp_path: Path) -> None:
    output, said = logs(tmp_path)
    output.write([(0, b"one\ntw"), (1, b"\x1b[31mred\x1b[0m\xff\n")])
    output.write([(0, b"o\nrest")])
    output.end(ended(h1=11, h2=14))
    assert (tmp_path / "run" / "h1.log").read_bytes() == b"one\ntwo\nrest"
    assert (tmp_path / "run" / "h2.log").read_bytes() == b"\x1b[31mred\x1b[0m\xff\n"
    assert said == ["h1: one", "h2: red\ufffd", "h1: two", "h1: rest"]


def test_a_flood_is_not_shown_but_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    output, said = logs(tmp_path)
    for _ in range(10):
        output.write([(0, b"line\n" * 1000)])
    output.write([(1, b"x" * 1_000_000)])
    output.end(ended(h1=50_000, h2=1_000_000))
    assert said.count("h1: line") == OutputLogs.LINES_PER_S
    assert max(map(len, said)) <= OutputLogs.LINE_CHARACTERS + 10
    assert any(f"{10_000 - OutputLogs.LINES_PER_S:,} more lines" in line for line in said)
    assert (tmp_path / "run" / "h1.log").stat().st_size == 50_000


def test_a_file_says_that_it_was_cut(tmp_path: Path) -> None:
    output, said = logs(tmp_path)
    output.end(ended(h1=2 * OUTPUT_LIMIT_BYTES, h2=OUTPUT_LIMIT_BYTES))
    assert "cut after 10 of 20.0 MB" in (tmp_path / "run" / "h1.log").read_text()
    assert (tmp_path / "run" / "h2.log").read_text() == ""
    assert said == ["h1.log is cut after 10 of 20.0 MB"]


def concluded(work: Programs, loaded_s: dict[str, float], runs: int | None = None, **changes: Any) -> str:
    """The sentence on the first `runs` of `work`, loaded for so long under each scheme."""
    rows = [
        {**work.named(run), "seed": run.seed, "loaded_s": loaded_s[run.scheme], "fidelity": "pass"} | changes
        for run in work.runs[:runs]
    ]
    program = {**work.program.as_json(), "schemes": list(work.schemes)}
    return sentence(of_results(pd.DataFrame(rows), {"experiment": work.experiment.as_json(), "program": program}))


def test_programs_end_in_a_sentence() -> None:
    work = programs(experiment(schemes=["ecmp", "spray", "ethereal"], seeds=[1, 2, 3]), ["/usr/bin/prog", "-x"])
    needless = concluded(work, {"ecmp": 2.0, "spray": 1.0, "ethereal": 1.01})
    assert needless.startswith(f"No need for packet spraying on this fabric: {DEALT}")
    assert "on prog (1.01 x" in needless and "9 of 9 runs trusted; 3 seeds" in needless
    assert concluded(work, {"ecmp": 2.0, "spray": 1.0, "ethereal": 1.5}).startswith("Packet spraying pays")


def test_programs_that_say_nothing_have_no_verdict() -> None:
    work = programs(experiment(schemes=["ecmp", "spray", "ethereal"], seeds=[1]))
    even = {"ecmp": 1.0, "spray": 1.0, "ethereal": 1.0}
    assert "in 3 of 3 runs no port was ever loaded" in concluded(work, dict.fromkeys(even, 0.0))
    nothing = concluded(work, dict.fromkeys(even, 0.0), wire_bytes=0, fidelity="fail")
    assert nothing == "No verdict: in 3 of 3 runs nothing was sent."
    assert concluded(work, even, runs=0) == "No verdict: no run has finished."
    assert concluded(work, even, runs=1).startswith("No verdict: 1 of 3 runs can be trusted")
    assert concluded(programs(experiment(schemes=["ecmp"], seeds=[1])), even).endswith("lack ethereal and spray.")


def watched(run: ReplayEvidence, margin_s: float = 0.0) -> ProgramEvidence:
    """The same packets as of a replay, as if a program had sent them."""
    seen, end = run.measured, Ended(run.start_s - margin_s, run.end_s + margin_s, 0, None, "", {})
    measured = Measured("run", ProgramResult(end, 7), seen.before, seen.after, seen.samples, seen.shaping)
    return ProgramEvidence.of(measured, run.ports, topology=run.topology, seed=1)


def test_a_program_is_judged_by_the_same_network() -> None:
    run = healthy_run()
    assert not failures(run)
    row = judge_program(watched(run), {"run_id": "run"}).row
    assert (row["fidelity"], row["fidelity_reasons"]) == ("pass", "")
    assert row["retransmitted_segments"] == 7
    assert row["duration_s"] == pytest.approx(run.measured.result.cct_s)
    after = run.measured.after.copy()
    after.loc[0, "tx_packets"] += 1
    lost = replace(run, measured=replace(run.measured, after=after))
    row = judge_program(watched(lost), {"run_id": "run"}).row
    assert row["fidelity"] == "fail"
    assert row["fidelity_reasons"].startswith("conservation: ")


def silent(run: ReplayEvidence) -> ReplayEvidence:
    """The same run, had nothing been sent."""
    seen = run.measured
    queues = seen.samples.queues.assign(sent_bytes=0, backlog_bytes=0)
    return replace(
        run, measured=replace(seen, after=seen.before, samples=replace(seen.samples, queues=queues, waiting=queues[:0]))
    )


def test_a_program_that_sends_nothing_measures_nothing() -> None:
    row = judge_program(watched(silent(healthy_run()), margin_s=1.0), {"run_id": "run"}).row
    assert (row["fidelity"], row["congestion_ratio"], row["wire_bytes"], row["exit_status"]) == ("fail", None, 0, 0)
    assert row["fidelity_reasons"].startswith("traffic: nothing was sent")
    assert in_short(row).startswith("took ") and "sent nothing, fidelity fail" in in_short(row)
    runs = pd.DataFrame([{"traffic": "true", "scheme": "ecmp", "seed": 1, **row}])
    table = Console(StringIO(), width=80)
    table.show(render(runs))
    assert "sent nothing" in table.stream.getvalue() and "0/1 pass" in table.stream.getvalue()
    assert "1.00" not in table.stream.getvalue().splitlines()[-3], "no ratio is the best there is"


def test_the_machine_is_judged_while_the_fabric_is_loaded() -> None:
    run = healthy_run()
    program = watched(run, margin_s=100.0)
    assert run.start_s - 0.2 <= program.start_s < program.end_s <= run.end_s + 0.2
    assert program.loaded_s == pytest.approx(program.end_s - program.start_s)
    idle = run.measured.samples.queues.assign(sent_bytes=0)
    quiet = replace(run.measured, samples=replace(run.measured.samples, queues=idle))
    silent = watched(replace(run, measured=quiet), margin_s=1.0)
    assert silent.loaded_s == 0
    assert (silent.start_s, silent.end_s) == (run.start_s - 1.0, run.end_s + 1.0)


# From the command to the folder, without a fabric


def console() -> Console:
    return Console(StringIO(), width=300)


def script(run: ReplayEvidence, reason: str = "") -> Scripted:
    """Every run is as `run`; the second ends for `reason`, if there is one."""

    def events(_order: FabricOrder, jobs: Sequence[Job]) -> Iterator[Event]:
        yield Built("linux", "a test", None, {"ready": 0.1}, None, run.ports, {})
        for number, job in enumerate(jobs):
            yield Started(job.run_id)
            yield Output({0: b"hello\n"})
            yield ended(h1=6)
            if number == 1 and reason:
                yield Failed(job.run_id, reason, 3)
                return
            yield replace(watched(run).measured, run_id=job.run_id)

    return Scripted(events)


def program_of(work: Programs) -> dict[str, Any]:
    """What a manifest says of a program."""
    return {"program": {**work.program.as_json(), "schemes": list(work.schemes)}}


def test_a_program_that_fails_is_in_failed_runs_and_is_tried_again(tmp_path: Path) -> None:
    run, work = healthy_run(), programs(experiment(FABRIC, schemes=["ecmp", "spray", "ethereal"], seeds=[1]))
    folder = ResultsFolder.create(tmp_path / "results", {**manifest(work.experiment), **program_of(work)})
    [failed] = conduct(work, folder, console(), script(run, "h2 ended with exit status 3"))
    assert (failed.run_id, failed.status) == (work.runs[1].run_id, 3)
    assert folder.failed_runs().reason.tolist() == ["h2 ended with exit status 3"]
    assert folder.runs().run_id.tolist() == [work.runs[0].run_id]
    last = console()
    answer(folder, work, last)
    assert f"spraylab exec --resume {folder.path}" in last.stream.getvalue()
    assert conduct(work, folder, console(), script(run)) == []
    assert folder.runs().run_id.tolist() == [run.run_id for run in work.runs]
    assert folder.failed_runs().empty
    assert (folder.path / "output" / work.runs[1].run_id / "h1.log").read_bytes() == b"hello\n"
    assert answer(folder, work, console()).outcome is not None
    assert "How long programs kept the fabric loaded" in (folder.path / "report.html").read_text()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> How:
    """A new run, as root and on a machine that nobody calibrated."""
    monkeypatch.setattr(performing, "become_root", lambda: None)
    return How(out=None, resume=None, within=None, fail_on=(), dry_run=False)


@pytest.mark.parametrize("closed", [False, True])
def test_an_output_that_cannot_be_written_ends_no_experiment(
    tmp_path: Path, asked: How, capsys: pytest.CaptureFixture[str], closed: bool
) -> None:
    """A full disk behind a redirect, or a reader that has gone: every row is kept, and the answer."""
    run, work = healthy_run(), programs(experiment(FABRIC, schemes=["ecmp", "spray", "ethereal"], seeds=[1]))
    reader, writer = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("w") as full, os.fdopen(writer, "w") as pipe:
        how = replace(asked, out=tmp_path / "results")
        perform(work, Console(pipe if closed else full), how, None, about=program_of(work), sandbox=script(run))
    folder = ResultsFolder.open(tmp_path / "results")
    assert folder.runs().run_id.tolist() == [each.run_id for each in work.runs]
    assert (folder.path / "verdict.json").exists() and (folder.path / "report.html").exists()
    told, where = capsys.readouterr().err.splitlines()
    assert told.startswith("spraylab: standard output cannot be written: ") and "the runs go on" in told
    assert where == f"spraylab: results: {folder.path}"


def test_a_quiet_experiment_says_its_answer_alone(tmp_path: Path, asked: How) -> None:
    run, work = healthy_run(), programs(experiment(FABRIC, schemes=["ecmp", "spray", "ethereal"], seeds=[1]))
    loud, quiet = console(), Console(StringIO(), quiet=True)
    for number, each in enumerate((loud, quiet)):
        how = replace(asked, out=tmp_path / f"results{number}")
        perform(work, each, how, None, about=program_of(work), sandbox=script(run))
    said, heard = (each.stream.getvalue() for each in (loud, quiet))
    assert "fabric up" in said and ", fidelity " in said
    assert "fabric up" not in heard and ", fidelity " not in heard
    assert [line for line in heard.splitlines() if line not in said and "results1" not in line] == []
    assert said.splitlines()[-3].strip() and heard.splitlines()[-2] == said.splitlines()[-3]


def test_without_a_terminal_every_run_has_a_line_as_it_ends(tmp_path: Path, asked: How) -> None:
    run, work = healthy_run(), programs(experiment(FABRIC, schemes=["ecmp", "spray", "ethereal"], seeds=[1]))
    last = console()
    perform(work, last, replace(asked, out=tmp_path / "results"), None, about=program_of(work), sandbox=script(run))
    lines = [line for line in last.stream.getvalue().splitlines() if ", fidelity " in line]
    assert [line.split(":")[0] for line in lines] == [each.run_id for each in work.runs]
    assert all(line.endswith(f"fidelity pass ({place} of 3)") for place, line in enumerate(lines, start=1))
