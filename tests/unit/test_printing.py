"""What is printed: every number whole, nothing in data taken for markup, an output that cannot be written."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import IO

import pandas as pd
import pytest
from capture_files import pcap_bytes, records_of, tcp_packet
from results_example import results_folder
from rich.console import RenderableType
from test_overview import runs_of

from experiments.cli import main
from experiments.commands import bench, output, performing
from experiments.commands.output import Console
from experiments.machine import calibrate
from experiments.results.overview import render
from experiments.results.tables import table_of_collectives, table_of_rows
from experiments.runs.loads.programs import Program, Programs
from experiments.runs.loads.replays import Replays
from experiments.runs.predict import beside_results, predict, prediction_table
from experiments.spec.experiment import Experiment, load_experiment

LONG = "all-to-all-of-a-mixture-of-experts-as-a-trace-of-ours-had-it"
assert len(LONG) == 60

FULL = Path("/dev/full")


def printed(renderable: RenderableType, width: int) -> str:
    stream = StringIO()
    Console(stream, width=width).show(renderable)
    return stream.getvalue()


def experiment(folder: Path) -> Experiment:
    """One whose only collective has a name of 60 characters."""
    (folder / f"{LONG}.cm").write_text("Nodes 16\nConnections 1\n0->5 id 1 start 0 size 2000000\n")
    (folder / "long.yaml").write_text(
        "fabric: {leaves: 4, spines: 4, hosts_per_leaf: 4, host_rate: 10mbit}\n"
        f"traffic: [{{matrix: {LONG}.cm}}]\nseeds: [1]\n"
    )
    return load_experiment(str(folder / "long.yaml"))


def prediction(folder: Path) -> RenderableType:
    return prediction_table(predict(experiment(folder), jitter=0.05))


def prediction_beside_results(folder: Path) -> RenderableType:
    frame = predict(experiment(folder))
    emulated = frame.assign(cct_s=1234.5 * frame.predicted_cct_s, fidelity="pass")
    return prediction_table(beside_results(frame, emulated))


def plan(folder: Path) -> RenderableType:
    return performing.plan_table(Replays(experiment(folder)))


def programs_plan(folder: Path) -> RenderableType:
    return performing.plan_table(Programs(experiment(folder), Program((LONG,), (0, 1), 3600.0)))


def answer(_folder: Path) -> RenderableType:
    return render(runs_of(LONG, retransmitted_segments=123_456, timeouts=12_345, drops_packets=1_234_567))


def answer_of_programs(_folder: Path) -> RenderableType:
    runs = runs_of(LONG).drop(columns=["cct_over_bound", "emulated_over_predicted", "explained"])
    return render(runs.assign(loaded_s=1234.56, duration_s=2345.67, wire_bytes=12_345_678_901))


def calibration(_folder: Path) -> RenderableType:
    row = {"dataplane": LONG, "hosts": 128, "burst_frames": 7, "rate_bps": 332_500_000, "total_bps": 42_560_000_000}
    return calibrate.table([{**row, "measured": "2030-01-02"}, {**row, "rate_bps": 0, "measured": "2030-01-03"}])


def accuracy(_folder: Path) -> RenderableType:
    numbers = ("cct_over_bound", "emulated_over_predicted", "least", "most", "predicted_low", "predicted_high")
    rows = [
        {"traffic": LONG, "scheme": scheme, **dict.fromkeys(numbers, 1.2345 + place), "explained": "3/3",
         "pass": f"{place}/3", "reasons": ""}
        for place, scheme in enumerate(("ecmp", "spray", "ethereal", "subflow-16"))
    ]  # fmt: skip
    return bench._table("accuracy", rows)


def benchmark(_folder: Path) -> RenderableType:
    rows = [{"tool": LONG, "version": "1.2.3", "packets": 123_456_789 + place, "time_s": 12.345 + place, "note": "none"}
            for place in range(3)]  # fmt: skip
    return bench._table("decode", rows)


TABLES = [
    *(prediction, prediction_beside_results, plan, programs_plan, answer, answer_of_programs),
    *(calibration, accuracy, benchmark),
]


def numbers_of(text: str) -> Counter[str]:
    return Counter(re.findall(r"\S*[0-9]\S*", text))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_no_table_cuts_a_number(table: Callable[[Path], RenderableType], tmp_path: Path) -> None:
    """A run's id is a name, and may go on below."""
    shown = table(tmp_path)
    narrow, wide = printed(shown, 80), printed(shown, 300)
    assert max(map(len, narrow.splitlines())) <= 80
    for text in (narrow, printed(shown, 40)):
        assert "…" not in text and "..." not in text
        lost = numbers_of(wide) - numbers_of(text)
        assert [word for word in lost if LONG[:8] not in word and "2345678901-s" not in word] == [], text
    letters = re.sub(r"[^a-z-]", "", narrow)
    for part in re.findall(r"[a-z]+-?", LONG):
        assert part.strip("-") in letters, "a name goes on below"


