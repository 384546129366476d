"""Ports and the machine, sample by sample: a true token bucket is never accused, and a false one found out."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from synthetic import FABRIC, OFFERED, PERIOD_S, START_S, place, planted, sample_times, with_samples

from emulator.ports import Shaping, shaping_for
from experiments.judge.evidence import ReplayEvidence
from experiments.judge.network import ports_work_at_their_rate
from experiments.judge.windows import least_idle

PORT = "leaf1-eth3"  # to spine1
ASKED = shaping_for(FABRIC.fabric_rate_bps, FABRIC)


# The token bucket, packet by packet

FRAME_BYTES = FABRIC.mtu_bytes + 14


def departures(arrivals_s: NDArray[np.float64], shaping: Shaping) -> NDArray[np.float64]:
    """When a token bucket that starts full lets each frame go (tc-tbf(8)): in order, and at the earliest."""
    rate, tokens, now = shaping.rate_bps / 8, float(shaping.burst_bytes), 0.0
    left = np.empty(len(arrivals_s))
    for number, arrival in enumerate(arrivals_s):
        at = max(arrival, now)
        tokens = min(shaping.burst_bytes, tokens + (at - now) * rate)
        now = at + max(0.0, (FRAME_BYTES - tokens) / rate)
        tokens += (now - at) * rate - FRAME_BYTES
        left[number] = now
    return left


def sampled(
    run: ReplayEvidence, arrivals_s: NDArray[np.float64], left_s: NDArray[np.float64], rng: np.random.Generator
) -> ReplayEvidence:
    """`run` with one port's queue as a sampler would see it whose period wanders, that looks at the clock up to 5 ms
    late, sleeps for 0.3 s once, and takes its last sample right after the one before.
    """
    gaps = rng.uniform(0.5 * PERIOD_S, 1.5 * PERIOD_S, 60)
    gaps[rng.integers(60)], gaps[-1] = 0.3, 0.0005
    seen_s = np.cumsum(gaps)
    told_s = np.maximum.accumulate(seen_s + rng.uniform(0.0, 0.005, 60))
    arrived, sent = np.searchsorted(arrivals_s, seen_s) * FRAME_BYTES, np.searchsorted(left_s, seen_s) * FRAME_BYTES
    queue = {"time_s": START_S + told_s, "port": place(run, PORT), "sent_bytes": sent, "backlog_bytes": arrived - sent}
    return with_samples(run, queues=pd.DataFrame({**queue, "drops_packets": 0}))


def at_rate(run: ReplayEvidence, rate_bps: float) -> tuple[ReplayEvidence, Shaping]:
    """`run` on a fabric whose links are all of another rate."""
    shaping = replace(ASKED, rate_bps=int(rate_bps))
    ports = [replace(port, shaping=shaping) for port in run.ports]
    return replace(planted(run, shaping={port.name: shaping for port in ports}), ports=ports), shaping


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=seeds, offered=st.floats(0.3, 3.0), rate_bps=st.sampled_from([2e6, 20e6, 100e6]))
def test_true_token_bucket_is_never_accused(
    healthy: ReplayEvidence, seed: int, offered: float, rate_bps: float
) -> None:
    """Whatever arrives, in trains and pauses, and however it is sampled."""
    rng = np.random.default_rng(seed)
    run, shaping = at_rate(healthy, rate_bps)
    frames = int(2 * rate_bps / 8 / FRAME_BYTES)  # two seconds' worth
    sizes = rng.integers(1, 20, frames)
    starts = np.cumsum(rng.exponential(sizes.mean(), frames)) * FRAME_BYTES * 8 / (offered * rate_bps)
    arrivals = np.repeat(starts, sizes)[:frames]
    assert ports_work_at_their_rate(sampled(run, arrivals, departures(arrivals, shaping), rng)) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=seeds, factor=st.sampled_from([0.5, 0.88, 1.12, 1.5]))
def test_bucket_of_another_rate_is_found_out_once_its_queue_is_deep(
    healthy: ReplayEvidence, seed: int, factor: float
) -> None:
    arrivals = np.full(420, 0.05)  # 1.5 s worth, all at once
    left = departures(arrivals, replace(ASKED, rate_bps=int(ASKED.rate_bps * factor)))
    [reason] = ports_work_at_their_rate(sampled(healthy, arrivals, left, np.random.default_rng(seed)))
    assert ("stayed below" if factor < 1 else "exceeded") in reason


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=seeds)
def test_queue_that_stands_still_is_found_out(healthy: ReplayEvidence, seed: int) -> None:
    """Even where far less waits than the port could have sent before the next sample."""
    left = np.array([0.2, 0.2, 0.2, 1.0, 1.0])
    [reason] = ports_work_at_their_rate(sampled(healthy, np.full(5, 0.2), left, np.random.default_rng(seed)))
    assert re.search(r"leaf1-eth3 stayed below its rate: 0\.0%", reason)


# The machine


def cpu(idle: NDArray[np.float64]) -> pd.DataFrame:
    """Samples a period apart: `idle` as part of both cores."""
    passed = np.full(len(idle), PERIOD_S)
    return pd.DataFrame(
        {
            "time_s": np.cumsum(passed),
            "late_s": 0.0,
            "idle_s": np.cumsum(2 * idle * passed),
            "busy_s": np.cumsum(2 * (1 - idle) * passed),
        }
    )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(10, 100))
def test_worst_second_is_the_worst_of_every_second(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    idle = rng.random(count)
    long = min(count - 1, round(1 / PERIOD_S))  # intervals in a second, or in the whole run
    seconds = [slice(first, first + long) for first in range(1, count - long + 1)]
    assert least_idle(cpu(idle)) == pytest.approx(min(idle[second].mean() for second in seconds), abs=0.05)


def test_half_a_busy_second_is_no_busy_second() -> None:
    idle = np.full(60, 0.5)
    idle[20:30] = 0.0
    assert least_idle(cpu(idle)) == pytest.approx(0.25)


def test_run_shorter_than_a_second_is_one_window() -> None:
    idle = np.full(11, 0.01)  # half a second
    assert least_idle(cpu(idle)) == pytest.approx(0.01)


def test_offered_load_makes_the_healthy_ports_busy(healthy: ReplayEvidence) -> None:
    """The healthy run would not show that busy ports pass if none were."""
    assert OFFERED > 1 and healthy.measured.samples.queues.backlog_bytes.max() > 500_000
    assert len(sample_times(healthy.measured.result.cct_s)) > 1.5 / PERIOD_S
