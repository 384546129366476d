"""What captures cost: the same runs with and without them, one after the other in one fabric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from emulator.meters.capture import Which
from experiments.machine.probe import Traffic, available, fabric_of, permutation, rows

REPEATS = 5
_RATES_BPS = {"ovs": 10_000_000, "linux": 50_000_000}
_UNKNOWN_BPS = 10_000_000  # on a data plane of which nothing is known
_SECONDS = 2.0


def run(kinds: Sequence[Which] = ("none", "uplinks", "all"), repeats: int = REPEATS) -> list[dict[str, Any]]:
    """Return a row for every data plane and kind of capture: median CCT, and its ratio to the one without captures.

    A permutation of 16 hosts under ethereal; kinds take turns, so that what else the machine does touches them alike.
    """
    found = []
    for dataplane in available():
        medians = {kind: frame.cct_s.median() for kind, frame in _measured(dataplane, kinds, repeats).items()}
        for kind, cct_s in medians.items():
            found.append(
                {
                    "dataplane": dataplane,
                    "host_rate_bps": _RATES_BPS.get(dataplane, _UNKNOWN_BPS),
                    "captures": kind,
                    "runs": repeats,
                    "cct_s": cct_s,
                    "cct_over_none": cct_s / medians["none"],
                }
            )
    return found


def _measured(dataplane: str, kinds: Sequence[Which], repeats: int) -> dict[Which, pd.DataFrame]:
    fabric = fabric_of(16, _RATES_BPS.get(dataplane, _UNKNOWN_BPS))
    schedule = permutation(fabric, _SECONDS)
    traffic = [Traffic(schedule, captures=kind) for _ in range(repeats) for kind in kinds]
    frame = pd.DataFrame(rows(fabric, dataplane, traffic))
    frame["captures"] = [each.captures for each in traffic]
    return {kind: frame[frame.captures == kind] for kind in kinds}
