"""Help pages: complete, readable at 80 columns, and with examples that work."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from experiments.cli import main
from experiments.commands.bench import BENCHMARKS
from experiments.commands.common import foot
from experiments.spec.experiment import load_experiment
from experiments.spec.messages import SpecError

COLUMNS = 80
PAGES = ["", *main.commands]


def page_of(command: str) -> str:
    done = CliRunner().invoke(main, [*command.split(), "--help"], prog_name="spraylab", env={"COLUMNS": str(COLUMNS)})
    assert done.exit_code == 0, done.output
    return done.output


def block(page: str, title: str) -> list[str]:
    """The lines below a heading, to the next empty one."""
    lines = [line.strip() for line in page.splitlines()]
    start = lines.index(f"{title}:") + 1
    return lines[start : lines.index("", start)] if "" in lines[start:] else lines[start:]


def check_example(line: str) -> None:
    """Parsed as the command would; nothing is run. Raises UsageError, or SpecError for what no experiment has."""
    ours, *_ = re.split(" [>|]", line[line.index("spraylab") :])  # where output goes is the shell's to know
    words = shlex.split(ours, comments=True)[1:]
    if words[-1] == "--help":
        words.pop()
    command = main.commands.get(words[0])
    if command is None:
        raise click.UsageError(f"no such command: {words[0]}")
    values = command.make_context(words[0], words[1:]).params
    for experiment in filter(None, (values.get("experiment"), *values.get("experiments", ()))):
        if not experiment.endswith(".yaml"):
            load_experiment(experiment, values["overrides"])


@pytest.mark.parametrize("command", PAGES)
def test_help_fits_the_terminal(command: str) -> None:
    assert [line for line in page_of(command).splitlines() if len(line) > COLUMNS] == []


@pytest.mark.parametrize("command", PAGES)
def test_help_has_examples_that_work(command: str) -> None:
    examples = block(page_of(command), "Examples")
    assert len(examples) >= 2
    for line in examples:
        assert f"spraylab {command}" in line
        check_example(line)


@pytest.mark.parametrize(
    "line",
    [
        "spraylab walk quick",
        "spraylab run quick --outt results/mine",
        "spraylab run quick --set fabric.spin=8",
        "spraylab run nowhere-in-the-catalog",
        "spraylab bench everything",
        "spraylab exec quick",
        "spraylab predict",
    ],
)
def test_an_example_that_would_not_work_is_noticed(line: str) -> None:
    with pytest.raises((click.UsageError, SpecError)):
        check_example(line)


@pytest.mark.parametrize("command", PAGES)
def test_help_says_what_exit_statuses_mean(command: str) -> None:
    statuses = [line.split()[0] for line in block(page_of(command), "Exit status")]
    assert {"0", "2", "130"} <= set(statuses)
    assert len(set(statuses)) == len(statuses)


@pytest.mark.parametrize("command", main.commands)
def test_help_explains_every_option_and_is_whole_in_the_list(command: str) -> None:
    for option in main.commands[command].params:
        if isinstance(option, click.Option):
            assert option.help, f"{command} {option.opts[0]}"
    [line] = [line for line in page_of("").splitlines() if line.startswith(f"  {command} ")]
    assert line.endswith(".") and not line.endswith("..."), "the first sentence fits"


def test_every_benchmark_is_described() -> None:
    described = [line.split()[0] for line in page_of("bench").splitlines() if line.startswith("    ")]
    assert set(BENCHMARKS) <= set(described)


def test_foot_keeps_a_commands_own_words() -> None:
    assert block(foot({"0": "fine", "2": "no test was run"}), "Exit status") == [
        "0    fine", "2    no test was run", "130  interrupted; by another signal, 128 + its number",
    ]  # fmt: skip


def test_run_says_what_its_verdict_is_good_for() -> None:
    page = page_of("run")
    assert any(line.startswith("DIR/verdict.json ") for line in block(page, "Files"))
    assert any(line.startswith("3 ") and "--fail-on" in line for line in block(page, "Exit status"))


def test_smoke_is_an_option_and_the_rest_goes_to_pytest() -> None:
    values = main.commands["test"].make_context("test", ["-x", "tests/unit", "--smoke", "-k", "ring"]).params
    assert values == {
        "smoke": True,
        "fuzz": False,
        "storm": False,
        "pytest_arguments": ("-x", "tests/unit", "-k", "ring"),
    }
