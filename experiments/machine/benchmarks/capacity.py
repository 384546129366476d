"""What this machine carries faithfully: Linux routers beside Open vSwitch, single frames beside bursts, and the points
this project states.

Needs root, and a machine that does nothing else meanwhile.
"""

from __future__ import annotations

import sys
from typing import Any

from experiments.machine.calibrate import calibrate
from experiments.machine.probe import alltoall, fabric_of, medians, permutation, process_counts

_POINTS = ((16, 100_000_000), (64, 25_000_000))
_SCHEMES = ("ethereal", "spray")
_BURSTS = (1, 4)
_SEEDS = (1, 2, 3)


def run(hosts: int = 16) -> list[dict[str, Any]]:
    """First a row for every data plane and burst, and one for every number of processes that replay single frames on
    Linux routers: the highest faithful rate of `hosts` hosts (see `experiments.machine.calibrate`), and how many times
    that of Open vSwitch it is. Then a row for every point, burst,
    collective and scheme on Linux routers: medians of three runs, and how many of them had fidelity "pass".
    """
    points = [(count, rate_bps, burst) for count, rate_bps in _POINTS for burst in _BURSTS]
    return capacities(hosts) + [row for where in points for row in point("linux", *where)]


def capacities(hosts: int) -> list[dict[str, Any]]:
    found = [
        {**row, "processes": None} for burst in _BURSTS for row in calibrate((hosts,), burst_frames=burst, say=_say)
    ]
    for count in process_counts():
        found += [{**row, "processes": count} for row in calibrate((hosts,), ["linux"], say=_say, processes=count)]
    of_ovs = next((row["total_bps"] for row in found if row["dataplane"].startswith("ovs")), 0)
    return [
        {
            "what": "capacity",
            "dataplane": row["dataplane"],
            "hosts": hosts,
            "burst_frames": row["burst_frames"],
            "processes": row["processes"],
            "link_mbps": row["rate_bps"] / 1e6,
            "total_gbps": row["total_bps"] / 1e9,
            "times_ovs": round(row["total_bps"] / of_ovs, 2) if of_ovs else None,
        }
        for row in found
    ]


def point(dataplane: str, hosts: int, rate_bps: int, burst_frames: int) -> list[dict[str, Any]]:
    """Return one row a collective and scheme, all on one fabric."""
    fabric = fabric_of(hosts, rate_bps, burst_frames)
    schedules = [permutation(fabric), alltoall(fabric)]
    where = {"hosts": hosts, "burst_frames": burst_frames, "link_mbps": rate_bps / 1e6}
    where["total_gbps"] = hosts * rate_bps / 1e9
    found = []
    for row in medians(fabric, dataplane, schedules, _SCHEMES, _SEEDS, ("cct_over_bound", "cpu_idle_min")):
        found.append({"what": "point", **where, **row})
        _say(str(found[-1]))
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
