"""The answer, computed from runs: ECMP is enough, splitting is, or spraying pays; `sentences` says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from experiments.judge.rows import PASS
from experiments.results.folder import ResultsError
from experiments.spec.sweep import read_sweep
from traffic.schemes import names_of_role, playing, scheme_of

DEFAULT_WITHIN = 0.05
"""A scheme is as good as spraying if its median time is at most this much longer."""

LEAST_SEEDS = 2
"""Trusted seeds that every compared scheme needs on a collective; where an experiment has one seed, that one."""

PLAIN, SPLITTING = names_of_role("plain")[0], names_of_role("splitting")[0]
SPRAYS = [name for name in names_of_role("spraying") if not scheme_of(name).weighted]

_ROUNDING = 1e-9  # a ratio that is the limit to the last digits is within it


class Outcome(StrEnum):
    """What a collective needs on this fabric, from the least to the most."""

    ECMP = "ecmp-is-enough"
    SPLITTING = "splitting-is-enough"
    SPRAYING = "spraying-pays"


BY_NEED = list(Outcome)


@dataclass(frozen=True)
class Asked:
    """What an experiment was to run, finished or not."""

    schemes: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: int
    collectives: int
    programs: bool = False
    """Whether unmodified programs ran, whose connections nobody can split, instead of the experiment's traffic."""

    under: str = ""
    """What the answer holds under and no longer than that, where something was made worse: follows 'on this fabric'."""

    @classmethod
    def of(cls, runs: pd.DataFrame, manifest: Mapping[str, Any] | None = None) -> Asked:
        """What a manifest says, and `runs` where it is silent."""
        given: Mapping[str, Any] = (manifest or {}).get("experiment", {})
        program: Mapping[str, Any] | None = (manifest or {}).get("program")
        applied = (program or {}).get("schemes", given.get("schemes", []))
        schemes = dict.fromkeys([*applied, *runs.get("scheme", [])])
        seeds = dict.fromkeys([*given.get("seeds", []), *sorted(map(int, runs.get("seed", [])))])
        points = read_sweep(given["sweep"]).points if given.get("sweep") else 1
        collectives = 1 if program else len(given.get("traffic", [])) * points
        planned = collectives * len(applied) * len(given.get("seeds", []))
        worse = {
            "as its links break": bool(given.get("faults")),
            "under its strain": any(runs.get("strain", pd.Series()).dropna()),
        }
        under = "".join(f" {words}" for words, it_was in worse.items() if it_was)
        return cls(tuple(schemes), tuple(seeds), max(planned, len(runs)), collectives, program is not None, under)

    @property
    def measure(self) -> str:
        """The column by which schemes are compared: how long a program kept the fabric loaded, or CCT / bound."""
        return "loaded_s" if self.programs else "cct_over_bound"


@dataclass(frozen=True)
class Margin:
    """A scheme's median over the spraying scheme's; `least` and `most` of the ratios seed by seed.

    These are None where fewer than two seeds have trusted runs of both.
    """

    ratio: float
    least: float | None
    most: float | None


@dataclass(frozen=True)
class Line:
    """One collective. Without quorum `outcome` is None, and `lacking` has (scheme, trusted seeds) of what it lacks.

    `straddles`: the seeds' margins lie on both sides of the limit, so that another seed may turn the outcome.
    `provisional`: its margins rest on a single seed each, of whose spread nothing is known.
    """

    traffic: str
    outcome: Outcome | None
    lacking: tuple[tuple[str, int], ...] = ()
    ecmp: Margin | None = None
    ethereal: Margin | None = None
    outcomes: frozenset[Outcome] = frozenset()
    provisional: bool = False

    @property
    def straddles(self) -> bool:
        return len(self.outcomes) > 1


@dataclass(frozen=True)
class Unexplained:
    """A run the verdict rests on, though theory expects another time."""

    run_id: str
    traffic: str
    scheme: str
    emulated_over_predicted: float


