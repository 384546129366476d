"""What a job's neighbour costs it: its step beside others, and alone where the experiment has it alone as well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from experiments.judge.rows import PASS

_STEP = re.compile(r"(.+?) ([0-9.eE+-]+) s(?:; |$)")


@dataclass(frozen=True)
class Beside:
    """A job under one scheme: the median of its steps beside others, and that of what has its name alone, if any."""

    HEADINGS: ClassVar = ("step", "alone", "longer")

    traffic: str
    scheme: str
    job: str
    step_s: float
    alone_s: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """Return what a table has under its headings."""
        if self.alone_s is None:
            return f"{self.step_s:.3g} s", "", ""
        longer = f"{self.step_s / self.alone_s - 1:+.1%}".replace("%", " %")
        return f"{self.step_s:.3g} s", f"{self.alone_s:.3g} s", longer

    @property
    def sentence(self) -> str:
        """Return the same for a page."""
        step, alone, longer = self.cells
        against = f" beside others, {alone} alone ({longer})" if alone else ""
        return f"{self.scheme}: a step of {self.job} took {step}{against}."


def beside(runs: pd.DataFrame) -> list[Beside]:
    """Return every job of every traffic that has several at the same time, of the runs that can be trusted."""
    if "job_steps" not in runs or "step_s" not in runs:
        return []
    trusted = runs[runs.fidelity == PASS]
    alone = trusted[trusted.job_steps.isna() | (trusted.job_steps == "")].groupby(["traffic", "scheme"]).step_s.median()
    rows = [
        (row.traffic, row.scheme, place, job, step_s)
        for row in trusted[trusted.job_steps.notna()].itertuples()
        for place, (job, step_s) in enumerate(_steps(row.job_steps))
    ]
    frame = pd.DataFrame(rows, columns=["traffic", "scheme", "place", "job", "step_s"])
    medians = frame.groupby(["traffic", "scheme", "place", "job"], sort=False).step_s.median()
    return [
        Beside(traffic, scheme, job, step_s, _known(alone.get((job, scheme))))
        for (traffic, scheme, _, job), step_s in medians.items()
    ]


def _steps(words: str) -> Iterator[tuple[str, float]]:
    """The jobs and steps of a cell of `job_steps`, as far as they can be read."""
    for job, seconds in _STEP.findall(words):
        try:
            yield job, float(seconds)
        except ValueError:
            return


def _known(value: float | None) -> float | None:
    return None if value is None or pd.isna(value) or value <= 0 else float(value)
