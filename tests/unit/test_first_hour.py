"""The first hour of three people, by the commands of docs/start.md as they are typed; no fabric is built."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments.cli import main

START = (Path(__file__).parents[2] / "docs" / "start.md").read_text()


def commands(aim: str) -> list[list[str]]:
    """What stands in the block below a heading, without the launcher's name."""
    block = re.search(rf"^### {aim}$.*?```sh\n(.*?)```", START, re.DOTALL | re.MULTILINE)
    assert block, aim
    return [shlex.split(line, comments=True)[1:] for line in block[1].splitlines()]


def typed(words: list[str]) -> str:
    done = CliRunner().invoke(main, words, prog_name="spraylab", env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


@pytest.fixture(autouse=True)
def folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_one_reproduces_the_paper() -> None:
    (predict,) = commands("Reproduce the paper")
    said = typed(predict)
    assert "By theory, no need for packet spraying on this fabric" in said
    assert "256 hosts, links of 400gbit and 400gbit" in said


def test_one_judges_a_fabric_of_ones_own() -> None:
    init, predict, run = commands("Judge my own fabric")
    typed(init)
    assert Path("mine.yaml").is_file()
    said = typed(predict)
    assert "64 hosts" in said and "a leaf is oversubscribed 2:1" in said and "By theory, no need for" in said
    assert run[-1] == "--dry-run"
    said = typed(run)
    assert "18 runs" in said and "nothing was built" in said


def test_one_uses_it_in_ci() -> None:
    (run,) = commands("Use it in CI")
    assert {"--fail-on", "--junit"} <= set(run)
    said = typed([*run, "--dry-run"])
    assert "9 runs" in said and "nothing was built" in said
    refused = CliRunner().invoke(main, [*run, "--fail-on", "rain"])
    assert refused.exit_code == 2 and "rain" in refused.output