@dataclass(frozen=True)
class Verdict:
    """The lines, and what follows from them for the experiment as a whole.

    `missing` names the schemes without which nothing is compared; `baseline` is the spraying scheme, and
    `splitting` the one that splits.
    """

    within: float
    asked: Asked
    baseline: str
    missing: tuple[str, ...]
    finished: int
    trusted: int
    lines: tuple[Line, ...]
    unexplained: tuple[Unexplained, ...]
    splitting: str = SPLITTING
    idle: int = 0
    """Runs in which no port was ever loaded: there is nothing to compare."""
    silent: int = 0
    """Those of them in which no host sent a byte."""

    @property
    def quorum(self) -> bool:
        """At least two thirds of the runs asked for can be trusted."""
        return self.trusted > 0 and not self.idle and 3 * self.trusted >= 2 * self.asked.runs

    @property
    def answered(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.outcome)

    @cached_property
    def outcome(self) -> Outcome | None:
        """The strongest need among the collectives with quorum; None without one."""
        return strongest([line.outcome for line in self.answered if line.outcome]) if self.quorum else None

    @property
    def straddles(self) -> bool:
        """Another seed may turn the outcome: what is least needed over all seeds is not what is most needed."""
        least = strongest([min(line.outcomes, key=BY_NEED.index) for line in self.answered])
        most = strongest([max(line.outcomes, key=BY_NEED.index) for line in self.answered])
        return self.outcome is not None and least != most

    @property
    def provisional(self) -> bool:
        return self.outcome is not None and any(line.provisional for line in self.answered)

    @property
    def limit(self) -> float:
        """The largest ratio that is within the threshold."""
        return _limit(self.within)

    @property
    def worst(self) -> Line | None:
        """Of the collectives the outcome is about, the one with the widest margin of the scheme it is about."""
        if self.outcome is Outcome.ECMP:
            return widest(self.answered, "ecmp")
        if self.outcome is Outcome.SPLITTING:
            within = [line for line in self.answered if line.ethereal and line.ethereal.ratio <= self.limit]
            return widest(within, "ethereal")
        return widest([line for line in self.answered if line.outcome is self.outcome], "ethereal")


def decide(
    runs: pd.DataFrame,
    within: float = DEFAULT_WITHIN,
    asked: Asked | None = None,
) -> Verdict:
    """The verdict on `runs`, a frame like runs.csv; the order of its rows is no matter.

    Runs that were asked for and have no row count as not trusted. `within` is a share: 0.05 is 5 %.
    """
    asked = asked or Asked.of(runs)
    baseline, splitting = playing("spraying", asked.schemes) or "", playing("splitting", asked.schemes) or ""
    missing = (*([] if splitting else [SPLITTING]), *([] if baseline else SPRAYS[:1]))
    splitting = splitting or SPLITTING
    if runs.empty:
        return Verdict(within, asked, baseline, missing, 0, 0, (), (), splitting)
    runs = runs.sort_values("run_id")
    trusted = runs[runs.fidelity == PASS]
    if idle := int((runs[asked.measure] == 0).sum()):
        silent = int((runs.wire_bytes == 0).sum()) if "wire_bytes" in runs else 0
        return Verdict(within, asked, baseline, missing, len(runs), len(trusted), (), (), splitting, idle, silent)
    compared = [] if missing else [scheme for scheme in (PLAIN, splitting, baseline) if scheme in asked.schemes]
    medians = trusted.groupby(["traffic", "seed", "scheme"])[asked.measure].median().unstack().reindex(columns=compared)
    by_traffic = dict(list(medians.groupby("traffic")))
    names = runs.traffic.unique() if compared else []
    lines = [_line(name, by_traffic.get(name, medians.iloc[:0]), splitting, asked, within) for name in names]
    answered = [line.traffic for line in lines if line.outcome]
    rested_on = trusted[trusted.traffic.isin(answered) & trusted.scheme.isin(compared)]
    counts = len(runs), len(trusted)
    return Verdict(within, asked, baseline, missing, *counts, tuple(lines), _unexplained(rested_on), splitting)


