"""The runs of an experiment: the product traffic x schemes x seeds, in order, and roughly how long each takes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from experiments.spec.experiment import Experiment
from experiments.spec.traffic import TrafficEntry
from traffic.schemes import scheme_of

RUN_OVERHEAD_S = 0.4
"""What a run takes besides its traffic: opening connections, reading counters, judging (16 hosts: 0.3 s). Rough."""

_LONGEST_LABEL = 80  # in a run id, which names files


@dataclass(frozen=True)
class Run:
    """One collective under one scheme with one seed. `traffic` is the place of its entry in the experiment.

    `run_id` is the same whenever the same experiment is planned, safe as a file name, and sorts in the order of runs.
    `label` names the entry of `traffic` apart from all others of the experiment.
    """

    run_id: str
    traffic: int
    label: str
    scheme: str
    seed: int


def plan_runs(experiment: Experiment, point: str = "") -> list[Run]:
    """Return every run, in order: all of the first seed, then all of the next.

    An interruption then leaves whole comparisons: every collective under every scheme, with fewer seeds; and as a
    collective's schemes follow each other, what changes on the machine in the meantime touches them alike.
    At a `point` of a sweep, labels name it too.
    """
    labels = [", ".join(filter(None, [label, point])) for label in _labels(experiment.traffic)]
    return planned(labels, experiment.schemes, experiment.seeds)


def merged(plans: Sequence[Sequence[Run]], before: int = 0, total: int = 0) -> list[list[Run]]:
    """Return `plans` with ids that number all of their runs together, from `before` + 1: a seed of all, then the next.

    `total` is how many runs there are in all, where these are not all.
    """
    seeds = dict.fromkeys(run.seed for runs in plans for run in runs)
    order = [(plan, run) for seed in seeds for plan, runs in enumerate(plans) for run in runs if run.seed == seed]
    digits = _digits(max(total, before + len(order)))
    numbered: list[list[Run]] = [[] for _ in plans]
    for number, (plan, run) in enumerate(order, start=before + 1):
        rest = run.run_id.partition("-")[2]
        numbered[plan].append(replace(run, run_id=f"{number:0{digits}d}-{rest}"))
    return numbered


def planned(labels: Sequence[str], schemes: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Return the runs of all that `labels` name, in the order that `plan_runs` explains."""
    cases = [(seed, index, scheme) for seed in seeds for index in range(len(labels)) for scheme in schemes]
    digits = _digits(len(cases))
    return [
        Run(f"{number:0{digits}d}-{safe(labels[index])}-{scheme}-s{seed}", index, labels[index], scheme, seed)
        for number, (seed, index, scheme) in enumerate(cases, start=1)
    ]


def estimate_s(experiment: Experiment, run: Run, bound_s: float) -> float:
    """Roughly how long `run` takes if no scheme could be faster than `bound_s`; building the fabric comes on top."""
    factor = scheme_of(run.scheme).estimate_factor(reordering_tolerant=experiment.transport.reordering == "tolerant")
    return factor * bound_s + RUN_OVERHEAD_S


def _labels(traffic: Sequence[TrafficEntry]) -> list[str]:
    """A name for each entry, and where that is not enough, the settings that differ."""
    names = [entry.label for entry in traffic]
    settings = [entry.settings() for entry in traffic]
    labels = []
    for name, mine in zip(names, settings, strict=True):
        others = [other for other_name, other in zip(names, settings, strict=True) if other_name == name]
        differing = [key for key, value in mine.items() if any(other.get(key, value) != value for other in others)]
        labels.append("-".join([name, *(f"{key}-{mine[key]}" for key in differing if mine[key] is not None)]))
    count = Counter(labels)
    return [label if count[label] == 1 else f"{label}-{place}" for place, label in enumerate(labels, start=1)]


def _digits(runs: int) -> int:
    return max(3, len(str(runs)))


def safe(label: str) -> str:
    """Return `label` as a part of a run's id, which names files."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", label.replace("%", "pct"))[:_LONGEST_LABEL]
