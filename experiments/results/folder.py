"""The results folder: written after every run, so that an interruption loses nothing that had finished.

manifest.json       what was asked, and on what it ran
runs.csv            one row a run
verdict.json        what follows from them, as keys for programs: `experiments.results.sentences.as_json`
failed_runs.csv     runs that did not finish, when and why; gone once all have
flows.parquet/, subflows.parquet/, links.parquet/, queues.parquet/
                    one file a run in each; pandas.read_parquet reads the folder as one frame
captures/           packet captures, a folder a run; captured_*.parquet/ is what was found in them
run.log             what the daemons said
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from emulator.caller import as_caller
from experiments.judge.rows import Judged
from experiments.results.cells import guarded, unguarded

FORMAT_VERSION = 1
RUNS, MANIFEST, LOG, CAPTURES = "runs.csv", "manifest.json", "run.log", "captures"
FAILED_RUNS, VERDICT = "failed_runs.csv", "verdict.json"
_FAILED_COLUMNS = ["run_id", "reason", "time"]
_TEXT = (
    *("run_id", "experiment", "scheme", "traffic", "collective", "algorithm", "dataplane"),
    *("explained", "fidelity", "fidelity_reasons"),
)


class ResultsError(Exception):
    """The folder cannot be written or read; one sentence."""


class ResultsFolder:
    """A results folder, for whoever writes it and whoever reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, manifest: Mapping[str, Any]) -> ResultsFolder:
        """Raises ResultsError where it cannot be written or already holds results."""
        folder = cls(path)
        with folder._writing():
            path.mkdir(parents=True, exist_ok=True)
            try:
                if (path / RUNS).exists() or (path / MANIFEST).exists():
                    raise FileExistsError
                (path / LOG).touch(exist_ok=False)  # whoever makes it has the folder
            except FileExistsError:
                raise ResultsError(
                    f"{path} already holds results: name another --out, or go on with --resume {path}"
                ) from None
        try:
            folder.write_manifest(manifest)
        except ResultsError:
            with as_caller(), contextlib.suppress(OSError):
                (path / LOG).unlink()
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> ResultsFolder:
        """Raises ResultsError where `path` is no results folder, or one of another version."""
        folder = cls(path)
        folder.manifest()
        return folder

    def manifest(self) -> dict[str, Any]:
        path = self.path / MANIFEST
        try:
            content = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise ResultsError(f"{self.path} is no results folder: it has no {MANIFEST}") from None
        except OSError as error:
            raise ResultsError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ResultsError(f"{path} cannot be read: {error}") from error
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT_VERSION:
            raise ResultsError(f"{path} has format {found}, this version reads {FORMAT_VERSION}")
        return dict(content)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        self._write_json(MANIFEST, manifest)

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Replace what was concluded from fewer runs, or by another threshold."""
        self._write_json(VERDICT, verdict)

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        with self._writing():
            text = json.dumps({"format": FORMAT_VERSION, **content}, indent=2) + "\n"
            with _replacing(self.path / name) as file:
                file.write(text.encode())

    def append(self, judged: Judged) -> None:
        """The frames first and the row last: a run is in `runs.csv` only if all of it is there."""
        run_id = judged.row["run_id"]
        with self._writing():
            for name, frame in judged.frames.items():
                directory = self.path / f"{name}.parquet"
                directory.mkdir(exist_ok=True)
                named = frame.assign(run_id=run_id)[["run_id", *frame.columns]]
                with _replacing(directory / f"{run_id}.parquet") as file:
                    named.to_parquet(file, index=False)
            runs = self.path / RUNS
            header, row = guarded(pd.DataFrame([judged.row])).to_csv(index=False).encode().split(b"\n", 1)
            before = runs.read_bytes() if runs.exists() else header + b"\n"
            if not before.startswith(header + b"\n"):
                raise ResultsError(f"{runs} has other columns than this version writes: start again with another --out")
            with _replacing(runs) as file:
                file.write(before + row)
            if (self.path / FAILED_RUNS).exists():
                self._write_failed(self.failed_runs())

    def record_failed(self, run_ids: Sequence[str], reason: str) -> None:
        """Remember, until they finish, runs that did not."""
        before = self.failed_runs()
        rows = [(run_id, reason, time.strftime("%Y-%m-%dT%H:%M:%S%z")) for run_id in run_ids]
        with self._writing():
            self._write_failed(
                pd.concat([before[~before.run_id.isin(run_ids)], pd.DataFrame(rows, columns=_FAILED_COLUMNS)])
            )

    def _write_failed(self, failed: pd.DataFrame) -> None:
        path = self.path / FAILED_RUNS
        if failed.empty:
            path.unlink(missing_ok=True)
            return
        with _replacing(path) as file:
            guarded(failed).to_csv(file, index=False)

    def runs(self) -> pd.DataFrame:
        """One row a finished run; empty (without columns) before the first."""
        path = self.path / RUNS
        if not path.exists():
            return pd.DataFrame()
        try:
            runs = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=[""])
        except (OSError, ValueError) as error:
            raise ResultsError(f"{path} cannot be read: {error}") from error
        return unguarded(runs.fillna({name: "" for name in _TEXT if name in runs}))

    def failed_runs(self) -> pd.DataFrame:
        """run_id, reason and time of the runs that did not finish, and have not since."""
        path = self.path / FAILED_RUNS
        if not path.exists():
            return pd.DataFrame(columns=_FAILED_COLUMNS)
        try:
            failed = unguarded(pd.read_csv(path, dtype=str, keep_default_na=False, usecols=_FAILED_COLUMNS))
        except (OSError, ValueError) as error:
            raise ResultsError(f"{path} cannot be read: {error}") from error
        return failed[~failed.run_id.isin(self.runs().get("run_id", []))].reset_index(drop=True)

    def frame(self, name: str) -> pd.DataFrame:
        """All finished runs' rows of flows, subflows, links or queues."""
        paths = [self.path / f"{name}.parquet" / f"{run_id}.parquet" for run_id in self.runs().get("run_id", [])]
        try:
            return pd.concat(map(pd.read_parquet, paths), ignore_index=True) if paths else pd.DataFrame()
        except (OSError, ValueError) as error:
            raise ResultsError(f"{self.path / name}.parquet cannot be read: {error}") from error

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Nobody else adds runs meanwhile. Raises ResultsError if somebody does."""
        with (self.path / LOG).open("rb") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ResultsError(f"another run is writing to {self.path}: wait for its end") from error
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with as_caller():
            try:
                yield
            except OSError as error:
                raise ResultsError(f"cannot write results to {self.path}: {error.strerror or error}") from error


def write_file(path: Path, text: str) -> None:
    """A file of the caller's. Raises ResultsError."""
    with new_file(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """What `path` is to be, of the caller's: all of it or nothing.

    Replaces nothing but a regular file. Raises ResultsError.
    """
    with as_caller():
        try:
            if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
                raise ResultsError(f"{path} is no regular file, and left as it is: name a new file, or one to replace")
            with _replacing(path) as file:
                yield file
        except OSError as error:
            raise ResultsError(f"cannot write {path}: {error.strerror or error}") from error


def default_path(name: str) -> Path:
    """A folder of its own for a run that starts now."""
    path = first = Path("results") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write what `path` is to be: all of it is, or the file is as it was, whenever the power goes."""
    part = path.with_name(f".{path.name}.part")  # readers of parquet folders skip hidden files
    try:
        part.unlink(missing_ok=True)
        with part.open("xb") as file:  # whatever somebody may have put there
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