def of_results(runs: pd.DataFrame, manifest: Mapping[str, Any], within: float | None = None) -> Verdict:
    """The verdict on a results folder's runs, by the threshold that `manifest` has unless another is given.

    Raises ResultsError where the manifest's is none.
    """
    if within is None:
        within = manifest.get("within", DEFAULT_WITHIN)
        if not isinstance(within, float | int) or not 0 <= within < 1:
            raise ResultsError(f"manifest.json: within is {within!r}; it takes a share from 0 to below 1, such as 0.05")
    return decide(runs, within, Asked.of(runs, manifest))


def strongest(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The one that needs most; None of none."""
    return max(outcomes, key=BY_NEED.index, default=None)


def widest(lines: Sequence[Line], of: Literal["ecmp", "ethereal"]) -> Line | None:
    """That on which ECMP, or splitting, took longest beside spraying; None where it is not known on any."""
    known = [(margin.ratio, line.traffic, line) for line in lines if (margin := getattr(line, of))]
    return max(known, key=lambda each: each[:2])[2] if known else None


def _limit(within: float) -> float:
    return 1 + within + _ROUNDING


def _line(traffic: str, by_seed: pd.DataFrame, splitting: str, asked: Asked, within: float) -> Line:
    """Conclude from `by_seed`: a row a seed, a column a scheme, the spraying one last; NaN where nothing is trusted."""
    needed = min(LEAST_SEEDS, len(asked.seeds))
    seeds = by_seed.notna().sum()
    if lacking := tuple((str(scheme), int(count)) for scheme, count in seeds.items() if count < needed):
        return Line(traffic, None, lacking)
    ethereal = _margin(by_seed, splitting)
    ecmp = _margin(by_seed, PLAIN) if PLAIN in by_seed else None
    cases = zip(_extremes(ethereal), _extremes(ecmp) if ecmp else [None] * 3, strict=True)
    outcome, *others = [_outcome(*ratios, _limit(within)) for ratios in cases]
    provisional = any(margin is not None and margin.least is None for margin in (ethereal, ecmp))
    return Line(traffic, outcome, (), ecmp, ethereal, frozenset([outcome, *others]), provisional)


def _margin(by_seed: pd.DataFrame, scheme: str) -> Margin:
    baseline = by_seed.columns[-1]
    ratio = float(by_seed[scheme].median() / by_seed[baseline].median())
    paired = (by_seed[scheme] / by_seed[baseline]).dropna()
    if len(paired) < LEAST_SEEDS:
        return Margin(ratio, None, None)
    return Margin(ratio, float(paired.min()), float(paired.max()))


def _extremes(margin: Margin) -> tuple[float, float, float]:
    """The ratio of the medians first; then the least and the most, where they are known."""
    spread = [each for each in (margin.least, margin.most) if each is not None]
    return margin.ratio, min([margin.ratio, *spread]), max([margin.ratio, *spread])


def _outcome(ethereal: float, ecmp: float | None, limit: float) -> Outcome:
    if ecmp is not None and ecmp <= limit:
        return Outcome.ECMP
    return Outcome.SPLITTING if ethereal <= limit else Outcome.SPRAYING


def _unexplained(rested_on: pd.DataFrame) -> tuple[Unexplained, ...]:
    """The worst first."""
    if "explained" not in rested_on:
        return ()
    off = rested_on[rested_on.explained == "no"]
    found = [
        Unexplained(row.run_id, row.traffic, row.scheme, float(row.emulated_over_predicted)) for row in off.itertuples()
    ]
    return tuple(sorted(found, key=lambda run: (-abs(run.emulated_over_predicted - 1), run.run_id)))
