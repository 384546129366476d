"""What is at hand: lists, a file to begin with, results shown again, what a shell completes, several experiments."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from results_example import results_folder

from experiments.cli import main
from experiments.commands.common import FAILED
from experiments.commands.list import KINDS
from experiments.commands.performing import one_after_another
from experiments.judge.invariants import INVARIANTS
from experiments.spec.experiment import (
    CATALOG,
    STARTER,
    Experiment,
    TransportSpec,
    catalog_names,
    load_experiment,
)
from experiments.spec.fabric import FabricSpec
from experiments.spec.fields import keys
from experiments.spec.traffic import kinds
from traffic.collectives import COLLECTIVES
from traffic.formats import FORMATS
from traffic.schemes import SCHEMES
from traffic.strain import STRAINS

ROOT = Path(__file__).parents[2]


def spraylab(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="spraylab", env={"COLUMNS": "200"})


def refused(*arguments: str) -> str:
    """The one sentence with which a command ends that was wrong."""
    done = spraylab(*arguments)
    assert done.exit_code == 2 and done.stdout == "", done.output
    [line] = done.stderr.splitlines()
    return line


# list


def listed(kind: str) -> dict[str, str]:
    done = spraylab("list", kind, "--json")
    assert done.exit_code == 0
    [entries] = json.loads(done.output).values()
    return {entry["name"]: entry["says"] for entry in entries}


def test_all_that_is_registered_is_listed() -> None:
    assert list(listed("catalog")) == catalog_names()
    assert list(listed("collectives")) == list(COLLECTIVES)
    assert {scheme.name for scheme in SCHEMES} <= set(listed("schemes"))
    assert list(listed("formats")) == list(FORMATS)
    assert list(listed("traffic")) == list(kinds())
    assert list(listed("strains")) == [strain.key for strain in STRAINS]
    assert list(listed("invariants")) == [invariant.name for invariant in INVARIANTS]


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_is_a_line_that_says_something(kind: str) -> None:
    lines = spraylab("list", kind).output.splitlines()
    assert len(lines) == len(listed(kind)) > 0
    for line, (name, says) in zip(lines, listed(kind).items(), strict=True):
        assert re.fullmatch(rf"{re.escape(name)} +{re.escape(says)}", line)
        assert says and "\n" not in says


def test_the_whole_list_is_the_lists_of_all_kinds() -> None:
    whole = spraylab("list").output.splitlines()
    for kind in KINDS:
        assert f"{kind}: {KINDS[kind].says}" in whole
        assert {line.strip() for line in spraylab("list", kind).output.splitlines()} <= {line.strip() for line in whole}
    assert list(json.loads(spraylab("list", "--json").output)) == list(KINDS)


# init


def test_a_starter_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert spraylab("init").exit_code == 0
    assert Path("mine.yaml").read_text() == STARTER.read_text()
    assert load_experiment("mine.yaml").name == "mine"
    done = spraylab("run", "mine.yaml", "--dry-run")
    assert done.exit_code == 0 and "will fail fidelity" not in done.output
    assert json.loads(Path("spraylab.schema.json").read_text()) == json.loads(spraylab("schema").output)


def test_a_starter_is_called_as_its_file(tmp_path: Path) -> None:
    assert spraylab("init", str(tmp_path / "a.1")).exit_code == 0
    assert load_experiment(str(tmp_path / "a.1.yaml")).name == "a.1"
    assert spraylab("init", str(tmp_path / "b.yml")).exit_code == 0
    assert load_experiment(str(tmp_path / "b.yml")).name == "b"


def test_init_never_replaces_a_file(tmp_path: Path) -> None:
    mine, schema = tmp_path / "mine.yaml", tmp_path / "spraylab.schema.json"
    mine.write_text("precious")
    assert "is already there, and left as it is" in refused("init", str(mine))
    assert mine.read_text() == "precious" and not schema.exists()
    schema.write_text("precious too")
    assert spraylab("init", str(tmp_path / "other")).exit_code == 0
    assert schema.read_text() == "precious too"
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nowhere")
    assert "is already there" in refused("init", str(tmp_path / "dangling"))
    assert not (tmp_path / "nowhere").exists()


def test_init_says_what_is_wrong_with_a_place(tmp_path: Path) -> None:
    assert "no folder that there is" in refused("init", str(tmp_path / "away/mine"))
    assert "is no name of a file" in refused("init", "a\nb")
    assert "cannot be written" in refused("init", str(tmp_path / ("x" * 300)))


def test_the_starter_names_every_key_there_is() -> None:
    text = STARTER.read_text()
    missing = [key for model in (Experiment, FabricSpec, TransportSpec) for key in keys(model) if f"{key}:" not in text]
    assert missing == []


def test_what_the_starter_has_behind_a_sign_may_be_written(tmp_path: Path) -> None:
    """Without the sign, every line that is a key is what holds anyway, but for more traffic and what strains it."""
    shutil.copy(CATALOG / "perm_16n_16c_2MB.cm", tmp_path / "mine.cm")
    lines = [re.sub(r"^( *)# (?=( *)[-a-z_]+:|- \{)", r"\1", line) for line in STARTER.read_text().splitlines()[1:]]
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    written, plain = load_experiment(str(tmp_path / "mine.yaml")), load_experiment(str(STARTER))
    assert len(written.traffic) == len(plain.traffic) + 2
    assert [strain.key for strain in written.strains] == ["jitter"]
    assert [entry.kind for entry in written.faults] == ["degrade"]
    usual: dict[str, object] = {"traffic": plain.traffic, "name": plain.name, "strain": None, "faults": ()}
    usual |= {"reaction": None, "sweep": None}
    assert written.fabric.failed == ("leaf1-spine2",) and list(written.fabric.spine_rates or ()) == ["spine1"]
    usual["fabric"] = written.fabric.model_copy(update={"spine_rates": None, "failed": ()})
    assert written.model_copy(update=usual).as_json() == plain.as_json()


# show


def test_results_are_shown_again(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", failed=["001"])
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    done = spraylab("show", str(folder.path))
    assert done.exit_code == 0
    assert "permutation" in done.stdout and "CCT" in done.stdout
    assert "no need for packet spraying" in done.stdout.lower()
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before, "nothing is written"


def test_a_threshold_changes_what_is_shown(tmp_path: Path) -> None:
    folder = str(results_folder(tmp_path / "results").path)
    assert "Plain ECMP is enough" in spraylab("show", folder, "--within", "90%").stdout
    assert "Plain ECMP is enough" not in spraylab("show", folder).stdout


@pytest.mark.parametrize("name", catalog_names())
def test_a_file_of_the_catalog_is_shown(name: str) -> None:
    assert spraylab("show", name).stdout == (CATALOG / f"{name}.yaml").read_text()


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    assert "did you mean 'quick'?" in refused("show", "quik")
    assert "is no results folder" in refused("show", str(tmp_path))
    assert "has no verdict" in refused("show", "quick", "--within", "5%")


# completion, version


def completed(line: str) -> list[str]:
    """What bash would offer after `line`, asked as the script asks."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "_SPRAYLAB_COMPLETE": "bash_complete"}
        | {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return [offer.partition(",")[2] if not offer.startswith("file") else "FILE" for offer in done.stdout.split()]


def test_commands_options_choices_and_the_catalog_are_completed() -> None:
    assert completed("spraylab sh") == ["show", "shell"]
    assert completed("spraylab run --res") == ["--resume"]
    assert completed("spraylab run qu") == ["quick"]
    assert completed("spraylab run quick sca") == ["scale-16x16", "scale-65536"]
    assert completed("spraylab predict my") == ["FILE"]
    assert completed("spraylab list sch") == ["schemes"]
    assert completed("spraylab run quick --fail-on f") == ["fidelity"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_takes_the_script_and_completes_by_it(tmp_path: Path) -> None:
    program = tmp_path / "spraylab"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m experiments.cli "$@"\n')
    program.chmod(0o755)
    script = f"""{spraylab("completion", "bash").stdout}
COMP_WORDS=(spraylab run qu) COMP_CWORD=2
_spraylab_completion {program}
echo "${{COMPREPLY[@]}}"
complete -p spraylab
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[0] == "quick"
    assert "_spraylab_completion" in done.stdout.splitlines()[1]


@pytest.mark.parametrize(("shell", "sign"), [("zsh", "#compdef spraylab"), ("fish", "complete --no-files --command")])
def test_other_shells_get_a_script(shell: str, sign: str) -> None:
    assert sign in spraylab("completion", shell).stdout


def test_version_is_short_and_long() -> None:
    assert spraylab("-V").stdout == spraylab("--version").stdout != ""


# Several experiments


def ends(status: int | str | None, done: list[str], name: str) -> Callable[[], None]:
    def perform() -> None:
        done.append(name)
        if status is not None:
            sys.exit(status)

    return perform


def test_experiments_follow_each_other_whatever_comes_of_one() -> None:
    done: list[str] = []
    one_after_another([ends(None, done, "a"), ends(0, done, "b")])
    with pytest.raises(SystemExit) as ended:
        one_after_another([ends(None, done, "c"), ends(3, done, "d"), ends(FAILED, done, "e")])
    assert ended.value.code == 3 and done == ["a", "b", "c", "d", "e"]


def test_an_interruption_ends_all_experiments() -> None:
    done: list[str] = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one_after_another([ends(None, done, "a"), interrupted, ends(None, done, "b")])
    assert done == ["a"]


def test_several_experiments_are_planned_and_checked_before_the_first_begins(tmp_path: Path) -> None:
    done = spraylab("run", "quick", str(STARTER), "--dry-run")
    assert done.exit_code == 0
    assert "quick: 27 runs" in done.stdout and "starter: 18 runs" in done.stdout
    assert "65536 hosts" in refused("run", "quick", "scale-65536", "--dry-run")
    assert "no such file" in refused("run", "quick", str(tmp_path / "none.yaml"))
    assert spraylab("run", "quick", "quick", "--out", "x").exit_code == 2
