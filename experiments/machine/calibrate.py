"""What this machine carries faithfully: for each data plane and number of hosts, the highest link rate.

Probed with a permutation that keeps all links busy for about a second, under ethereal with 4 channels: a rate is
carried if two of at most three runs are within MOST_OVER_BOUND of their bound with fidelity "pass".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from controllers.dataplane import PLANES
from emulator.errors import EmulatorError
from emulator.proc import read_machine_cpu
from experiments.machine.calibration import rounded
from experiments.machine.probe import HOST_COUNTS, Traffic, available, fabric_of, faithful, permutation, rows
from experiments.results.tables import table_of_rows
from experiments.spec.units import format_rate_bps
from traffic.abreast import DEFAULT_PROCESSES, Processes

MOST_OVER_BOUND = 1.05
GRAIN = 1.15
"""The highest rate carried is found to within this factor."""

_FIRST_TOTAL_BPS = 256_000_000  # of all hosts together
_LEAST_RATE_BPS = 2_000_000  # below it, one frame takes longer than anything else
_MOST_RATE_BPS = 10_000_000_000
_QUIET = 0.1


def calibrate(
    hosts: Sequence[int] = (16,),
    dataplanes: Sequence[str] | None = None,
    burst_frames: int = 1,
    say: Callable[[str], None] = print,
    processes: Processes = DEFAULT_PROCESSES,
) -> list[dict[str, Any]]:
    """One row for every data plane and number of hosts: dataplane, hosts, burst_frames, rate_bps, total_bps, measured
    (a date).

    `rate_bps` is 0 where even 2 Mb/s is too much. `processes` replay the traffic, or as many as by default. `say` is
    told of every probe. Needs root. Raises EmulatorError where a fabric cannot be built, or the number of hosts is none
    of `HOST_COUNTS`.
    """
    for count in hosts:
        if count not in HOST_COUNTS:
            known = ", ".join(map(str, HOST_COUNTS))
            raise EmulatorError(f"{count} hosts cannot be calibrated: use some of {known}")
    busy = busy_part()
    if busy > _QUIET:
        say(f"other programs use {busy:.0%} of this machine: what is found now is less than it carries alone")
    planes = dataplanes or [name for name in available() if burst_frames == 1 or PLANES[name].bursts]
    return [_row(dataplane, count, burst_frames, say, processes) for dataplane in planes for count in hosts]


def busy_part(seconds: float = 1.0) -> float:
    """Return the part of all cores in use now."""
    before = read_machine_cpu()
    time.sleep(seconds)
    spent = read_machine_cpu().since(before)
    return spent.busy_ticks / max(1, spent.total_ticks)


def _row(
    dataplane: str, hosts: int, burst_frames: int, say: Callable[[str], None], processes: Processes
) -> dict[str, Any]:
    name: str = dataplane
    burst = f", bursts of {burst_frames}" if burst_frames > 1 else ""

    def carried(rate_bps: int) -> bool:
        nonlocal name
        fabric = fabric_of(hosts, rate_bps, burst_frames)
        verdicts: list[bool] = []
        traffic = [Traffic(permutation(fabric), seed=seed) for seed in (1, 2, 3)]
        for row in rows(fabric, dataplane, traffic, processes=processes):
            name = row["dataplane"]
            verdicts.append(faithful(row, MOST_OVER_BOUND))
            say(f"{name}, {hosts} hosts x {format_rate_bps(rate_bps)}{burst}: {_in_words(row)}")
            if max(verdicts.count(True), verdicts.count(False)) == 2:
                break
        return verdicts.count(True) == 2

    rate_bps = highest(carried, _FIRST_TOTAL_BPS // hosts)
    return {
        "dataplane": name,
        "hosts": hosts,
        "burst_frames": burst_frames,
        "rate_bps": rate_bps,
        "total_bps": rate_bps * hosts,
        "measured": time.strftime("%Y-%m-%d"),
    }


def _in_words(row: Mapping[str, Any]) -> str:
    if "cct_over_bound" not in row:
        return str(row["fidelity_reasons"])
    reasons = f": {row['fidelity_reasons']}" if row["fidelity_reasons"] else ""
    return f"{row['cct_over_bound']:.3f} of the bound, fidelity {row['fidelity']}{reasons}"


def highest(carried: Callable[[int], bool], first_bps: int) -> int:
    """Return the highest rate that is `carried`, to within GRAIN, in bits/s; 0 if none is.

    Doubles up from `first_bps` (halves down, if that is too much) and then bisects; a step up is only given up once the
    next one fails too, for a moment's trouble may spoil one.
    """
    low, high = 0, 0
    rate = rounded(first_bps)
    while rate <= _MOST_RATE_BPS:
        if carried(rate):
            low, high = rate, 0
        elif high or not low:
            high = high or rate
            break
        else:
            high = rate
        rate *= 2
    while not low and rate > _LEAST_RATE_BPS:
        high, rate = rate, rounded(max(_LEAST_RATE_BPS, rate // 2))
        if carried(rate):
            low = rate
    while low and high > low * GRAIN:
        middle = rounded(math.sqrt(low * high))
        if carried(middle):
            low = middle
        else:
            high = middle
    return low


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return what `calibrate` found for people."""
    rows = []
    for row in found:
        rate = format_rate_bps(row["rate_bps"]) if row["rate_bps"] else f"below {format_rate_bps(_LEAST_RATE_BPS)}"
        total = f"{row['total_bps'] / 1e9:.3g} Gb/s" if row["rate_bps"] else "-"
        rows.append([row["dataplane"], str(row["hosts"]), str(row["burst_frames"]), rate, total, row["measured"]])
    headings = ["data plane", "hosts", "burst", "link rate", "all hosts\ntogether", "measured"]
    return table_of_rows("what this machine carries faithfully", headings, rows)
