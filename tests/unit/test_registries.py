"""What is registered is known everywhere: to experiment files, errors, runs, predictions and the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.topology import LeafSpine
from experiments.runs.loads.replays import Replays
from experiments.runs.predict import predict
from experiments.spec.experiment import Experiment, load_experiment, restore_experiment
from experiments.spec.messages import SpecError
from experiments.spec.traffic import kinds, read_entry
from traffic.collectives import COLLECTIVES, ScheduleError, algorithm_of, build_schedule, outline, register
from traffic.collectives.collective import Collective, Pattern, Shift, algorithm
from traffic.collectives.draft import Draft
from traffic.formats import FORMATS, Format, FormatError
from traffic.schedule import Flow, Schedule

PAGE = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
FABRIC = "fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2}\n"


def read_pairs(path: Path) -> Schedule:
    """A toy: lines of source, destination and bytes."""
    try:
        rows = [[int(word) for word in line.split(",")] for line in path.read_text().splitlines()]
    except ValueError as error:
        raise FormatError(f"{path}: is not whole numbers with commas between; write such as 0,1,1000") from error
    flows = [Flow(place, src, dst, size, channel=place) for place, (src, dst, size) in enumerate(rows)]
    return Schedule("", "", 4, len(flows), max(flow.size_bytes for flow in flows), flows)


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(FORMATS, "pairs", Format("pairs", ".csv", "a list of pairs", read_pairs))
    monkeypatch.chdir(tmp_path)


def load(text: str, *overrides: str) -> Experiment:
    Path("exp.yaml").write_text(FABRIC + text)
    return load_experiment("exp.yaml", overrides)


def refused(text: str) -> str:
    with pytest.raises(SpecError) as error:
        load(text)
    return str(error.value)


# A format


@pytest.mark.usefixtures("pairs")
def test_a_format_that_is_registered_goes_from_a_file_to_a_plan() -> None:
    Path("two.csv").write_text("0,2,4000\n3,1,8000\n")
    experiment = load("traffic: [{pairs: two.csv}, {collective: alltoall}]\nschemes: [ethereal]\nseeds: [1]\n")
    work = Replays(experiment)
    run = work.runs[0]
    assert (run.run_id, run.label) == ("001-two-ethereal-s1", "two")
    plan = work.plan(run)
    assert [(flow.src, flow.dst, flow.size_bytes) for flow in plan.schedule.flows] == [(0, 2, 4000), (3, 1, 8000)]
    assert sum(piece.size_bytes for piece in plan.pieces) == 12_000
    identity = work.identity(run, plan, "linux")
    assert (identity["collective"], identity["algorithm"], identity["ranks"]) == ("pairs", "two", 4)
    assert predict(experiment).predicted_cct_s.notna().all()
    assert restore_experiment(experiment.as_json(), "manifest.json") == experiment
    assert experiment.as_json()["traffic"][0] == {"pairs": str(Path("two.csv").absolute())}


@pytest.mark.usefixtures("pairs")
def test_what_is_wrong_with_a_file_of_a_registered_format_is_said_at_its_key() -> None:
    Path("two.csv").write_text("0;2;4000\n")
    message = refused("traffic:\n  - {pairs: two.csv}\n")
    assert message.startswith("exp.yaml:3: traffic.0.pairs: ") and message.endswith("write such as 0,1,1000")
    assert "traffic.0.pairs: 3 is not a file; write one such as perm.csv" in refused("traffic: [{pairs: 3}]\n")
    assert "traffic.0.size: unknown key 'size'; known are pairs" in refused("traffic: [{pairs: a, size: 4MB}]\n")
    assert "both a matrix and a pairs; keep one" in refused("traffic: [{pairs: a, matrix: b}]\n")
    said = refused("traffic: [two.csv]\n")
    assert "'two.csv' is no entry; write one such as {collective: alltoall, size: 4MB}, or with one of the keys" in said
    assert {"matrix", "pairs", "job"} <= {word.strip(",") for word in said.split()}


def test_a_file_called_as_a_collective_is_told_from_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("alltoall.cm").write_text("Nodes 4\nConnections 1\n0->2 id 1 start 0 size 1000\n")
    experiment = load("traffic: [{matrix: alltoall.cm}, {collective: alltoall}]\nschemes: [ecmp]\nseeds: [1]\n")
    assert [run.label for run in Replays(experiment).runs] == ["alltoall-1", "alltoall-2"]


# An algorithm, and a collective


@pytest.fixture
def halo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A collective by an algorithm with an option that no other has."""
    kind = Collective("halo", busbw_factor=lambda n: 1.0)

    @algorithm(kind, "pairwise", flows=lambda n, shift: n, pattern=lambda n, shift: Pattern(shift, 1, 1))
    def pairwise(draft: Draft, *, shift: Shift = 1) -> None:
        for src, part in ((src, part) for src in range(draft.ranks) for part in draft.divide(draft.message, 1)):
            draft.send(0, src, (src + shift) % draft.ranks, part)

    monkeypatch.chdir(tmp_path)
    register(pairwise)
    yield
    del COLLECTIVES["halo"]