def test_names_that_differ_in_their_middle_stay_apart() -> None:
    names = [f"{LONG}-{middle}-{LONG}" for middle in ("first", "second")]
    text = printed(table_of_rows("runs", ["run", "CCT"], [[name, "1.25 s"] for name in names]), 80)
    assert "first" in text and "second" in text and text.count("1.25 s") == 2


def lines_of(names: list[str], columns: int, digits: int = 7) -> list[str]:
    """A table of a row a name, with so many numbers of so many digits behind it."""
    row = ["9" * digits] * columns
    text = printed(table_of_rows("", ["run", *"abcdefghij"[:columns]], [[name, *row] for name in names]), 80)
    return [line.rstrip() for line in text.splitlines() if "9" in line]


def test_columns_are_two_spaces_apart_where_there_is_room_for_a_name_of_twelve() -> None:
    """Nine numbers of five digits leave 80 - 9 x (5 + 2) = 17 columns, nine of six leave 8 of 80."""
    assert lines_of(["x" * 17], 9, 5) == [f"{'x' * 17}{'  99999' * 9}"]
    assert lines_of(["x" * 18], 9, 5) == [f"{'x' * 17}{'  99999' * 9}"], "no further than the 80th column"
    assert lines_of(["x" * 12], 4, 15) == [f"{'x' * 12}{'  999999999999999' * 4}"], "80 columns exactly"
    assert lines_of(["x" * 30], 9, 6) == [f"{'x' * 17}{' 999999' * 9}"], "a space apart, and the name has the rest"
    assert lines_of(["x"], 9, 6) == [f"{'x':3}{'  999999' * 9}"], "a short name needs no more than it is long"


def test_only_the_name_goes_on_below() -> None:
    text = printed(table_of_rows("", ["run", "time"], [["one two " * 15, "1.25 s 2.50 s"]]), 80)
    assert text.count("1.25 s 2.50 s") == 1 and len(re.findall("one", text)) == 15


MARKUP = ("[bold]", "[/red]", "[/]", "[link=x]y", ":smile:")


@pytest.mark.parametrize("name", MARKUP)
def test_nothing_in_data_is_markup(name: str) -> None:
    stream = StringIO()
    console = Console(stream, width=80)
    console.say(name, "red", f"{name}:")
    console.say(name, "bold")
    console.warn(name)
    console.show(table_of_collectives(name, ["scheme", name], [(name, [[name, "1"]])], name))
    console.show(table_of_rows(name, ["run", name], [[name, "1"]]))
    assert stream.getvalue().count(name) == 1 + 3 + 5 + 3 and "\x1b" not in stream.getvalue()


def test_what_moves_a_cursor_is_not_printed() -> None:
    stream = StringIO()
    console = Console(stream, width=80)
    console.say("a\x1b[2Jb \ud800")
    console.show(table_of_rows("t\x1b[1m", ["run", "n"], [["a\x1b[2Jb", "1\r2"]]))
    assert not re.search(r"[\x1b\r\ud800]", stream.getvalue())


MOVES = "a\x1b[2Jb\x9b1m\rc"


def test_names_in_files_and_arguments_move_no_cursor(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = results_folder(tmp_path / "results", ["alltoall"], seeds=(1,))
    pd.read_csv(folder.path / "runs.csv").assign(traffic=MOVES[:-2]).to_csv(folder.path / "runs.csv", index=False)
    (tmp_path / f"{MOVES}.csv").write_text("src,dst,bytes\n0,1,1000\n")
    for command in (
        ("show", str(folder.path)),
        ("show", str(folder.path), "--table", "nccl"),
        ("import", str(tmp_path / f"{MOVES}.csv"), "--out", str(tmp_path / f"{MOVES}.yaml")),
        ("import", str(tmp_path / f"{MOVES}.none")),
        ("init", str(tmp_path / MOVES / "mine")),
        ("show", MOVES),
        ("run", MOVES),
        ("predict", "quick", "--results", MOVES),
        ("run", "--resume", MOVES),
        ("report", MOVES),
        ("captures", MOVES),
    ):
        with pytest.raises(SystemExit) as ended:
            main(list(command), prog_name="spraylab")
        said = "".join(capfd.readouterr())
        assert ended.value.code == 2, said
        assert "a" in said and not re.search(r"[\x1b\x9b\r]", said), command


def test_a_quiet_console_prints_answers_and_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "QUIET_S", 0.01)
    stream = StringIO()
    console = Console(stream, quiet=True)
    console.note("how it goes")
    with console.waiting(lambda: "still at it"):
        for _ in console.counted(range(2), "counting", 2):
            time.sleep(0.05)
    console.warn("it is slow")
    console.say("it is enough")
    assert stream.getvalue() == "warning: it is slow\nit is enough\n"


