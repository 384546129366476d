"""A scheme is one file and one line: what a newcomer says of itself is all that the rest of the house asks."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from results_example import results_folder
from synthetic import EVERY_SCHEME

from emulator.files import Folder
from emulator.forwarding import Flowlets, Scheduling, Spraying
from emulator.nic import PerConnection, PerPacket, SingleFrames, Unstamped
from emulator.topology import LeafSpine
from experiments.cli import main
from experiments.results import plots
from experiments.results.report import report_path, write_report
from experiments.results.verdict import decide
from experiments.runs.loads.programs import Program, Programs
from experiments.runs.loads.replays import ReplayLoad, Replays
from experiments.runs.plan import RUN_OVERHEAD_S, estimate_s, plan_runs
from experiments.runs.predict import predict, prediction_table
from experiments.shell.terminal import check_shell_scheme
from experiments.spec.experiment import Experiment
from experiments.spec.messages import SpecError
from experiments.theory.counting import count_traffic
from experiments.theory.prediction import predict_run
from traffic import schemes
from traffic.collectives import outline
from traffic.plan import FIRST_SOURCE_PORT, UNTAGGED, plan_traffic
from traffic.schedule import Flow, Schedule
from traffic.schemes import Look, Scheme, Split, clauses, scheme_of

README = Path(__file__).parents[2] / "README.md"

# A newcomer


@dataclass(frozen=True, eq=False, kw_only=True)
class FirstSpine(Scheme):
    """Sends all that leaves a leaf over its first spine: as bad as it gets, and known by arithmetic."""

    def assign(self, schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]) -> list[Split]:
        return [[(1, flow.size_bytes)] for flow in schedule.flows]

    def tags(self, flows: int, spines: Sequence[int]) -> list[list[int]]:
        return [[1]] * flows


TOY = FirstSpine(name="first-spine", says="all packets take the first spine", look=Look("#123456", "8", "dotted"))
FABRIC = {"leaves": 4, "spines": 4, "hosts_per_leaf": 4}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Scheme:
    monkeypatch.setattr(schemes, "SCHEMES", (*schemes.SCHEMES, TOY))
    return TOY


def experiment(**changes: Any) -> Experiment:
    traffic = [{"collective": "permutation", "size": "4MB"}]
    content = {"name": "toys", "fabric": FABRIC, "traffic": traffic, "schemes": ["first-spine"], "seeds": [1]}
    return Experiment.model_validate({**content, **changes})


def test_a_newcomer_is_planned_estimated_and_predicted(toy: Scheme) -> None:
    asked = experiment()
    work = Replays(asked)
    [run] = plan_runs(asked)
    plan = work.plan(run)
    assert run.run_id == "001-permutation-first-spine-s1"
    assert plan.scheme is toy and {connection.path_tag for connection in plan.connections} == {1}
    assert not ReplayLoad(plan, asked.tcp()).hashed
    assert work.estimate_s(run) == pytest.approx(1.1 * work.bound_s(run) + RUN_OVERHEAD_S)
    [row] = predict(asked).to_dict("records")
    assert row["scheme"] == "first-spine" and row["cut_flows"] == 0
    assert row["congestion_ratio"] == pytest.approx(4), "what four links should carry, one does"
    assert row["predicted_cct_over_bound"] == pytest.approx(4)


def test_a_newcomer_is_counted(toy: Scheme) -> None:
    fabric = LeafSpine(4, 4, 4)
    unlisted = outline("alltoall", "direct", ranks=16, size_bytes=16 * 4000)
    assert unlisted is not None
    counted = count_traffic(unlisted, fabric, range(16))
    assert counted.congestion_ratio(toy, seed=1) == pytest.approx(4)
    assert counted.connections(toy) == counted.total_flows == 16 * 15 and counted.cut_flows(toy) == 0


def test_a_newcomer_is_reported(toy: Scheme, tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "r", ["ring"], ["ecmp", "first-spine"], (1,))
    write_report([folder], report_path([folder]))
    page = report_path([folder]).read_text()
    assert plots.look("first-spine") is toy.look
    assert toy.says in page and toy.look.colour in page


def test_a_newcomer_that_has_nothing_for_programs_is_left_out_and_refused(toy: Scheme) -> None:
    program = Program(("prog",), (0, 1), 5.0)
    work = Programs(experiment(schemes=["ecmp", "first-spine"]), program)
    assert [run.scheme for run in work.runs] == ["ecmp"] and work.left_out == ["first-spine"]
    others = "spray-weighted, ethereal-weighted, presto-64KB"
    every = f"ecmp, spray, spray-random, ethereal, switch-spray, {others}, flowlet-Tms or hedera-Pms"
    refusal = f"first-spine cannot apply .* write {every}$"
    with pytest.raises(SpecError, match=refusal):
        Programs(experiment(), program)
    with pytest.raises(SpecError, match=refusal):
        check_shell_scheme("first-spine")


def test_an_unknown_scheme_is_told_of_the_newcomer(toy: Scheme) -> None:
    with pytest.raises(
        ValueError,
        match="presto-64KB, first-spine, subflow-K with K from 2 to 64, mptcp-K with K from 2 to 8, flow",
    ):
        scheme_of("second-spine")
    with pytest.raises(SpecError, match="--scheme: unknown scheme 'second-spine'"):
        check_shell_scheme("second-spine")


def test_a_newcomer_that_spreads_is_as_good_as_spraying(monkeypatch: pytest.MonkeyPatch) -> None:
    spread = Scheme(name="spread", says="somebody sprays", look=TOY.look, spreads=True)
    monkeypatch.setattr(schemes, "SCHEMES", (*schemes.SCHEMES, spread))
    asked = experiment(schemes=["spread"])
    [row] = predict(asked).to_dict("records")
    assert (row["congestion_ratio"], row["predicted_cct_over_bound"]) == pytest.approx((1, 1))
    assert not ReplayLoad(Replays(asked).plan(plan_runs(asked)[0]), asked.tcp()).hashed


# What every scheme says of itself


@pytest.mark.parametrize("name", [*EVERY_SCHEME, "mptcp-4", "flowlet-100ms", "hedera-500ms"])
def test_a_scheme_is_equal_by_name_also_after_a_journey(name: str) -> None:
    scheme = scheme_of(name)
    arrived = pickle.loads(pickle.dumps(scheme))
    assert arrived == scheme and hash(arrived) == hash(scheme) and str(arrived) == scheme.name == name
    assert arrived.nic == scheme.nic and arrived.look == scheme.look and type(arrived) is type(scheme)
    assert [other for other in {*EVERY_SCHEME, name} if scheme_of(other) == scheme] == [name]
    assert scheme != name
    with pytest.raises(FrozenInstanceError):
        scheme.says = "something else"  # type: ignore[misc]


def test_names_are_distinct_and_safe_in_file_names() -> None:
    names = [*(scheme.name for scheme in schemes.SCHEMES), *(family.name for family in schemes.FAMILIES)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+", name) for name in names)


def test_the_verdicts_parts_are_played() -> None:
    for role in ("plain", "spraying", "splitting"):
        assert schemes.names_of_role(role)
    assert schemes.names_of_role("spraying")[:3] == ["spray", "spray-random", "switch-spray"], (
        "the first is the reference"
    )
    default = Experiment.model_validate({"name": "d", "fabric": FABRIC, "traffic": [{"collective": "alltoall"}]})
    assert default.schemes == ("ecmp", "spray", "ethereal")
    assert not decide(results_frame(default.schemes)).missing


def results_frame(names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"run_id": name, "traffic": "ring", "scheme": name, "seed": 1, "fidelity": "pass", "cct_over_bound": 1.0}
        for name in names
    )


def test_the_readmes_table_is_the_registry() -> None:
    table = README.read_text().partition("| scheme | how bytes meet paths |\n|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [f"| `{name}` | {says} |" for name, says in clauses().items()]


@pytest.mark.parametrize("command", ["exec", "shell"])
def test_help_names_what_programs_can_have(command: str) -> None:
    text = CliRunner().invoke(main, [command, "--help"], env={"COLUMNS": "200"}).output
    words = " ".join(text.split()).replace("- ", "-")  # lines end at hyphens too
    for scheme in schemes.SCHEMES:
        assert (scheme.name in words) == (scheme.for_programs is not None)
    if command == "exec":
        assert all(scheme.for_programs.says in words for scheme in schemes.SCHEMES if scheme.for_programs)
        assert "Only the program itself could do what subflow-K and mptcp-K do: they are left out." in words
    assert "{" not in words


def test_nics_are_asked_for_what_senders_do_not_do_themselves() -> None:
    asked = {name: scheme_of(name) for name in EVERY_SCHEME}
    sprays = {"spray", "spray-random", "switch-spray"}
    assert {name for name, scheme in asked.items() if scheme.nic} == {*sprays, "presto-64KB"}
    assert all(scheme.spreads for scheme in asked.values() if scheme.nic)
    assert {name for name, scheme in asked.items() if scheme.program_nic} == {*sprays, "presto-64KB", "ethereal"}
    for name, order in (("spray", PerPacket("round-robin")), ("spray-random", PerPacket("random"))):
        assert asked[name].program_nic == order, "whatever tag a program sets"
        assert asked[name].nic == replace(order, but_tagged=True), "another tenant's connections have their paths"
    assert asked["ethereal"].program_nic == PerConnection()
    assert asked["switch-spray"].nic == asked["switch-spray"].program_nic == Unstamped(SingleFrames())


def test_leaves_are_asked_by_the_load_for_what_they_do_themselves() -> None:
    asked = experiment(schemes=["ecmp", "spray", "ethereal", "switch-spray"])
    replays, programs = Replays(asked), Programs(asked, Program(("prog",), (0, 1), 5.0))
    for run in replays.runs:
        replays.prepare(run)
    for work in (replays, programs):
        told = {run.scheme: work.job(run, Folder(Path())).load.forwarding for run in work.runs}
        assert told == {"ecmp": None, "spray": None, "ethereal": None, "switch-spray": Spraying()}


def test_estimates_know_what_schemes_suffer() -> None:
    """The hash collides; a TCP that mistakes reordering for loss is slowed by sprays, and by nothing else."""
    tolerant, default = ({"reordering": kind} for kind in ("tolerant", "default"))
    took = {
        (name, kind["reordering"]): estimate_s(asked, plan_runs(asked)[0], 10.0) - RUN_OVERHEAD_S
        for name in EVERY_SCHEME
        for kind in (tolerant, default)
        for asked in [experiment(schemes=[name], transport=kind)]
    }
    assert all(seconds > 10 for seconds in took.values())
    slowed = {name for name in EVERY_SCHEME if took[name, "default"] > took[name, "tolerant"]}
    assert slowed == {"spray", "spray-random", "switch-spray"}
    assert all(took[name, "default"] >= took[name, "tolerant"] for name in EVERY_SCHEME)
    assert max(EVERY_SCHEME, key=lambda name: took[name, "tolerant"]) == "ecmp"


# Families


@pytest.mark.parametrize("number", [2, 3, 10, 64])
def test_a_family_takes_the_numbers_it_says(number: int) -> None:
    scheme = scheme_of(f"subflow-{number}")
    assert scheme.connections_per_flow == number and f" {number} connections" in scheme.says


@pytest.mark.parametrize("text", ["0", "1", "65", "99", "100", "02", "+4", "4 ", "٤", "4\n", "-4", "9" * 5000])
def test_a_family_takes_no_others(text: str) -> None:
    with pytest.raises(ValueError, match="subflow-K with K from 2 to 64"):
        scheme_of(f"subflow-{text}")


@pytest.mark.parametrize("number", [2, 5, 8])
def test_the_kernels_subflows_are_dealt_by_ranges_of_ports(number: int) -> None:
    scheme = scheme_of(f"mptcp-{number}")
    assert scheme.kernel_subflows == number and f" {number} subflows" in scheme.says
    assert isinstance(scheme.nic, PerConnection) and len(scheme.nic.ports) == number
    edges = [edge for ports in scheme.nic.ports for edge in ports]
    assert edges[0] == FIRST_SOURCE_PORT and edges == sorted(set(edges)) and edges[-1] < 1 << 16


@pytest.mark.parametrize(("name", "gap_s"), [("flowlet-8ms", 0.008), ("flowlet-100ms", 0.1), ("flowlet-9999ms", 9.999)])
def test_a_flowlets_name_has_its_pause(name: str, gap_s: float) -> None:
    scheme = scheme_of(name)
    assert scheme.switch == Flowlets(gap_s) and scheme.for_programs
    assert scheme.lacking("linux") is None
    assert "write fabric.dataplane: linux" in str(scheme.lacking("ovs-user")) and scheme.lacking("auto")


@pytest.mark.parametrize(
    ("name", "period_s"), [("hedera-200ms", 0.2), ("hedera-5000ms", 5), ("hedera-99999ms", 99.999)]
)
def test_the_name_of_hedera_has_its_period(name: str, period_s: float) -> None:
    scheme = scheme_of(name)
    assert scheme.switch == Scheduling(period_s) and scheme.for_programs
    assert scheme.lacking("linux") is None
    assert scheme.lacking("ovs-user") is None and scheme.lacking("auto") is None


def test_open_vswitchs_counters_are_too_old_to_be_asked_for_more_often() -> None:
    assert scheme_of("hedera-200ms").lacking("ovs-user") is None
    often = scheme_of("hedera-199ms")
    assert "write hedera-200ms or more" in str(often.lacking("ovs-user")) and often.lacking("auto")
    assert often.lacking("linux") is None


def test_what_a_controller_places_is_hashed_first() -> None:
    asked = experiment(schemes=["ecmp", "hedera-500ms", "flowlet-100ms"])
    work = Replays(asked)
    hashed = {run.scheme: ReplayLoad(work.plan(run), asked.tcp()).hashed for run in work.runs}
    assert hashed["hedera-500ms"] == hashed["ecmp"] != []
    assert hashed["flowlet-100ms"] == []


@pytest.mark.parametrize(
    "name",
    ["mptcp-1", "mptcp-9", "mptcp-04", "flowlet-7ms", "flowlet-10000ms", "flowlet-1s", "hedera-49ms", "hedera-1s"],
)
def test_rivals_of_other_numbers_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError,
        match="mptcp-K with K from 2 to 8, flowlet-Tms with T from 8 to 9999 and hedera-Pms with P from 50 to 99999",
    ):
        scheme_of(name)


def test_nobody_predicts_what_draws_its_paths() -> None:
    asked = experiment(schemes=["ecmp", "mptcp-2", "flowlet-100ms", "hedera-500ms"])
    rows = predict(asked).set_index("scheme")
    work = Replays(asked)
    for run in work.runs:
        plan, told = work.plan(run), scheme_of(run.scheme).about["predicted"]
        nobody = run.scheme != "ecmp"
        assert (predict_run(plan, work.topology, run.seed) is None) == told.startswith("no: ") == nobody
        assert pd.isna(rows.loc[run.scheme, ["predicted_cct_s", "congestion_ratio"]]).all() == nobody
    prediction_table(rows.reset_index())


def test_a_scheme_that_cannot_be_had_is_named_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traffic.schemes.mptcp.without_mptcp", lambda: "this kernel has none")
    fabric = {**FABRIC, "dataplane": "ovs"}
    work = Replays(experiment(fabric=fabric, schemes=["ecmp", "mptcp-2", "flowlet-100ms"]))
    lacking = work.lacking()
    assert list(lacking) == ["mptcp-2", "flowlet-100ms"] and lacking["mptcp-2"] == "this kernel has none"


def test_subflows_have_connections_of_their_own_inside_a_leaf_as_well() -> None:
    fabric = LeafSpine(2, 2, 2)
    schedule = Schedule("by hand", "by hand", 4, 1, 2000, [Flow(0, 0, 1, 1000), Flow(1, 0, 2, 1000)])
    plan = plan_traffic(schedule, fabric, range(4), scheme_of("subflow-4"))
    assert [(piece.flow, piece.size_bytes) for piece in plan.pieces] == [(0, 250)] * 4 + [(1, 250)] * 4
    assert len({(connection.src_host, connection.src_port) for connection in plan.connections}) == 8
    assert {connection.path_tag for connection in plan.connections} == {UNTAGGED}
