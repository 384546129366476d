"""Whatever a file holds, its reader gives what it is for, or refuses in a sentence: soon, and in little memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from mutation import seeds, spoilt

from experiments.captures.decode import read_capture
from experiments.captures.files import CaptureError
from experiments.machine import calibration
from experiments.results.reading import DamageError, parse_manifest, parse_runs
from experiments.runs.loads.replays import Replays
from experiments.spec.experiment import load_experiment
from experiments.spec.messages import SpecError
from traffic.formats import FORMATS, FormatError

MOST_S = 2.0
MOST_BYTES = 10**9
LONGEST_SENTENCE = 600


class Reader(NamedTuple):
    """Reads a file of the name `file`; raises an error of `refuses` where it does not take it."""

    file: str
    read: Callable[[Path], object]
    refuses: type[Exception] = SpecError


def _planned(path: Path) -> object:
    return Replays(load_experiment(str(path))).runs


def _overridden(path: Path) -> object:
    """Every line is what somebody wrote behind `--set`."""
    lines = path.read_bytes().decode(errors="surrogateescape").split("\n")
    return Replays(load_experiment("quick", [line for line in lines if line])).runs


def _calibration(path: Path) -> object:
    return calibration.load()  # finds it in XDG_STATE_HOME; a damaged one is as good as none


def _schedule(key: str) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        form = FORMATS[key]
        schedule = form.read(path, **({"ranks": 4} if form.takes("ranks") else {}))
        assert len(schedule.order) == len(schedule.tasks)
        assert all(0 <= rank < schedule.ranks for flow in schedule.flows for rank in (flow.src, flow.dst))
        return schedule

    return read


READERS = {
    "experiment": Reader("exp.yaml", _planned),
    "set": Reader("set.txt", _overridden),
    "capture": Reader("capture.pcap", read_capture, CaptureError),
    "manifest": Reader("manifest.json", lambda path: parse_manifest(path.read_bytes()), DamageError),
    "runs": Reader("runs.csv", lambda path: parse_runs(path.read_bytes(), of_programs=False), DamageError),
    "calibration": Reader("spraylab/calibration.json", _calibration),
    **{key: Reader(f"traffic{each.suffix}", _schedule(key), FormatError) for key, each in FORMATS.items()},
}


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """No reader takes a gigabyte more than there is now: it fails with MemoryError instead."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def reads(reader: Reader, data: bytes, folder: Path) -> None:
    path = folder / reader.file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    started_s = time.monotonic()
    try:
        reader.read(path)
    except reader.refuses as refused:
        for line in str(refused).split("\n"):
            assert line.isprintable() and 0 < len(line) < LONGEST_SENTENCE, f"not a sentence: {line!r}"
    assert time.monotonic() - started_s < MOST_S, "took too long"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "machine", lambda: "this machine")  # of other machines' files, it reads no more
    (tmp_path / "perm.cm").write_bytes(seeds("matrix")[0])
    return tmp_path


@pytest.mark.parametrize("name", READERS)
def test_the_corpus_is_read_or_refused(name: str, folder: Path) -> None:
    for data in seeds(name):
        reads(READERS[name], data, folder)


@pytest.mark.parametrize("name", READERS)
def test_spoilt_files_are_read_or_refused(name: str, fuzzed: settings, folder: Path) -> None:
    @fuzzed
    @given(data=spoilt(name))
    def any_file(data: bytes) -> None:
        reads(READERS[name], data, folder)

    any_file()
