"""The results folder: written after every run, so that an interruption loses nothing that had finished.

manifest.json       what was asked, and on what it ran
runs.csv            one row a run
flows.parquet/, subflows.parquet/, links.parquet/, queues.parquet/
                    one file a run in each; pandas.read_parquet reads the folder as one frame
run.log             what the daemons said
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.judge import Judged

FORMAT_VERSION = 1
RUNS, MANIFEST, LOG = "runs.csv", "manifest.json", "run.log"


class ResultsError(Exception):
    """The folder cannot be written or read; one sentence."""


@contextlib.contextmanager
def as_caller() -> Iterator[None]:
    """Under sudo, act with the rights of the user who called it: what is written then is theirs."""
    uid, gid = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if os.geteuid() != 0 or not uid or not gid:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(int(gid))
    os.seteuid(int(uid))
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


class ResultsFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, manifest: Mapping[str, Any]) -> ResultsFolder:
        """Raises ResultsError where it cannot be written or already holds results."""
        folder = cls(path)
        with folder._writing():
            path.mkdir(parents=True, exist_ok=True)
            if (path / RUNS).exists() or (path / MANIFEST).exists():
                raise ResultsError(f"{path} already holds results: name another --out, or go on with --resume {path}")
            (path / LOG).touch()
        folder.write_manifest(manifest)
        return folder

    @classmethod
    def open(cls, path: Path) -> ResultsFolder:
        """Raises ResultsError where `path` is no results folder."""
        if not (path / MANIFEST).is_file():
            raise ResultsError(f"{path} is no results folder: it has no {MANIFEST}")
        return cls(path)

    def manifest(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise ResultsError(f"{self.path / MANIFEST} cannot be read: {error}") from error
        if content.get("format") != FORMAT_VERSION:
            raise ResultsError(
                f"{self.path / MANIFEST} has format {content.get('format')}, this version reads {FORMAT_VERSION}"
            )
        return content

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        with self._writing():
            _replace(self.path / MANIFEST, json.dumps({"format": FORMAT_VERSION, **manifest}, indent=2) + "\n")

    def append(self, judged: Judged) -> None:
        """The frames first and the row last: a run is in `runs.csv` only if all of it is there."""
        run_id = judged.row["run_id"]
        with self._writing():
            for name, frame in judged.frames().items():
                directory = self.path / f"{name}.parquet"
                directory.mkdir(exist_ok=True)
                frame.insert(0, "run_id", run_id)
                frame.to_parquet(directory / f"{run_id}.parquet", index=False)
            runs = self.path / RUNS
            before = runs.read_text() if runs.exists() else ""
            row = pd.DataFrame([judged.row]).to_csv(index=False, header=not before)
            _replace(runs, before + row)

    def runs(self) -> pd.DataFrame:
        """One row a finished run; empty (without columns) before the first."""
        path = self.path / RUNS
        if not path.exists():
            return pd.DataFrame()
        try:
            return pd.read_csv(path, keep_default_na=False, na_values={"cct_s": [""]})
        except (OSError, ValueError) as error:
            raise ResultsError(f"{path} cannot be read: {error}") from error

    def frame(self, name: str) -> pd.DataFrame:
        """All runs' rows of flows, subflows, links or queues."""
        path = self.path / f"{name}.parquet"
        return pd.read_parquet(path) if path.exists() else pd.DataFrame()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with as_caller():
            try:
                yield
            except OSError as error:
                raise ResultsError(f"cannot write results to {self.path}: {error.strerror or error}") from error


def default_path(name: str) -> Path:
    return Path("results") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _replace(path: Path, text: str) -> None:
    """Write all of `text` or leave the file as it was, whenever the power goes."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
