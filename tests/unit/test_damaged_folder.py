"""A results folder that is damaged is told in one sentence, with file and place, by whatever reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from damage import ODD_VALUES, places, spoilt_csv, spoilt_json, with_value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from results_example import manifest_of, results_folder

from experiments import cli
from experiments.commands import performing
from experiments.results.folder import ResultsError, ResultsFolder
from experiments.results.sentences import as_json, lines, sentence
from experiments.results.verdict import of_results

LONGEST_SENTENCE = 600
bounded = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = results_folder(tmp_path_factory.mktemp("damaged") / "good", ["permutation"], seeds=[1])
    folder.record_failed(["008-late"], "it was late")
    return folder.path


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "r"))


def is_a_sentence(said: str) -> bool:
    return said.isprintable() and 0 < len(said) < LONGEST_SENTENCE


def refused(folder: Path) -> str:
    """What is said of it, whichever of its files is read."""
    with pytest.raises(ResultsError) as error:
        everything(folder)
    assert is_a_sentence(str(error.value)), str(error.value)
    return str(error.value).removeprefix(str(folder)).lstrip("/")


def everything(path: Path) -> None:
    """All that is read of a folder, and made of it, but for the figures."""
    folder = ResultsFolder.open(path)
    runs, manifest = folder.runs(), folder.manifest()
    for name in ("flows", "links", "queues"):
        folder.frame(name)
    folder.failed_runs()
    verdict = of_results(runs, manifest)
    assert sentence(verdict) and isinstance(lines(verdict), list)
    json.dumps(as_json(verdict))


def changed(content: dict[str, Any], path: str, value: Any) -> str:
    return json.dumps(with_value(content, tuple(int(key) if key.isdigit() else key for key in path.split(".")), value))


MANIFESTS: list[tuple[str, Any, str]] = [
    ("experiment", ..., "experiment is missing: it is there in what spraylab writes"),
    ("experiment", None, "experiment is an empty value, not a mapping"),
    ("experiment", "[/red]", "experiment is '[/red]', not a mapping"),
    ("experiment.schemes", {}, "experiment.schemes is {}, not a list"),
    ("experiment.schemes.1", 3, "experiment.schemes.1 is 3, not text"),
    ("experiment.schemes.1", "", "experiment.schemes.1 is '': string should have at least 1 character"),
    ("experiment.seeds.0", "1", "experiment.seeds.0 is '1', not a whole number"),
    ("experiment.seeds.0", True, "experiment.seeds.0 is true, not a whole number"),
    ("experiment.fabric", None, "experiment.fabric is an empty value, not a mapping"),
    ("experiment.traffic.0", "alltoall", "experiment.traffic.0 is 'alltoall', not a mapping"),
    ("experiment.name", "\ud800", "'\\ud800' is no text: half a character, as \\ud800 is"),
    ("experiment.sweep", 3, "experiment.sweep: 3 is not a mapping such as {strain.jitter: [0, 5%]}"),
    ("experiment.sweep", {"": [[]]}, "experiment.sweep: "),
    ("fabric", None, "fabric is an empty value, not a mapping"),
    ("machine", [], "machine is [], not a mapping"),
    ("resumed", {"2026": 3}, "resumed.2026 is 3, not a mapping"),
    ("within", "5%", "within is '5%', not a number"),
    ("within", 1.5, "within is 1.5: input should be less than 1"),
    ("program", {"command": []}, "program.command is []: list should have at least 1 item"),
    ("inputs", {"inputs/a.cm": {}}, "inputs.inputs/a.cm.origin is missing: it is there in what spraylab writes"),
    ("format", 2, "has format 2, this version reads 1"),
    ("format", True, "has format true, this version reads 1"),
]


@pytest.mark.parametrize(("place", "value", "said"), MANIFESTS)
def test_a_manifest_with_a_wrong_value(folder: Path, place: str, value: Any, said: str) -> None:
    (folder / "manifest.json").write_text(changed(json.loads((folder / "manifest.json").read_text()), place, value))
    assert refused(folder).startswith(f"manifest.json: {said}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"format": 1}', "manifest.json: experiment is missing"),
        (b'{"format": 1,\n "experiment": }', "manifest.json:2:16: not valid JSON: Expecting value"),
        (b"", "manifest.json:1:1: not valid JSON"),
        (b"[1]", "manifest.json: has format an empty value, this version reads 1"),
        (b"\xff", "manifest.json: not UTF-8 text from byte 0 on, so not JSON"),
        (b'{"format": 1, "within": NaN}', "manifest.json: not valid JSON: 'NaN is no number of JSON'"),
        (b"[" * 100_000, "manifest.json: is nested too deeply for a manifest"),
        (b'{"a":' * 30 + b"1" + b"}" * 30, "manifest.json: is nested too deeply for a manifest"),
        (b'{"format": ' + b"9" * 5000 + b"}", "manifest.json: not valid JSON"),
    ],
)
def test_a_manifest_that_is_none(folder: Path, content: bytes, said: str) -> None:
    (folder / "manifest.json").write_bytes(content)
    assert refused(folder).startswith(said)


def cell(column: str, value: str) -> Callable[[str], str]:
    """Put into the second row, which is line 3."""

    def change(text: str) -> str:
        header, *rows = text.splitlines()
        cells = rows[1].split(",")  # none is quoted in the example
        cells[header.split(",").index(column)] = value
        rows[1] = ",".join(cells)
        return "\n".join([header, *rows, ""])

    return change


RUNS: list[tuple[Callable[[str], str], str]] = [
    (cell("cct_s", "soon"), "runs.csv:3: cct_s is 'soon'; it takes a number up to 1e+18, or nothing"),
    (cell("cct_s", "nan"), "runs.csv:3: cct_s is 'nan'; it takes a number"),
    (cell("cct_s", "1_0"), "runs.csv:3: cct_s is '1_0'; it takes a number"),
    (cell("cct_s", "1e400"), "runs.csv:3: cct_s is '1e400'; it takes a number"),
    (cell("seed", ""), "runs.csv:3: seed is ''; it takes a whole number"),
    (cell("seed", "1.5"), "runs.csv:3: seed is '1.5'; it takes a whole number"),
    (cell("run_id", "[/red]"), "runs.csv:3: run_id is '[/red]'; it takes one such as 001-alltoall-spray-s1"),
    (cell("run_id", "../../x"), "runs.csv:3: run_id is '../../x'; it takes one such as"),
    (cell("run_id", ""), "runs.csv:3: run_id is ''; it takes"),
    (cell("run_id", "001-ecmp-s1"), "runs.csv:3: run_id '001-ecmp-s1' is in line 2 too; each run has one"),
    (cell("run_id", "077-ecmp-s1"), "flows.parquet/077-ecmp-s1.parquet is missing, though runs.csv has its run: copy"),
    (cell("fidelity", "perhaps"), "runs.csv:3: fidelity is 'perhaps'; it takes pass or fail"),
    (cell("explained", "maybe"), "runs.csv:3: explained is 'maybe'; it takes yes or no or nothing"),
    (cell("traffic", ""), "runs.csv:3: traffic is ''; it takes a name"),
    (cell("scheme", "\x1b[2J"), "runs.csv:3: scheme is '\\x1b[2J'; it takes a name"),
    (lambda text: text.replace("cct_s", "xxx_s", 1), "runs.csv:1: there is no column cct_s"),
    (lambda text: text.replace("seed", "algorithm", 1), "runs.csv:1: there is no column seed"),
    (lambda text: text.replace(",bound_s", ",flows", 1), "runs.csv:1: there are two columns 'flows'"),
    (lambda text: text.replace("emulated_over", "over", 1), "runs.csv:1: has a column explained, and no emulated_over"),
    (lambda text: text[:-30], "runs.csv:4: "),
    (
        lambda text: text.replace(",permutation", ',"permutation', 1),
        "runs.csv:4: not valid CSV: unexpected end",
    ),
    (lambda text: "", "runs.csv:1: there is no column run_id, nor traffic, scheme"),
]


@pytest.mark.parametrize(("change", "said"), RUNS)
def test_rows_that_are_wrong(folder: Path, change: Callable[[str], str], said: str) -> None:
    path = folder / "runs.csv"
    path.write_text(change(path.read_text()))
    assert refused(folder).startswith(said)


def test_rows_that_are_no_text(folder: Path) -> None:
    content = (folder / "runs.csv").read_bytes()
    (folder / "runs.csv").write_bytes(content.replace(b"permutation", b"permutati\xff\xfe", 2))
    assert refused(folder) == "runs.csv:2: is not UTF-8 text"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("run,why\na,b\n", "failed_runs.csv:1: there is no column run_id, nor reason, time"),
        ("run_id,reason,time\n[/red],b,c\n", "failed_runs.csv:2: run_id is '[/red]'; it takes"),
        ("run_id,reason,time\na,b\n", "failed_runs.csv:2: 2 values under 3 headings; its end may have been cut off"),
    ],
)
def test_failures_that_are_wrong(folder: Path, content: str, said: str) -> None:
    (folder / "failed_runs.csv").write_text(content)
    assert refused(folder).startswith(said)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b"PAR1"), "not a parquet file as spraylab writes it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "not a parquet file as spraylab writes it"),
        (lambda path: pd.DataFrame({"run_id": ["001-ecmp-s1"]}).to_parquet(path), "has no column "),
        (lambda path: shutil.copy(path.with_name("002-spray-s1.parquet"), path), "holds rows of another run than 001"),
        (
            lambda path: pd.read_parquet(path).astype({"tx_bytes": str}).to_parquet(path, index=False),
            "tx_bytes is not a column of numbers",
        ),
    ],
)
def test_frames_that_are_wrong(folder: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(folder / "links.parquet" / "001-ecmp-s1.parquet")
    assert refused(folder).startswith(f"links.parquet/001-ecmp-s1.parquet: {said}")


def test_a_last_line_without_its_end_is_whole_and_gets_it(folder: Path) -> None:
    from experiments.judge.rows import Judged

    (folder / "runs.csv").write_text((folder / "runs.csv").read_text().rstrip("\n"))
    opened = ResultsFolder.open(folder)
    before = opened.runs()
    text = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False).iloc[0].to_dict()
    opened.append(Judged({**text, "run_id": "009-ecmp-s9"}, {}))
    assert opened.runs().run_id.tolist() == [*before.run_id, "009-ecmp-s9"]


# Commands


def command(*words: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr(performing, "become_root", lambda: None)
    monkeypatch.setattr(performing, "conduct", lambda *_, **__: [])
    return CliRunner().invoke(cli.main, list(words))


COMMANDS = (("run", "--resume"), ("exec", "--resume"), ("report",), ("predict", "quick", "--results"))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize(
    "content",
    ['{"format": 1}', '{"format": 1, "experiment": null}', '{"format": 1, "experiment": {"fabric": null}}', "{"],
)
def test_every_command_ends_with_a_sentence(
    folder: Path, words: tuple[str, ...], content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "manifest.json").write_text(content)
    done = command(*words, str(folder), monkeypatch=monkeypatch)
    assert done.exit_code == 2, done.output
    [said] = done.output.splitlines()
    assert said.startswith(f"spraylab: {folder}/manifest.json:") and is_a_sentence(said)


@pytest.mark.parametrize("words", [COMMANDS[0], *COMMANDS[2:]], ids=lambda words: words[0])
@pytest.mark.parametrize("change", [RUNS[0][0], RUNS[6][0], RUNS[15][0]])
def test_every_command_says_which_row(
    folder: Path, words: tuple[str, ...], change: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "runs.csv").write_text(change((folder / "runs.csv").read_text()))
    done = command(*words, str(folder), monkeypatch=monkeypatch)
    assert done.exit_code == 2, done.output
    assert done.output.splitlines()[-1].startswith(f"spraylab: {folder}/runs.csv:")


def test_a_folder_without_its_log_goes_on(folder: Path) -> None:
    (folder / "run.log").unlink()
    with ResultsFolder.open(folder).in_use() as log:
        log.write(b"again\n")
    assert (folder / "run.log").read_text() == "again\n"


# Whatever the damage


@bounded
@given(data=st.data())
def test_any_damage_is_read_or_refused(data: st.DataObject, folder: Path, good: Path) -> None:
    name = data.draw(st.sampled_from(["manifest.json", "runs.csv", "failed_runs.csv"]))
    for each in ("manifest.json", "runs.csv", "failed_runs.csv"):
        shutil.copy(good / each, folder / each)
    spoil = spoilt_json if name.endswith(".json") else spoilt_csv
    (folder / name).write_bytes(data.draw(spoil((good / name).read_bytes())))
    try:
        everything(folder)
    except ResultsError as error:
        assert is_a_sentence(str(error)), str(error)


@settings(bounded, max_examples=40)
@given(data=st.data())
def test_any_damage_is_reported_or_refused(
    data: st.DataObject, folder: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every command, with figures and all."""
    for each in ("manifest.json", "runs.csv"):
        shutil.copy(good / each, folder / each)
    name = data.draw(st.sampled_from(["manifest.json", "runs.csv"]))
    spoil = spoilt_json if name.endswith(".json") else spoilt_csv
    (folder / name).write_bytes(data.draw(spoil((good / name).read_bytes())))
    words = data.draw(st.sampled_from([COMMANDS[0], COMMANDS[2], COMMANDS[3]]))
    done = command(*words, str(folder), monkeypatch=monkeypatch)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in (0, 2), done.output


def test_every_place_of_a_manifest_with_every_odd_value(folder: Path) -> None:
    """All of them, one by one."""
    content = {"format": 1, **manifest_of()}
    content["fabric"]["shaping"] = {"h1-eth0": content["fabric"]["shaping"]["h1-eth0"]}
    for path in places(content):
        for value in (*ODD_VALUES, ...):
            (folder / "manifest.json").write_text(json.dumps(with_value(content, path, value)))
            try:
                opened = ResultsFolder.open(folder)
                of_results(pd.DataFrame(), opened.manifest())
            except ResultsError as error:
                assert is_a_sentence(str(error)), str(error)