@pytest.mark.usefixtures("halo")
def test_an_algorithm_that_is_registered_is_known_to_files_and_errors() -> None:
    experiment = load("traffic: [{collective: halo, shift: 2}]\nseeds: [1]\nschemes: [ecmp]\n")
    assert [flow.dst for flow in experiment.schedule(0, 1).flows] == [2, 3, 0, 1]
    assert Replays(experiment).runs[0].label == "halo"
    assert "use one of allreduce, allgather, reducescatter, alltoall, broadcast, permutation, halo" in refused(
        "traffic: [{collective: hello}]\n"
    )
    assert "its options are shift" in refused("traffic: [{collective: halo, chunks: 2}]\n")
    promise_nothing = refused("traffic: [{collective: halo}]\nverify: true\n")
    assert "nothing is promised of the data of a halo: only allreduce, allgather" in promise_nothing


def test_the_first_algorithm_registered_is_the_default() -> None:
    assert {name: algorithm_of(name).name for name in COLLECTIVES} == {
        "allreduce": "ring", "allgather": "ring", "reducescatter": "ring", "alltoall": "direct", "broadcast": "ring",
        "permutation": "shift",
    }  # fmt: skip


def test_algorithms_that_share_the_name_of_an_option_mean_the_same_by_it() -> None:
    meant: dict[str, set[tuple[type, str]]] = {}
    for collective in COLLECTIVES.values():
        for each in collective.algorithms.values():
            for name, option in each.options.items():
                meant.setdefault(name, set()).add((option.kind, option.says))
    assert all(len(meanings) == 1 for meanings in meant.values())


def test_the_options_of_an_experiment_are_those_of_the_algorithms() -> None:
    fields = kinds()["collective"].model_fields
    assert list(fields) == ["collective", "algorithm", "channels", "size_bytes", "chunks", "window", "order", "shift"]


# Without a list


def test_options_that_change_the_rounds_are_not_told_without_a_list() -> None:
    assert outline("alltoall", ranks=8, size_bytes=8000) is not None
    assert outline("alltoall", ranks=8, size_bytes=8000, window=2) is None
    assert outline("alltoall", ranks=8, size_bytes=8000, order="shuffled") is not None, "the order changes no load"
    assert outline("allreduce", "ring", ranks=8, size_bytes=8000) is not None
    assert outline("allreduce", "ring", ranks=8, size_bytes=8000, chunks=2) is None
    assert outline("broadcast", "tree", ranks=8, size_bytes=8000) is None
    with pytest.raises(ScheduleError, match="unknown option 'window' of allreduce by ring"):
        outline("allreduce", "ring", ranks=8, size_bytes=8000, window=2)


def test_an_outline_is_its_schedule_without_the_flows() -> None:
    listed = build_schedule("allreduce", "direct", ranks=8, size_bytes=8000, channels=2)
    unlisted = outline("allreduce", "direct", ranks=8, size_bytes=8000, channels=2)
    assert unlisted is not None
    names = ("collective", "algorithm", "ranks", "channels", "size_bytes", "busbw_factor")
    assert [getattr(unlisted.schedule, name) for name in names] == [getattr(listed, name) for name in names]
    assert unlisted.schedule.flows == ()


@pytest.mark.parametrize(
    ("entry", "seeded"),
    [
        ({"collective": "alltoall"}, False),
        ({"collective": "alltoall", "order": "synchronised"}, False),
        ({"collective": "alltoall", "order": "shuffled"}, True),
        ({"collective": "allreduce"}, False),
        ({"matrix": "x.cm"}, False),
    ],
)
def test_an_entry_says_whether_the_seed_changes_what_it_sends(entry: dict[str, object], seeded: bool) -> None:
    assert read_entry(entry).seeded == seeded


def test_an_algorithm_that_takes_a_seed_is_seeded_unless_it_says_otherwise() -> None:
    assert algorithm(COLLECTIVES["alltoall"], "x", flows=lambda n: n)(lambda draft: None).seeded(seed=1)
    assert not algorithm(COLLECTIVES["alltoall"], "x", flows=lambda n: n)(lambda draft: None).seeded(chunks=1)


@pytest.mark.parametrize(("placement", "shift"), [("packed", 4), ("random", 4), ("interleaved", 1)])
def test_an_outline_sends_a_permutation_where_its_schedule_does(placement: str, shift: int) -> None:
    topology = LeafSpine(4, 4, 4)
    entry = read_entry({"collective": "permutation", "channels": 3})
    unlisted = entry.outline(topology, placement)
    assert unlisted is not None and unlisted.pattern.to == shift
    assert {(flow.dst - flow.src) % 16 for flow in entry.schedule(topology, placement, 1).flows} == {shift}
    assert entry.flow_count(topology) == 48


# The documentation


def test_the_documentation_lists_every_collective_and_algorithm() -> None:
    listed = re.search(r"Collectives:\n?(.*?)\.\n", PAGE, re.DOTALL)
    assert listed is not None
    known = [f"{name} ({', '.join(kind.algorithms)})" for name, kind in COLLECTIVES.items()]
    assert " ".join(listed[1].split()).lower() == ", ".join(known)


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.key)
def test_the_documentation_shows_every_format(form: Format) -> None:
    assert re.search(rf"- \{{{form.key}: \S+\{form.suffix}\}} +# {re.escape(form.says)}\n", PAGE)
