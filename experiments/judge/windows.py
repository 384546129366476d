"""Stretches of a run over which ports and the machine are judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.judge.evidence import Evidence

WINDOW_S = 1.0
"""The machine is judged over every second; a run shorter than that, as a whole."""

PORT_WINDOW_S = 0.2
"""A port is judged over every stretch of this length, and a machine over none shorter. A token bucket is exact but for
its depth, so RATE_TOLERANCE of this, 6 ms, is how late a sampler may look at the clock."""


def windows(time_s: np.ndarray, length_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return every sample that has one `length_s` or more after it, and the first that is."""
    ends = np.searchsorted(time_s, time_s + length_s)
    starts = np.flatnonzero(ends < len(time_s))
    return starts, ends[starts]


def seconds(time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every second's first and last sample. A shorter run is one window; one too short to judge has none."""
    if len(time_s) < 2 or time_s[-1] - time_s[0] < PORT_WINDOW_S:
        return np.array([], int), np.array([], int)
    starts, ends = windows(time_s, WINDOW_S)
    return (starts, ends) if len(starts) else (np.array([0]), np.array([len(time_s) - 1]))


def averages(time_s: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the average over every second of what was sampled, each value lasting until the next."""
    starts, ends = seconds(time_s)
    total = np.concatenate([[0.0], np.cumsum(values[:-1] * np.diff(time_s))])
    result: np.ndarray = (total[ends] - total[starts]) / (time_s[ends] - time_s[starts])
    return result


def within(run: Evidence[Any], samples: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `samples` that were taken while the run was judged, and a moment around it."""
    return samples[(samples.time_s >= run.start_s - 0.1) & (samples.time_s <= run.end_s + 0.1)]


def samples_within(run: Evidence[Any]) -> pd.DataFrame:
    """Return the CPU samples from the first send to the last byte received."""
    cpu = run.measured.samples.cpu
    inside = within(run, cpu)
    return inside if len(inside) > 1 else cpu


def least_idle(cpu: pd.DataFrame) -> float:
    """Return the least idle part of all cores over any second of `cpu` samples; of a run too short to judge, 1."""
    starts, ends = seconds(cpu.time_s.to_numpy())
    if not len(starts):
        return 1.0
    totals = cpu[["idle_s", "busy_s"]].to_numpy()
    idle, busy = (totals[ends] - totals[starts]).T
    return float((idle / np.maximum(idle + busy, 1e-9)).min())
