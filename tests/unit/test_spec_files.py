"""Files of every name and content: an experiment, or one helpful sentence."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from experiment_files import GOOD, QUICK, Load, sentence
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.spec.experiment import (
    CATALOG,
    Experiment,
    catalog_names,
    default_name,
    load_experiment,
    restore_experiment,
)
from experiments.spec.messages import SpecError

# Names


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my-test.1.yaml", "my-test.1"),
        ("Übung-1.yaml", "Ubung-1"),
        ("(copy) base.yaml", "copy-base"),
        ("_draft.yaml", "draft"),
        ("实验.yaml", "experiment"),
        (".yaml", "yaml"),
        ("x" * 200 + ".yaml", "x" * 100),
        ("[red].yml", "red"),
    ],
)
def test_an_experiment_without_a_name_is_called_as_its_file(
    file: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(GOOD.replace("name: test\n", ""))
    assert load_experiment(file).name == name


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=150))
def test_a_default_name_passes_its_own_check(stem: str) -> None:
    content = json.loads(QUICK) | {"name": default_name(stem)}
    assert restore_experiment(content, "x").name == default_name(stem)


# Files that are no experiment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "exp.yaml:1: the file is empty"),
        ("- 1\n", "exp.yaml:1: the file is not a mapping"),
        ("name: x\nfabric: [1\n", "exp.yaml:3: not valid YAML: "),
        ("name: x\nfabric: {leaves: 2\ntraffic: 3", "exp.yaml:3: not valid YAML: "),
        ("fabric:\n\tleaves: 2\n", "exp.yaml:2: not valid YAML: "),
        ("name: 'x\n", "exp.yaml:2: not valid YAML: "),
        ("name: *x\n", "exp.yaml:1: not valid YAML: found undefined alias 'x'"),
        ("name: x\n---\nname: y\n", "exp.yaml:2: not valid YAML: "),
        ("name: a\0b\n", "exp.yaml: not valid YAML: "),
        ("name: 2024-99-99\nfabric: {leaves: }}\n", "exp.yaml:2: not valid YAML: "),
        ("name: " + "[" * 1000, "exp.yaml: is nested too deeply"),
        ("fabric: &a {leaves: *a}\ntraffic: []\n", "exp.yaml:1: fabric"),
        ("fabric: &a\n  leaves:\n    - *a\n", "exp.yaml:1: fabric"),
    ],
)
def test_what_is_no_experiment_is_refused_in_a_sentence(load: Load, text: str, said: str) -> None:
    assert sentence(load, text).startswith(said)


STEPS = list(pairwise("abcdefgh"))
ALIASES = "".join(f"{name}: &{name} [{', '.join([f'*{below}'] * 10)}]\n" for below, name in STEPS)
MERGES = "".join(f"{name}: &{name} {{<<: [{', '.join([f'*{below}'] * 9)}]}}\n" for below, name in STEPS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: !!bool x\n", "exp.yaml:1: name: 'x' is not true or false"),
        ("name: !!float x\n", "exp.yaml:1: name: 'x' is not a number"),
        ("x: !!python/object:os.system y\n", "exp.yaml:1: x: has the tag '!!python/object"),
        ("{? [[]]: b}\n", "exp.yaml:1: the file has a key that is no plain word"),
        ("<<: !!set {a}\n", "exp.yaml:1: a: unknown key 'a'"),
        ("<<: 3\n", "exp.yaml:1: <<: merges what is no mapping"),
        ('name: a\nfabric: "\\ud800"\n', "exp.yaml:2: fabric: '\\ud800' is no text"),
        ("name: &a x\nfabric: &a y\n", "exp.yaml:1: traffic: is missing"),
        ("%YAML 1.1\n---\nname: yes\n", "exp.yaml:3: name: 'yes' is not true or false"),
        ("a: &a {<<: *a}\n", "exp.yaml:1: a: is nested too deeply"),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + ALIASES, "exp.yaml:"),
        ("a: &a {x: 1}\n" + MERGES, "exp.yaml:"),
        ("a: [" + "1," * 60_000 + "]", "exp.yaml:1: a: stands for more than 50000 keys and values"),
        ("a: [" + "1," * 80_000 + "]", "exp.yaml: is larger than the 131072 bytes that are read of such a file"),
        ("a: *" + "x" * 9000, "exp.yaml:1: not valid YAML: found undefined alias 'xxx"),
        ("name: " + "x" * 9000, "exp.yaml:1: name: 'xxxxxxxxxxxxxxxxxxxxx...' is not a name of at most 100"),
        ("x" * 900 + ": 1\n", "exp.yaml:1: 'xxxxxxxxxxxxxxxxxxxxx...': unknown key 'xxxxxxxxxxxxxxxxxxxxx...'"),
    ],
)
def test_what_no_constructor_could_make_is_refused_shortly_and_soon(load: Load, text: str, said: str) -> None:
    began = time.process_time()
    with pytest.raises(SpecError) as refused:
        load(text)
    assert time.process_time() - began < 2
    assert str(refused.value).startswith(said)
    assert all(len(line) < 250 for line in str(refused.value).splitlines())


def test_anchors_aliases_and_merges_mean_what_yaml_says(load: Load) -> None:
    text = GOOD.replace("fabric:\n", "fabric:\n  <<: [{queue: 1MB, leaves: 8}, {queue: 2MB, burst: 2}]\n")
    fabric = load(text.replace("  queue: 4MB\n", "")).fabric
    assert (fabric.queue_bytes, fabric.leaves, fabric.burst_frames) == (1_000_000, 4, 2)
    repeated = GOOD.replace("seeds:\n  - 1\n  - 2", "seeds: [&s 1, &s 2]").replace("name: test", "name: '1'")
    assert load(repeated).seeds == (1, 2)


def test_a_tab_gets_its_remedy(load: Load) -> None:
    assert sentence(load, "fabric:\n\tleaves: 2\n").endswith("indent with spaces, not tabs")


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "exp.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match=r"exp\.yaml: is not UTF-8 text"):
        load_experiment(str(tmp_path / "exp.yaml"))


@pytest.mark.parametrize("name", ["quik", "no/such/quick.yaml", "x" * 5000])
def test_a_missing_experiment_is_told_with_the_names_of_the_catalog(name: str) -> None:
    with pytest.raises(SpecError) as refused:
        load_experiment(name)
    assert str(refused.value).startswith(f"{name}: no such file, nor a name in the catalog (")
    assert ", ".join(catalog_names()) in str(refused.value)


def test_a_near_miss_of_a_name_is_guessed_and_a_folder_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean 'quick'"):
        load_experiment("quik")
    with pytest.raises(SpecError, match="is a directory; name an experiment's file"):
        load_experiment(str(tmp_path))


def test_a_name_of_the_catalog_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quick").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_experiment("quick") == load_experiment(str(CATALOG / "quick.yaml"))


# Whatever is written, it is an experiment or a sentence

plausible = st.sampled_from([1, 2, 4, 9000, True, "alltoall", "direct", "ecmp", "4MB", "20mbit", "1s", "fair", "none"])
scalars = st.one_of(st.none(), st.integers(-3, 70_000), st.floats(), st.text(max_size=5), plausible)
keys = st.sampled_from(["leaves", "spines", "collective", "matrix", "window", "windows", "seeds", "x"])
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
PATHS: list[tuple[str | int, ...]] = [(key,) for key in Experiment.model_json_schema()["properties"]]
PATHS += [("fabric", key) for key in ("leaves", "spines", "hosts_per_leaf", "host_rate", "fabric_rate", "mtu", "queue")]
PATHS += [("traffic", 1, key) for key in ("collective", "algorithm", "channels", "size", "chunks", "window", "order")]
PATHS += [("fabric", "dataplane"), ("fabric", "x"), ("traffic", 0), ("traffic", 1, "matrix"), ("traffic", 1, "shift")]
PATHS += [("schemes", 0), ("seeds", 1), ("transport", "windows"), ("transport", "x"), ("x",)]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(PATHS), plausible | scalars | nested), min_size=1, max_size=2))
def test_any_content_is_an_experiment_or_a_sentence(changes: list[tuple[tuple[str | int, ...], object]]) -> None:
    content = json.loads(QUICK)
    for (*parents, last), value in changes:
        with suppress(KeyError, IndexError, TypeError):  # the first change may have taken away the second one's place
            node: Any = content
            for step in parents:
                node = node[step]
            node[last] = value
    try:
        experiment = restore_experiment(content, "manifest.json")
    except SpecError as refused:
        assert all(line.startswith("manifest.json: ") for line in str(refused).splitlines())
        assert "Input should" not in str(refused) and "validation" not in str(refused)
    else:
        assert experiment.schedule(0, experiment.seeds[0]).flows
