"""The schema for editors admits what is read, refuses what no file may say, and knows all that is registered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from experiments.cli import main
from experiments.spec.experiment import CATALOG, STARTER, Experiment, load_experiment
from experiments.spec.fabric import FabricSpec
from experiments.spec.messages import SpecError
from experiments.spec.schema import EDITOR_LINE, SCHEMA_FILE, experiment_schema
from experiments.spec.yamlfile import read_yaml
from traffic.collectives import COLLECTIVES
from traffic.formats import FORMATS, Format
from traffic.formats.htsim import FORMAT
from traffic.schemes import SCHEMES

ROOT = Path(__file__).parents[2]
FILES = sorted([*CATALOG.glob("*.yaml"), *(ROOT / "experiments/examples").glob("*.yaml")])
FABRIC = {"leaves": 2, "spines": 2, "hosts_per_leaf": 2}
TRAFFIC = [{"collective": "alltoall"}]
SMALL: dict[str, Any] = {"fabric": FABRIC, "traffic": TRAFFIC}


def wrong(content: object) -> list[str]:
    """What the schema has against it."""
    return [error.message for error in jsonschema.Draft202012Validator(experiment_schema()).iter_errors(content)]


def is_read(content: dict[str, Any], folder: Path) -> bool:
    file = folder / "mine.yaml"
    file.write_text(json.dumps(content))  # JSON is YAML
    try:
        load_experiment(str(file))
    except SpecError:
        return False
    return True


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(experiment_schema())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_catalog_file_and_example_validates(file: Path) -> None:
    assert wrong(read_yaml(file).plain()) == []


def test_the_readmes_experiment_validates(tmp_path: Path) -> None:
    block = next(text for text in re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
    (tmp_path / "readme.yaml").write_text(block)
    assert wrong(read_yaml(tmp_path / "readme.yaml").plain()) == []


def test_what_is_written_back_validates() -> None:
    for file in FILES:
        assert wrong(load_experiment(str(file)).as_json()) == [], file


@pytest.mark.parametrize(
    "content",
    [
        {**SMALL, "fabrik": {}},
        {"traffic": TRAFFIC},
        {**SMALL, "traffic": []},
        {**SMALL, "traffic": [{"collective": "alltoal"}]},
        {**SMALL, "traffic": [{"collective": "allgather", "algorithm": "double-binary-tree"}]},
        {**SMALL, "traffic": [{"matrix": "x.cm", "size": "4MB"}]},
        {**SMALL, "schemes": ["flows"]},
        {**SMALL, "seeds": [-1]},
        {**SMALL, "placement": "loose"},
        {**SMALL, "replay": {"processes": 0}},
        {**SMALL, "fabric": {**FABRIC, "spines": 64}},
        {**SMALL, "fabric": {**FABRIC, "host_rate": 20}},
        {**SMALL, "fabric": {**FABRIC, "queue": "4mbit"}},
        {**SMALL, "stall_timeout": "10 minutes"},
        {**SMALL, "name": "a b"},
        {**SMALL, "strain": {"stain": "5%"}},
        {**SMALL, "sweep": {"seeds": [[1], [2]]}},
        {**SMALL, "sweep": {"strain.jitter": "5%"}},
        {**SMALL, "sweep": {"strain.jitter": []}},
    ],
    ids=lambda content: json.dumps(content)[-60:],
)
def test_what_no_file_may_say_is_refused_by_both(content: dict[str, Any], tmp_path: Path) -> None:
    assert wrong(content)
    assert not is_read(content, tmp_path)


quantities = st.builds(
    "{}{}{}".format,
    st.sampled_from(["1", "2.5", "10", "0", "-3", ""]),
    st.sampled_from(["", " "]),
    st.sampled_from(["mbit", "Gb/s", "kbit", "Mbps", "mbps", "MB", "kB", "MiB", "B", "ms", "s", "µs", ""]),
)
values = st.one_of(
    quantities,
    st.integers(-1, 70),
    st.booleans(),
    st.sampled_from([*COLLECTIVES, *(scheme.name for scheme in SCHEMES), "subflow-4", "ring", "auto", "x.cm"]),
    st.sampled_from([{"jitter": "5%"}, {"order": {"by": "shuffled"}}, {"stragglers": 1}, {"sizes": "x"}, None]),
    st.lists(st.one_of(st.integers(0, 9), st.sampled_from(["ecmp", "subflow-3"])), max_size=2),
)


def some_of(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), values, max_size=3)


@given(
    top=some_of([field.alias or name for name, field in Experiment.model_fields.items()]),
    fabric=some_of([field.alias or name for name, field in FabricSpec.model_fields.items()]),
    entry=some_of(["algorithm", "channels", "size", "chunks", "window", "order", "shift"]),
    collective=st.sampled_from(list(COLLECTIVES)),
)
def test_whatever_is_read_validates(
    top: dict[str, Any],
    fabric: dict[str, Any],
    entry: dict[str, Any],
    collective: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = {"fabric": FABRIC | fabric, "traffic": [{"collective": collective} | entry]} | top
    if is_read(content, tmp_path_factory.getbasetemp()):
        assert wrong(content) == []


def test_what_is_registered_later_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = {**SMALL, "traffic": [{"pairs": "two.csv"}]}
    assert wrong(pairs)
    monkeypatch.setitem(FORMATS, "pairs", Format("pairs", ".csv", "a list of pairs", FORMAT.read))
    assert wrong(pairs) == []


def test_every_key_says_what_is_right_for_it_and_defaults_are_as_a_file_has_them() -> None:
    schema = experiment_schema()
    properties = {**schema["properties"], **schema["$defs"]["FabricSpec"]["properties"]}
    assert all(about["description"] for about in properties.values())
    defaults = {key: about["default"] for key, about in properties.items() if "default" in about}
    assert defaults["host_rate"] == "20mbit" and defaults["queue"] == "4MB" and defaults["seeds"] == [1, 2, 3]
    fabric = {key: defaults[key] for key in schema["$defs"]["FabricSpec"]["properties"] if key in defaults}
    rest = {key: defaults[key] for key in schema["properties"] if key in defaults}
    written = Experiment.model_validate({"name": "x", **SMALL, **rest, "fabric": {**FABRIC, **fabric}})
    assert written == Experiment.model_validate({"name": "x", **SMALL})


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(main, ["schema"])
    assert done.exit_code == 0 and json.loads(done.output) == experiment_schema()


def test_starters_name_it() -> None:
    assert STARTER.read_text().splitlines()[0] == EDITOR_LINE + SCHEMA_FILE
