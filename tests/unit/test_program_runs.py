"""Programs on the fabric: where they run, what they find, what is kept of what they say, how they are judged."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import FABRIC, healthy_run

from emulator.programs import OUTPUT_LIMIT_BYTES, Ended, Launch, environment
from emulator.topology import LeafSpine
from experiments.judge.fidelity import Run, failures
from experiments.results.sentences import DEALT
from experiments.runs.messages import ProgramJob, ProgramMeasured
from experiments.runs.programs import (
    OutputLogs,
    ProgramRun,
    conclusion,
    judge_program,
    loaded_span_s,
    parse_hosts,
    plan_programs,
)
from experiments.spec.experiment import Experiment, SpecError

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


def test_a_run_for_every_scheme_and_seed_but_for_those_only_the_program_could_apply() -> None:
    asked = experiment(schemes=["ecmp", "subflow-4", "ethereal"], seeds=[1, 2])
    jobs, left_out = plan_programs(asked, ["prog"], (0, 1), 5.0)
    assert [(job.scheme, job.seed) for job in jobs] == [("ecmp", 1), ("ethereal", 1), ("ecmp", 2), ("ethereal", 2)]
    assert left_out == ["subflow-4"]
    assert len({job.launch.master_port for job in jobs}) == len({job.run_id for job in jobs}) == 4
    with pytest.raises(SpecError, match="subflow-4 cannot apply to an unmodified program"):
        plan_programs(experiment(schemes=["subflow-4"]), ["prog"], (0,), 5.0)


def test_ranks_find_each_other() -> None:
    launch = replace(LAUNCH, hosts=(5, 0, 3))
    found = [environment(SMALL, launch, rank) for rank in range(3)]
    assert [each["RANK"] for each in found] == ["0", "1", "2"]
    for each in found:
        assert each["WORLD_SIZE"] == "3"
        assert each["MASTER_ADDR"] == SMALL.host_ip(5)
        assert each["SPRAYLAB_HOSTS"].split(",") == [SMALL.host_ip(host) for host in (5, 0, 3)]


class Said(list[str]):
    def __call__(self, text: str, **_: object) -> None:
        self.append(text)


def ended(**totals: int) -> Ended:
    return Ended(0.0, 1.0, 0, None, "", {int(host.removeprefix("h")) - 1: total for host, total in totals.items()})


def logs(folder: Path) -> tuple[OutputLogs, Said]:
    said = Said()
    begun = OutputLogs(folder, SMALL, said)
    begun.begin(ProgramJob("run", "ecmp", 1, LAUNCH))
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


def rows_of(jobs: list[ProgramJob], loaded_s: dict[str, float], **changes: Any) -> list[dict[str, Any]]:
    """What programs.csv would have of `jobs`, loaded for so long under each scheme."""
    return [
        {
            "run_id": job.run_id,
            "scheme": job.scheme,
            "seed": job.seed,
            "loaded_s": loaded_s[job.scheme],
            "exit_status": 0,
            "fidelity": "pass",
            **changes,
        }
        for job in jobs
    ]


def test_programs_end_in_a_sentence() -> None:
    asked = experiment(schemes=["ecmp", "spray", "ethereal"], seeds=[1, 2, 3])
    jobs, _ = plan_programs(asked, ["/usr/bin/prog", "-x"], (0, 1), 5.0)
    needless = conclusion(rows_of(jobs, {"ecmp": 2.0, "spray": 1.0, "ethereal": 1.01}), jobs)
    assert needless.startswith(f"No need for packet spraying on this fabric: {DEALT}")
    assert "on prog (1.01 x" in needless and "9 of 9 runs trusted; 3 seeds" in needless
    pays = conclusion(rows_of(jobs, {"ecmp": 2.0, "spray": 1.0, "ethereal": 1.5}), jobs)
    assert pays.startswith("Packet spraying pays")


def test_programs_that_say_nothing_have_no_verdict() -> None:
    asked = experiment(schemes=["ecmp", "spray", "ethereal"], seeds=[1])
    jobs, _ = plan_programs(asked, ["prog"], (0, 1), 5.0)
    even = {"ecmp": 1.0, "spray": 1.0, "ethereal": 1.0}
    assert "in 3 of 3 runs no port was ever loaded" in conclusion(rows_of(jobs, dict.fromkeys(even, 0.0)), jobs)
    assert conclusion(rows_of(jobs, even, exit_status=1), jobs) == "No verdict: no run has finished."
    assert conclusion([], jobs) == "No verdict: no run has finished."
    assert conclusion(rows_of(jobs[:1], even), jobs).startswith("No verdict: 1 of 3 runs can be trusted")
    alone = jobs[:1]
    assert conclusion(rows_of(alone, even), alone).endswith("lack ethereal and spray.")


def watched(run: Run, margin_s: float = 0.0) -> ProgramRun:
    """The same packets as of a replay, as if a program had sent them."""
    seen, end = run.measured, Ended(run.start_s - margin_s, run.end_s + margin_s, 0, None, "", {})
    measured = ProgramMeasured("run", end, 7, seen.before, seen.after, seen.samples, seen.shaping)
    return ProgramRun.of(measured, run.ports)


def test_a_program_is_judged_by_the_same_network() -> None:
    run = healthy_run()
    assert not failures(run)
    job = ProgramJob("run", "ecmp", 1, LAUNCH)
    row = judge_program(watched(run), job, experiment(FABRIC), "linux")
    assert (row["fidelity"], row["fidelity_reasons"]) == ("pass", "")
    assert row["retransmitted_segments"] == 7
    assert row["duration_s"] == pytest.approx(run.measured.replay.cct_s)
    after = run.measured.after.copy()
    after.loc[0, "tx_packets"] += 1
    lost = replace(run, measured=replace(run.measured, after=after))
    row = judge_program(watched(lost), job, experiment(FABRIC), "linux")
    assert row["fidelity"] == "fail"
    assert row["fidelity_reasons"].startswith("conservation: ")


def test_the_machine_is_judged_while_the_fabric_is_loaded() -> None:
    run = healthy_run()
    program = watched(run, margin_s=100.0)
    span = loaded_span_s(program.measured, run.ports)
    assert span == (program.start_s, program.end_s)
    assert span is not None
    assert run.start_s - 0.2 <= span[0] < span[1] <= run.end_s + 0.2
    idle = run.measured.samples.queues.assign(sent_bytes=0)
    quiet = replace(run.measured, samples=replace(run.measured.samples, queues=idle))
    silent = watched(replace(run, measured=quiet), margin_s=1.0)
    assert loaded_span_s(silent.measured, run.ports) is None
    assert (silent.start_s, silent.end_s) == (silent.measured.ended.started_s, silent.measured.ended.ended_s)