def test_a_sentence_is_one_line_where_there_is_no_terminal() -> None:
    stream = StringIO()
    sentence = "word " * 100 + "end"
    Console(stream, width=80).say(sentence)
    assert stream.getvalue() == sentence + "\n"


def test_nothing_is_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "QUIET_S", 0.02)
    stream = StringIO()
    with Console(stream).waiting(lambda: "still at it"):
        deadline = time.monotonic() + 10
        while stream.getvalue().count("still at it") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stream.getvalue().count("still at it (") >= 2


def test_a_reminder_does_not_follow_what_was_just_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "QUIET_S", 60.0)
    stream = StringIO()
    console = Console(stream)
    with console.waiting(lambda: "still at it"):
        console.say("a run")
    assert stream.getvalue() == "a run\n"


def test_items_are_counted_without_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "QUIET_S", 0.02)
    stream = StringIO()
    items = []
    for item in Console(stream).counted(range(3), "predicting", 3):
        items.append(item)
        time.sleep(0.1)
    assert items == [0, 1, 2] and "predicting: 2 of 3" in stream.getvalue() and "\r" not in stream.getvalue()


# An output that cannot be written


@pytest.fixture
def full() -> Iterator[IO[str]]:
    with FULL.open("w") as stream:
        yield stream


_QUICK = ["quick", "--set", "seeds=[1]"]
PRINTING = {
    "help": ["--help"],
    "help of run": ["run", "--help"],
    "help of exec": ["exec", "--help"],
    "version": ["--version"],
    "predict": ["predict", *_QUICK, "--jitter", "0"],
    "predict --csv -": ["predict", *_QUICK, "--jitter", "0", "--csv", "-"],
    "run": ["run", "quick", "--dry-run"],
    "exec": ["exec", "quick", "--dry-run", "--", "true"],
    "captures": ["captures", "mine.pcap"],
    "doctor": ["doctor"],
    "doctor --json": ["doctor", "--json"],
    "report": ["report", "results"],
    "list": ["list"],
    "list --json": ["list", "--json"],
    "schema": ["schema"],
    "completion": ["completion", "bash"],
    "show": ["show", "results"],
    "show --table": ["show", "results", "--table", "nccl"],
    "show a name": ["show", "quick"],
    "init": ["init", "mine"],
    "import": ["import", "job.csv"],
}
"""Commands that need no root and only print."""


@pytest.mark.parametrize("command", PRINTING)
def test_a_full_disk_ends_what_only_prints_in_a_sentence(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], full: IO[str]
) -> None:
    results_folder(tmp_path / "results", ["permutation"], seeds=(1,))
    (tmp_path / "job.csv").write_text("src,dst,bytes\n0,1,1000\n")
    (tmp_path / "mine.pcap").write_bytes(pcap_bytes(records_of([tcp_packet()])))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(SystemExit) as ended:
        main(PRINTING[command], prog_name="spraylab")
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert said.splitlines()[-1] == "spraylab: standard output cannot be written: No space left on device"
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["version", "list", "show a name", "run"])
def test_so_it_does_without_a_buffer(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As PYTHONUNBUFFERED has it, which many containers set."""
    with FULL.open("wb", 0) as raw:
        monkeypatch.setattr(sys, "stdout", TextIOWrapper(raw, write_through=True))
        with pytest.raises(SystemExit) as ended:
            main(PRINTING[command], prog_name="spraylab")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "spraylab: standard output cannot be written: No space left on device\n"


def test_a_reader_that_has_gone_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as ended:
            main(["run", "quick", "--dry-run"], prog_name="spraylab")
    assert ended.value.code == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [["--help"], ["run", "nowhere-in-the-catalog"]])
def test_standard_error_that_cannot_be_written_changes_no_status(
    command: list[str], monkeypatch: pytest.MonkeyPatch, full: IO[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", full)
    with pytest.raises(SystemExit) as ended:
        main(command, prog_name="spraylab")
    assert ended.value.code == (0 if command == ["--help"] else 2)


def test_a_console_that_goes_on_tells_it_once(capsys: pytest.CaptureFixture[str], full: IO[str]) -> None:
    console = Console(full)
    console.go_on("the runs go on without it")
    for number in range(3):
        console.say(f"run {number}")
    assert console.lost
    [said] = capsys.readouterr().err.splitlines()
    assert said == ("spraylab: standard output cannot be written: No space left on device; the runs go on without it")


def test_closed_streams_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `>&-` leaves them."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as ended:
        main(["run", "quick", "--dry-run"], prog_name="spraylab")
    assert ended.value.code == 0
