"""What it costs in truth to have frames travel together: the same runs with bursts of 1, 2, 4 and 7 frames.

At rates that single frames carry with ease, so that what differs is the bursts' doing. Needs root, and a machine that
does nothing else meanwhile.
"""

from __future__ import annotations

import sys
from typing import Any

from experiments.machine.probe import alltoall, fabric_of, medians, permutation

_BURSTS = (1, 2, 4, 7)  # frames of 9000 bytes: Linux makes no packet of more than 64 KiB
_SCHEMES = ("ecmp", "ethereal")  # a spray takes frames one by one
_SEEDS = (1, 2, 3)
_NUMBERS = ("cct_s", "cct_over_bound", "congestion_ratio", "queue_peak_bytes", "cpu_idle_min")
_HOSTS, _RATE_BPS = 16, 50_000_000


def run(dataplane: str = "linux") -> list[dict[str, Any]]:
    """A row a collective, scheme and burst: medians of three runs, and how the CCT differs from single frames'."""
    found: list[dict[str, Any]] = []
    for burst_frames in _BURSTS:
        fabric = fabric_of(_HOSTS, _RATE_BPS, burst_frames)
        schedules = [permutation(fabric, 2.0), alltoall(fabric, 2.0)]
        for row in medians(fabric, dataplane, schedules, _SCHEMES, _SEEDS, _NUMBERS):
            found.append({"burst_frames": burst_frames, **row})
            print(found[-1], file=sys.stderr, flush=True)
    single = {(row["collective"], row["scheme"]): row["cct_s"] for row in found if row["burst_frames"] == 1}
    for row in found:
        whole = single[row["collective"], row["scheme"]]
        row["cct_over_single"] = row["cct_s"] / whole if row["cct_s"] and whole else None
    return found
