"""A results folder as frames, for those who go on in Python."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.judge.rows import PASS
from experiments.results.folder import ResultsFolder
from experiments.results.verdict import Verdict, of_results

_OF_A_RUN = ["run_id", "traffic", "scheme", "seed", "fidelity"]


class Loaded:
    """What a results folder holds, each frame read when it is first asked for; nothing is written.

    `runs` has a row a run, with the columns of runs.csv: numbers are int64 or float64, all else is text. Every other
    frame says of each row which run it is of: `run_id`, `traffic`, `scheme`, `seed` and `fidelity`. Names carry units:
    `_s` seconds, `_bps` bits a second, `_bytes` bytes on the wire, unless they are of a flow: then the payload's.
    Each may raise ResultsError, in one sentence, where a file is damaged or missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._folder = ResultsFolder.open(self.path)

    def __repr__(self) -> str:
        return f"<spraylab results of {self.name}: {len(self.trusted)} of {len(self.runs)} runs are trusted>"

    @property
    def name(self) -> str:
        """The experiment's."""
        return str(self.manifest.get("experiment", {}).get("name") or self.path.resolve().name)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was asked, and on what it ran."""
        return self._folder.manifest()

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a finished run."""
        return self._folder.runs()

    @property
    def trusted(self) -> pd.DataFrame:
        """The runs whose fidelity is pass: those whose numbers mean something."""
        return self.runs[self.runs.fidelity == PASS] if len(self.runs) else self.runs

    @cached_property
    def failed(self) -> pd.DataFrame:
        """Runs that did not finish: run_id, reason, time."""
        return self._folder.failed_runs()

    @cached_property
    def verdict(self) -> Verdict:
        """What follows from the runs, by the threshold they were made with."""
        return of_results(self.runs, self.manifest)

    @cached_property
    def flows(self) -> pd.DataFrame:
        """A row a flow: its size_bytes, when it started, start_s, and how long it took, fct_s."""
        return self._frame("flows")

    @cached_property
    def subflows(self) -> pd.DataFrame:
        """A row a connection: its path, bytes, and what TCP counted."""
        return self._frame("subflows")

    @cached_property
    def links(self) -> pd.DataFrame:
        """A row a port: leaf, spine and direction of fabric links, and tx_bytes over the run."""
        return self._frame("links")

    @cached_property
    def queues(self) -> pd.DataFrame:
        """A row a port and sample: time_s since the first send, and backlog_bytes."""
        return self._frame("queues")

    @cached_property
    def faults(self) -> pd.DataFrame:
        """A row a change that a fault made, and when it was confirmed; empty where nothing was to break."""
        if not self.manifest.get("experiment", {}).get("faults"):
            return pd.DataFrame(columns=[*_OF_A_RUN, "fault", "event", "confirmed_s"])
        return self._frame("faults")

    def _frame(self, name: str) -> pd.DataFrame:
        frame = self._folder.frame(name)
        return self.runs[_OF_A_RUN].merge(frame, on="run_id") if len(frame) else frame


def load(path: str | os.PathLike[str]) -> Loaded:
    """Read the results folder at `path`. Raises ResultsError, in one sentence, where it is none."""
    return Loaded(path)
