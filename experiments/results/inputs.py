"""The files that an experiment is made of, copied into its results folder: it goes on wherever it is moved to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emulator.inputs import InputError, quote, read_input
from experiments.results.folder import INPUTS, MANIFEST, MOST_BYTES, ResultsError, ResultsFolder
from experiments.spec.experiment import Experiment, restore_experiment
from experiments.spec.messages import SpecError
from experiments.spec.sweep import Sweep
from experiments.spec.traffic import TrafficEntry
from traffic.formats import FORMATS

_EXPERIMENT = "experiment.yaml"


def begun(path: Path, manifest: Mapping[str, Any], experiment: Experiment, file: Path | None = None) -> ResultsFolder:
    """Make a results folder at `path` with copies of `file`, which `experiment` was read from, and of all it names.

    `manifest` gets the experiment as it reads the copies, and of each copy `origin` and `sha256`. Raises SpecError
    where a file cannot be read any more, and ResultsError.
    """
    copies = _Copies()
    if file:
        copies.add(file, _EXPERIMENT)
    content = experiment.as_json()
    for entry, written in zip(experiment.traffic, content["traffic"], strict=True):
        _copy(entry, written, copies)
    sweep: Sweep | None = experiment.sweep
    if sweep:
        content["sweep"] = sweep.with_files(lambda path: copies.add(Path(path), Path(path).name)).as_json()
    about = {"inputs": copies.described} if copies.described else {}
    return ResultsFolder.create(path, {**manifest, "experiment": content, **about}, copies.contents)


def _copy(entry: TrafficEntry, written: dict[str, Any], copies: _Copies) -> None:
    """Copy the files of an entry and of all it is made of, and have what is `written` of it name the copies."""
    if entry.file:
        written[entry.key] = copies.add(entry.file, entry.file.name)
    for part, inner in zip(entry.parts, written[entry.key] if entry.parts else (), strict=True):
        _copy(part, inner, copies)


class _Copies:
    """Files by their places in a results folder: two of the same name are in folders of their own."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.described: dict[str, dict[str, str]] = {}
        self._places: dict[Path, str] = {}

    def add(self, path: Path, name: str) -> str:
        """Read a file, unless it has been, and return its place."""
        path = path.absolute()
        if path not in self._places:
            place = f"{INPUTS}/{name}"
            if place in self.contents:
                place = f"{INPUTS}/{len(self.contents) + 1}/{name}"
            try:
                content = read_input(path, MOST_BYTES)
            except InputError as error:
                raise SpecError(f"{path}: {error}") from error
            self._places[path], self.contents[place] = place, content
            self.described[place] = {"origin": str(path), "sha256": hashlib.sha256(content).hexdigest()}
        return self._places[path]


def restored(folder: ResultsFolder) -> Experiment:
    """Return the experiment that a results folder was begun with, as it reads the copies there.

    Raises ResultsError where one is missing or has changed, and SpecError where the experiment is none.
    """
    manifest, source = folder.manifest(), folder.path / MANIFEST
    known = manifest.get("inputs", {})
    for where, place in _files(manifest["experiment"]):
        if Path(place).is_absolute():
            continue  # as before there were copies
        if place not in known:
            raise ResultsError(f"{source}: experiment.{where} is {quote(place)}, none of its inputs")
        _check(folder, place, **known[place])
    return restore_experiment(manifest["experiment"], str(source), folder.path)


def _files(experiment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every file that is named in an experiment's traffic and sweep, as it is written, after its place."""
    for number, entry in enumerate(_list(experiment.get("traffic"))):
        yield from _named(f"traffic.{number}", entry)
    sweep = experiment.get("sweep")
    for key, values in sweep.items() if isinstance(sweep, dict) else ():
        for value in _list(values):
            yield from _named(f"sweep.{key}", value)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _named(where: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the files in what is written at `where`, a path of keys."""
    if isinstance(value, str):
        if where.rpartition(".")[2] in FORMATS:
            yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _named(f"{where}.{key}", inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _named(f"{where}.{number}", inner)


def _check(folder: ResultsFolder, place: str, origin: str, sha256: str) -> None:
    content = folder.input(place)
    if content is None:
        raise ResultsError(
            f"{folder.path / place} is missing: it is the copy of {quote(origin, 200)}, which the runs are made from; "
            "copy all of the folder that this one is from"
        )
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ResultsError(
            f"{folder.path / place} is not as it was copied, so that runs from now on would send something else: "
            "put it back, or start again with another --out"
        )
