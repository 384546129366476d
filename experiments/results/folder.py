"""The results folder: written after every run, so that an interruption loses nothing that had finished.

manifest.json       what was asked, and on what it ran
runs.csv            one row a run
verdict.json        what follows from them, as keys for programs: `experiments.results.sentences.as_json`
failed_runs.csv     runs that did not finish, when and why; gone once all have
flows.parquet/, subflows.parquet/, links.parquet/, queues.parquet/
                    one file a run in each; pandas.read_parquet reads the folder as one frame
captures/           packet captures, a folder a run; captured_*.parquet/ is what was found in them
inputs/             copies of the experiment's file and of those it names: `experiments.results.inputs`
output/             what programs wrote, a folder a run
run.log             what the daemons said
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from emulator.caller import as_caller
from emulator.files import Folder, OddFileError
from experiments.judge.rows import Judged
from experiments.results.cells import guarded, unguarded
from experiments.results.reading import (
    FAILED_COLUMNS,
    FORMAT_VERSION,
    DamageError,
    check_frame,
    parse_failed_runs,
    parse_manifest,
    parse_runs,
)

RUNS, MANIFEST, LOG, CAPTURES, OUTPUT, INPUTS = "runs.csv", "manifest.json", "run.log", "captures", "output", "inputs"
FAILED_RUNS, VERDICT = "failed_runs.csv", "verdict.json"
MOST_BYTES = 64 * 1024 * 1024  # of a file of text: 100,000 runs take less
_MOST_FRAME_BYTES = 4 * 1024**3


class ResultsError(Exception):
    """The folder cannot be written or read; one sentence."""


class ResultsFolder:
    """A results folder, for whoever writes it and whoever reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = Folder(path)

    @classmethod
    def create(
        cls, path: Path, manifest: Mapping[str, Any], inputs: Mapping[str, bytes] | None = None
    ) -> ResultsFolder:
        """Make a new one; `inputs` are copied into it, each by its place such as inputs/perm.cm.

        Raises ResultsError where it cannot be written or already holds results.
        """
        folder = cls(path)
        with folder._writing():
            folder.files.make()
            try:
                if folder.files.holds(RUNS) or folder.files.holds(MANIFEST):
                    raise FileExistsError
                folder.files.new(LOG).close()  # whoever makes it has the folder
            except FileExistsError:
                raise ResultsError(
                    f"{path} already holds results: name another --out, or go on with --resume {path}"
                ) from None
        try:
            folder._copy_in(inputs or {})
            folder.write_manifest(manifest)
        except ResultsError:
            with contextlib.suppress(OSError):
                folder.files.remove(LOG)
            raise
        return folder

    def _copy_in(self, inputs: Mapping[str, bytes]) -> None:
        with self._writing():
            for place, content in inputs.items():
                *below, name = place.split("/")
                directory = Folder(self.path, tuple(below))
                directory.make()
                with directory.replacing(name) as file:
                    file.write(content)

    def inner(self, name: str) -> Folder:
        """Return a folder in it, which is made where it is missing. Raises ResultsError."""
        with self._writing():
            (self.files / name).make()
        return self.files / name

    def input(self, place: str) -> bytes | None:
        """What the copy at `place`, such as inputs/perm.cm, holds; None where there is none. Raises ResultsError."""
        *below, name = place.split("/")
        return self._content(name, *below)

    @classmethod
    def open(cls, path: Path) -> ResultsFolder:
        """Raises ResultsError where `path` is no results folder, or one of another version."""
        folder = cls(path)
        folder.manifest()
        return folder

    def manifest(self) -> dict[str, Any]:
        """Return what was asked, and on what it ran. Raises ResultsError."""
        content = self._content(MANIFEST)
        if content is None:
            raise ResultsError(f"{self.path} is no results folder: it has no {MANIFEST}")
        with self._undamaged(MANIFEST):
            return parse_manifest(content)

    def scale(self) -> int:
        """Return by how much slower the runs were made than what was asked for; 1 where nothing says."""
        fabric = self.manifest().get("experiment", {}).get("fabric", {})
        factor = fabric.get("scale") if isinstance(fabric, dict) else None
        return factor if isinstance(factor, int) and factor > 1 else 1

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        self._write_json(MANIFEST, manifest)

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Replace what was concluded from fewer runs, or by another threshold."""
        self._write_json(VERDICT, verdict)

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        with self._writing():
            # Half a character, as of a file's name that is no UTF-8, is nothing that a reader takes.
            text = json.dumps({"format": FORMAT_VERSION, **content}, ensure_ascii=False).encode(errors="replace")
            with self.files.replacing(name) as file:
                file.write(json.dumps(json.loads(text), indent=2).encode() + b"\n")

    def append(self, judged: Judged) -> None:
        """Write the frames first and the row last: a run is in `runs.csv` only if all of it is there."""
        run_id = judged.row["run_id"]
        with self._writing():
            for name, frame in judged.frames.items():
                directory = self.files / f"{name}.parquet"
                directory.make()
                named = frame.assign(run_id=run_id)[["run_id", *frame.columns]]
                with directory.replacing(f"{run_id}.parquet") as file:
                    named.to_parquet(file, index=False)
            header, row = (
                guarded(pd.DataFrame([judged.row])).to_csv(index=False).encode(errors="replace").split(b"\n", 1)
            )
            before = self._content(RUNS) or header + b"\n"
            if not before.startswith(header + b"\n"):
                raise ResultsError(
                    f"{self.path / RUNS} has other columns than this version writes: start again with another --out"
                )
            with self.files.replacing(RUNS) as file:
                file.write(before if before.endswith(b"\n") else before + b"\n")
                file.write(row)
            if self.files.holds(FAILED_RUNS):
                self._write_failed(self.failed_runs())

    def record_failed(self, run_ids: Sequence[str], reason: str) -> None:
        """Record runs that did not finish, until they do."""
        before = self.failed_runs()
        rows = [(run_id, reason, time.strftime("%Y-%m-%dT%H:%M:%S%z")) for run_id in run_ids]
        with self._writing():
            self._write_failed(
                pd.concat([before[~before.run_id.isin(run_ids)], pd.DataFrame(rows, columns=list(FAILED_COLUMNS))])
            )

    def _write_failed(self, failed: pd.DataFrame) -> None:
        if failed.empty:
            self.files.remove(FAILED_RUNS)
            return
        with self.files.replacing(FAILED_RUNS) as file:
            file.write(guarded(failed).to_csv(index=False).encode(errors="replace"))

    def runs(self) -> pd.DataFrame:
        """Return one row a finished run; empty (without columns) before the first. Raises ResultsError."""
        content = self._content(RUNS)
        if content is None:
            return pd.DataFrame()
        with self._undamaged(RUNS):
            return unguarded(parse_runs(content, of_programs="program" in self.manifest()))

    def failed_runs(self) -> pd.DataFrame:
        """Return run_id, reason and time of the runs that did not finish, and have not since. Raises ResultsError."""
        content = self._content(FAILED_RUNS)
        if content is None:
            return pd.DataFrame(columns=list(FAILED_COLUMNS))
        with self._undamaged(FAILED_RUNS):
            failed = unguarded(parse_failed_runs(content))
        return failed[~failed.run_id.isin(self.runs().get("run_id", []))].reset_index(drop=True)

    def frame(self, name: str) -> pd.DataFrame:
        """Return all finished runs' rows of flows, subflows, links or queues. Raises ResultsError."""
        frames = [self._frame_of(name, run_id) for run_id in self.runs().get("run_id", [])]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def _frame_of(self, name: str, run_id: str) -> pd.DataFrame:
        directory, file_name = f"{name}.parquet", f"{run_id}.parquet"
        path = self.path / directory / file_name
        try:
            with (self.files / directory).open(file_name, _MOST_FRAME_BYTES) as file:
                frame = pd.read_parquet(file)
            check_frame(name, run_id, frame)
        except FileNotFoundError:
            raise ResultsError(
                f"{path} is missing, though {RUNS} has its run: copy all of the folder that this one is from"
            ) from None
        except DamageError as error:
            raise ResultsError(f"{path}{error}") from error
        except OSError as error:
            raise ResultsError(_unreadable(path, error)) from error
        except Exception as error:  # what the library says of a damaged file is of any kind
            raise ResultsError(f"{path}: not a parquet file as spraylab writes it") from error
        return frame

    @contextlib.contextmanager
    def in_use(self) -> Iterator[BinaryIO]:
        """Nobody else adds runs meanwhile; gives the log, to be added to. Raises ResultsError if somebody does."""
        with self._writing():
            log = self.files.append(LOG)
        with log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ResultsError(f"another run is writing to {self.path}: wait for its end") from error
            try:
                yield log
            finally:
                fcntl.flock(log, fcntl.LOCK_UN)  # whoever else has the log open may take a while to end

    def _content(self, name: str, *below: str) -> bytes | None:
        """What a file of the folder holds; None where there is none."""
        directory = Folder(self.path, below)
        try:
            return directory.read(name, MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ResultsError(_unreadable(directory.path / name, error)) from error

    @contextlib.contextmanager
    def _undamaged(self, name: str) -> Iterator[None]:
        try:
            yield
        except DamageError as error:
            raise ResultsError(f"{self.path / name}{error}") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResultsError(_unwritable(self.path, error)) from error


def _unreadable(path: Path, error: OSError) -> str:
    """A sentence about a file that is not read."""
    said = error.strerror or str(error)
    return f"{path} {said}" if said.startswith("is ") else f"{path} cannot be read: {said}"


def _unwritable(path: Path, error: OSError) -> str:
    if isinstance(error, OddFileError):
        return f"cannot write results to {path}: {error.filename} {error.strerror}; remove it"
    return f"cannot write results to {path}: {error.strerror or error}"


def write_file(path: Path, text: str) -> None:
    """Write a file of the caller's. Raises ResultsError."""
    write_in(Folder(path.parent), path.name, text)


def write_in(folder: Folder, name: str, text: str) -> None:
    """Write a file of a folder of the caller's. Raises ResultsError."""
    with _new_in(folder, name) as file:
        file.write(text.encode())


def new_file(path: Path) -> AbstractContextManager[BinaryIO]:
    """Open what `path` is to be, of the caller's: all of it or nothing.

    Replaces nothing but a regular file. Raises ResultsError.
    """
    return _new_in(Folder(path.parent), path.name)


@contextlib.contextmanager
def _new_in(folder: Folder, name: str) -> Iterator[BinaryIO]:
    path = folder.path / name
    try:
        with folder.replacing(name) as file:
            yield file
    except OddFileError as error:
        raise ResultsError(
            f"{path} is no regular file, and left as it is: name a new file, or one to replace"
        ) from error
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from error


def default_path(name: str) -> Path:
    """Return a folder of its own for a run that starts now."""
    path = first = Path("results") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    with as_caller():
        while path.exists():
            number += 1
            path = first.with_name(f"{first.name}-{number}")
    return path
