"""`spraylab import`: what a file holds, and an experiment that replays it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from format_files import DATA, EXAMPLES, GOAL

from experiments.cli import main
from experiments.spec.experiment import load_experiment
from traffic.formats import FORMATS


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["import", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


@pytest.mark.parametrize("key", sorted(FORMATS))
def test_what_is_written_is_an_experiment_with_the_files_traffic(key: str) -> None:
    file = Path(f"mine{FORMATS[key].suffix}")
    file.write_text(EXAMPLES[key])
    status, said = run(str(file), "--format", key)
    assert status == 0 and "written: mine.yaml" in said
    experiment = load_experiment("mine.yaml")
    entry = experiment.traffic[0]
    assert entry.key == key
    options = {"ranks": 16} if FORMATS[key].takes("ranks") else {}
    plain = FORMATS[key].read(file, **options)
    replayed = experiment.schedule(0, 1)
    assert [(flow.src, flow.dst) for flow in replayed.flows] == [(flow.src, flow.dst) for flow in plain.flows]
    assert replayed.ranks <= experiment.fabric.shape().hosts


def test_a_job_is_told_by_its_collectives_bytes_and_computing() -> None:
    Path("job.txt").write_text(DATA)
    status, said = run("job.txt", "--ranks", "8", "--set", "unit=us", "--set", "iterations=2")
    assert status == 0
    told = {line.split(":")[0].strip(): line.partition(":")[2].strip() for line in said.splitlines()}
    assert told["collectives"] == "4 allreduce of 24580B among 8"
    assert told["computing"] == "at most 0.00015 s by a rank (rank 0)"
    # The update of the last layer's gradients is hidden in either pass, and that of the first before the second.
    assert told["critical path"] == "0.000146 s of computing, if all were sent in no time"
    assert told["repaired"] == "nothing"


def test_a_collective_of_no_bytes_and_of_a_name_that_is_not_known_is_left_out_and_counted() -> None:
    Path("job.txt").write_text(DATA.replace("NONE 0", "ALLGATHER_DP_EP 0", 1))
    status, said = run("job.txt", "--ranks", "8")
    assert status == 0 and "is left out, 1 in all ('ALLGATHER_DP_EP')" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("none.txt",), "none.txt: cannot be read: No such file or directory"),
        (("tree.goal", "--format", "gaol"), "--format: unknown format 'gaol': use one of matrix, table"),
        (("tree.goal", "--network", "fast"), "--network: 'fast' is not a rate"),
        (("tree.goal", "--set", "receives=late"), "--set receives: 'late' is not one of eager, rendezvous"),
        (("tree.goal", "--set", "x=1"), "--set: no format has all of the keys 'x'"),
        (("tree.goal", "--set", "x"), "--set x: write KEY=VALUE, such as unit=us"),
        (("tree.goal", "--set", "receives=2001-13-45"), "--set receives: "),
        (("tree.goal", "--set", "receives=" + "[" * 3000), "the value is not valid YAML"),
        (("tree.goal", "--set", "receives=!!python/name:os.system x"), "!!python"),
        (("tree.goal", "--out", "there.yaml"), "there.yaml: is there already; name another file with --out"),
        (("cut.txt",), "cut.txt:2: the file says 9 layers and has 1: they must be as many"),
        (("odd.txt",), "odd.txt: is of none of the formats hpcc, astra"),
    ],
)
def test_what_cannot_be_imported_is_said_in_a_sentence(words: tuple[str, ...], sentence: str) -> None:
    Path("tree.goal").write_text(GOAL)
    Path("there.yaml").write_text("mine")
    layer = "a -1 1 NONE 0 1 NONE 0 1 ALLGATHER_DP_EP 8 1"
    Path("cut.txt").write_text(f"HYBRID_TRANSFORMER model_parallel_NPU_group: 2 ep: 2\n9\n{layer}\n")
    Path("odd.txt").write_text("nothing that is known\n")
    status, said = run(*words)
    assert status == 2 and sentence in said and said.count("\n") == 1
    assert Path("there.yaml").read_text() == "mine"
