"""The documentation: its tables have what registries have, its links lead somewhere, and its commands are right."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from ruamel.yaml import YAML
from test_cli import check_example

from experiments.commands.list import KINDS
from experiments.judge.invariants import INVARIANTS
from experiments.results.columns import RUNS
from experiments.spec.described import MEANINGS, described_keys
from traffic.schemes import clauses

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def hook() -> ModuleType:
    found = importlib.util.spec_from_file_location("made", DOCS / "made.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


MADE = hook()


def page(name: str) -> str:
    text: str = MADE.filled((DOCS / f"{name}.md").read_text())
    return text


def test_tables_have_all_that_is_registered() -> None:
    for name, says in clauses().items():
        assert f"| `{name}` | {says} |" in page("schemes")
    for invariant in INVARIANTS:
        assert f"| **{invariant.name}** | {invariant.says} |" in page("invariants")
    for column, says in RUNS.items():
        assert f"| `{column}` | {says} |" in page("columns")
    for key in described_keys():
        assert f"| `{key.path}` | {key.means} |" in page("keys")


def test_a_table_that_there_is_not_is_an_error() -> None:
    with pytest.raises(KeyError):
        MADE.filled("<!-- made: nothing -->")


def test_every_key_says_what_it_is_for_and_what_it_takes() -> None:
    known = {key.path: key for key in described_keys()}
    assert [path for path, key in known.items() if not key.means or not key.takes] == []
    assert sorted(set(MEANINGS) - set(known)) == [], "no meaning of a key that is gone"
    assert known["fabric.host_rate"].default == "20mbit" and "[1, 2, 3]" in known["seeds"].default


def test_a_table_is_not_ended_by_what_a_cell_says() -> None:
    assert MADE.table(["a", "b"], [["x|y", "z"]]).splitlines()[-1] == "| x\\|y | z |"


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(file: Path) -> None:
    text = re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)
    for picture, target in re.findall(r"(!?)\[[^]]*\]\(([^)]+)\)", text):
        if target.startswith("http"):
            assert not picture, f"{target} would be loaded from elsewhere"
            continue
        path = target.partition("#")[0]
        assert not path or (file.parent / path).exists(), target


def test_every_page_is_in_the_table_of_contents() -> None:
    with (ROOT / "mkdocs.yml").open() as file:
        contents = YAML(typ="safe", pure=True).load(file)["nav"]
    listed = re.findall(r"[\w-]+\.md", str(contents))
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md"))


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_commands_are_as_the_command_line_has_them(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", file.read_text().replace("\\\n", " "), re.DOTALL)
    for line in (line for block in blocks for line in block.splitlines()):
        if line.startswith("./spraylab ") and "..." not in line:
            check_example(line)


def test_an_action_names_its_inputs_as_its_page_does() -> None:
    with (ROOT / "action.yml").open() as file:
        action = YAML(typ="safe", pure=True).load(file)
    documented = re.findall(r"^\| `([\w-]+)` \| .* \|$", (DOCS / "ci.md").read_text(), re.MULTILINE)
    assert documented == list(action["inputs"]) and action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        assert "${{" not in step.get("run", ""), "what people write is no part of a shell program"
        assert "uses" in step or step["shell"] == "bash"


assert set(MADE.MADE) <= set(KINDS), "whatever the site makes, `spraylab list` prints too"
