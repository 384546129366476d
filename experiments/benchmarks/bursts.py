"""What it costs in truth to have frames travel together: the same runs with bursts of 1, 2, 4 and 7 frames.

At rates that single frames carry with ease, so that what differs is the bursts' doing. Needs root, and a machine that
does nothing else meanwhile.
"""

from __future__ import annotations

import sys
from statistics import median
from typing import Any

from emulator.dataplane import Asked
from experiments.probe import Traffic, alltoall, fabric_of, permutation, rows

_BURSTS = (1, 2, 4, 7)  # frames of 9000 bytes: Linux makes no packet of more than 64 KiB
_SCHEMES = ("ecmp", "ethereal")  # a spray takes frames one by one
_SEEDS = (1, 2, 3)
_HOSTS, _RATE_BPS = 16, 50_000_000


def run(dataplane: Asked = "linux") -> list[dict[str, Any]]:
    """A row a collective, scheme and burst: medians of three runs, and how the CCT differs from single frames'."""
    found: list[dict[str, Any]] = []
    for burst_frames in _BURSTS:
        fabric = fabric_of(_HOSTS, _RATE_BPS, burst_frames)
        schedules = [permutation(fabric, 2.0), alltoall(fabric, 2.0)]
        traffic = [Traffic(schedule, scheme, seed) for schedule in schedules for scheme in _SCHEMES for seed in _SEEDS]
        done = list(rows(fabric, dataplane, traffic))
        for first in range(0, len(done), len(_SEEDS)):
            same = done[first : first + len(_SEEDS)]
            found.append(_summary(burst_frames, same))
            print(found[-1], file=sys.stderr, flush=True)
    single = {(row["collective"], row["scheme"]): row["cct_s"] for row in found if row["burst_frames"] == 1}
    for row in found:
        whole = single[row["collective"], row["scheme"]]
        row["cct_over_single"] = row["cct_s"] / whole if row["cct_s"] and whole else None
    return found


def _summary(burst_frames: int, same: list[dict[str, Any]]) -> dict[str, Any]:
    finished = [row for row in same if "cct_s" in row]
    numbers = ("cct_s", "cct_over_bound", "congestion_ratio", "queue_peak_bytes", "cpu_idle_min")
    return {
        "collective": same[0]["collective"],
        "scheme": same[0]["scheme"],
        "burst_frames": burst_frames,
        **{name: median(row[name] for row in finished) if finished else None for name in numbers},
        "pass": f"{sum(row['fidelity'] == 'pass' for row in same)}/{len(same)}",
        "reasons": "; ".join(sorted({row["fidelity_reasons"] for row in same if row["fidelity_reasons"]})),
    }
