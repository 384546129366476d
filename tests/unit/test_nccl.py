"""Runs as nccl-tests has them: its columns, its keys, and numbers that its readers can take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from results_example import manifest_of
from synthetic import healthy_run

from experiments.cli import main
from experiments.judge.rows import judge_replay
from experiments.results.folder import ResultsFolder

SIZE = 5_000_000
COLUMNS = ("size", "count", "type", "redop", "root", "time", "algbw", "busbw", "#wrong")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """AllToAll of 5 MB under two schemes and two seeds, and what nccl-tests knows nothing of."""
    made = ResultsFolder.create(tmp_path / "results", manifest_of())
    runs = [("alltoall", scheme, cct_s) for scheme in ("ecmp", "spray") for cct_s in (4.0, 4.2)]
    for number, (collective, scheme, cct_s) in enumerate([*runs, ("permutation", "ecmp", 1.0)]):
        judged = judge_replay(healthy_run(scheme), {"run_id": str(number), "traffic": collective, "scheme": scheme})
        rate_bps = SIZE * 8 / cct_s
        row = {"seed": number, "collective": collective, "size_bytes": SIZE, "cct_s": cct_s, "algbw_bps": rate_bps}
        made.append(replace(judged, row={**judged.row, **row, "busbw_bps": rate_bps * 15 / 16}))
    return str(made.path)


def shown(*words: str) -> str:
    done = CliRunner().invoke(main, ["show", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_table_has_the_columns_of_nccl_tests(folder: str) -> None:
    lines = shown(folder, "--table", "nccl").splitlines()
    heads = [line.split() for line in lines if line.startswith("#") and "size" in line]
    assert heads and all(
        head[1:] == ["size", "count", "type", "redop", "root", "time", "algbw", "busbw", "#wrong"] for head in heads
    )
    rows = [line.split() for line in lines if not line.startswith("#")]
    assert len(rows) == len(heads) == 2
    for size, count, kind, redop, root, time_us, algbw, busbw, wrong in rows:
        assert (int(size), int(count), kind, redop, root, wrong) == (SIZE, SIZE // 4, "int32", "none", "-1", "N/A")
        assert float(time_us) == pytest.approx(4.1e6)
        assert float(algbw) == pytest.approx(SIZE / 4.1e9, rel=0.01)
        assert float(busbw) == pytest.approx(SIZE / 4.1e9 * 15 / 16, rel=0.01)


def test_the_json_has_the_keys_of_nccl_tests_and_says_the_same(folder: str) -> None:
    content = json.loads(shown(folder, "--table", "nccl-json"))
    assert list(content) == ["version", "start_time", "args", "results", "out_of_bounds", "average_bus_bandwidth"]
    rows = [line.split() for line in shown(folder, "--table", "nccl").splitlines() if not line.startswith("#")]
    for each, row in zip(content["results"], rows, strict=True):
        assert [str(each[key]) for key in COLUMNS[:5]] == row[:5]
        assert each["in_place"]["bus_bw"] == pytest.approx(float(row[7]), rel=0.01) and each["out_of_place"] is None
