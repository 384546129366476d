"""What this machine carries faithfully: for each data plane and number of hosts, the highest link rate.

Probed with a permutation that keeps all links busy for about a second, under ethereal with 4 channels: a rate is
carried if two of at most three runs are within MOST_OVER_BOUND of their bound with fidelity "pass".
"""

from __future__ import annotations

import json
import math
import os
import platform
import pwd
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from emulator.dataplane import Asked
from emulator.sandbox import EmulatorError
from experiments.planner import Planner
from experiments.probe import HOST_COUNTS, Traffic, available, fabric_of, faithful, permutation, rows
from experiments.results import as_caller, write_file
from experiments.units import format_rate_bps

MOST_OVER_BOUND = 1.05
GRAIN = 1.15
"""The highest rate carried is found to within this factor."""

_FIRST_TOTAL_BPS = 256_000_000  # of all hosts together
_LEAST_RATE_BPS = 2_000_000  # below it, one frame takes longer than anything else
_MOST_RATE_BPS = 10_000_000_000
_QUIET = 0.1
_FILE = Path("spraylab/calibration.json")


def calibrate(
    hosts: Sequence[int] = (16,), dataplanes: Sequence[Asked] | None = None, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """One row for every data plane and number of hosts: dataplane, hosts, rate_bps, total_bps, measured (a date).

    `rate_bps` is 0 where even 2 Mb/s is too much. `say` is told of every probe. Needs root. Raises EmulatorError where
    a fabric cannot be built, or the number of hosts is none of `HOST_COUNTS`.
    """
    for count in hosts:
        if count not in HOST_COUNTS:
            known = ", ".join(map(str, HOST_COUNTS))
            raise EmulatorError(f"{count} hosts cannot be calibrated: use some of {known}")
    busy = busy_part()
    if busy > _QUIET:
        say(f"other programs use {busy:.0%} of this machine: what is found now is less than it carries alone")
    return [_row(dataplane, count, say) for dataplane in dataplanes or available() for count in hosts]


def busy_part(seconds: float = 1.0) -> float:
    """The part of all cores in use now."""
    before = _idle_and_total()
    time.sleep(seconds)
    idle, total = (now - then for now, then in zip(_idle_and_total(), before, strict=True))
    return 1 - idle / max(1, total)


def _idle_and_total() -> tuple[int, int]:
    ticks = [int(field) for field in Path("/proc/stat").read_text().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _row(dataplane: Asked, hosts: int, say: Callable[[str], None]) -> dict[str, Any]:
    name: str = dataplane

    def carried(rate_bps: int) -> bool:
        nonlocal name
        fabric = fabric_of(hosts, rate_bps)
        verdicts: list[bool] = []
        for row in rows(fabric, dataplane, [Traffic(permutation(fabric), seed=seed) for seed in (1, 2, 3)]):
            name = row["dataplane"]
            verdicts.append(faithful(row, MOST_OVER_BOUND))
            say(f"{name}, {hosts} hosts x {format_rate_bps(rate_bps)}: {_in_words(row)}")
            if max(verdicts.count(True), verdicts.count(False)) == 2:
                break
        return verdicts.count(True) == 2

    rate_bps = highest(carried, _FIRST_TOTAL_BPS // hosts)
    return {
        "dataplane": name,
        "hosts": hosts,
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
    """The highest rate that is `carried`, to within GRAIN, in bits/s; 0 if none is.

    Doubles up from `first_bps` (halves down, if that is too much) and then bisects; a step up is only given up once the
    next one fails too, for a moment's trouble may spoil one.
    """
    low, high = 0, 0
    rate = _rounded(first_bps)
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
        high, rate = rate, _rounded(max(_LEAST_RATE_BPS, rate // 2))
        if carried(rate):
            low = rate
    while low and high > low * GRAIN:
        middle = _rounded(math.sqrt(low * high))
        if carried(middle):
            low = middle
        else:
            high = middle
    return low


def _rounded(rate_bps: float) -> int:
    """To three digits, as people write rates."""
    return int(float(f"{rate_bps:.3g}"))


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    shown = Table(title="what this machine carries faithfully")
    for heading in ("data plane", "hosts", "link rate", "all hosts together", "measured"):
        shown.add_column(heading, justify="left" if heading == "data plane" else "right")
    for row in found:
        rate = format_rate_bps(row["rate_bps"]) if row["rate_bps"] else f"below {format_rate_bps(_LEAST_RATE_BPS)}"
        total = f"{row['total_bps'] / 1e9:.3g} Gb/s" if row["rate_bps"] else "-"
        shown.add_row(row["dataplane"], str(row["hosts"]), rate, total, row["measured"])
    return shown


@dataclass(frozen=True)
class Calibration:
    """What was found on this very machine."""

    rows: Sequence[Mapping[str, Any]]

    def faithful_rate_bps(self, dataplane: str, hosts: int) -> int | None:
        """The highest faithful link rate of so many hosts; None where this data plane was not calibrated.

        Between two numbers of hosts that were measured the total of all hosts is interpolated (it falls slowly); beyond
        them it is that of the nearest.
        """
        known = self._known(dataplane)
        if not known:
            return None
        logs = np.log([row["hosts"] for row in known])
        total_bps = float(np.interp(math.log(hosts), logs, [row["total_bps"] for row in known]))
        return int(total_bps / hosts * (1 + 1e-9))

    def dataplane(self, asked: Asked, hosts: int) -> str | None:
        """Which of the data planes calibrated is meant: of several, the one that carries most."""
        names = {row["dataplane"] for row in self.rows if asked == "auto" or row["dataplane"].startswith(asked)}
        return max(names, key=lambda name: self.faithful_rate_bps(name, hosts) or 0, default=None)

    def warning(self, dataplane: str, hosts: int, rate_bps: int) -> str | None:
        """One sentence, if so many hosts at this link rate are more than the machine carries faithfully."""
        most_bps = self.faithful_rate_bps(dataplane, hosts)
        if most_bps is None or rate_bps <= most_bps:
            return None
        measured = max(row["measured"] for row in self._known(dataplane))
        return (
            f"{hosts} hosts x {format_rate_bps(rate_bps)} is above what this machine carries faithfully on "
            f"{dataplane}: {format_rate_bps(_rounded(most_bps))}, measured {measured}"
        )

    def _known(self, dataplane: str) -> list[Mapping[str, Any]]:
        return sorted((row for row in self.rows if row["dataplane"] == dataplane), key=lambda row: row["hosts"])


def save(found: Sequence[Mapping[str, Any]]) -> Path:
    """Keeps `found`, and what is known of other data planes and numbers of hosts. Raises ResultsError."""
    new = {(row["dataplane"], row["hosts"]): dict(row) for row in found}
    before = load()
    old = {(row["dataplane"], row["hosts"]): dict(row) for row in before.rows} if before else {}
    path = calibration_file()
    with as_caller():
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps({"machine": machine(), "rows": list((old | new).values())}, indent=2) + "\n")
    return path


def load() -> Calibration | None:
    """What `save` kept on this machine, if it was this machine, with this kernel."""
    try:
        content = json.loads(calibration_file().read_text())
        return Calibration(content["rows"]) if content["machine"] == machine() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def warn_beyond_calibration(planner: Planner, console: Console) -> None:
    """Say so if the links of an experiment are faster than was found faithful here."""
    found = load()
    fabric = planner.fabric
    if found and (dataplane := found.dataplane(planner.experiment.fabric.dataplane, fabric.hosts)):
        warning = found.warning(dataplane, fabric.hosts, max(fabric.host_rate_bps, fabric.fabric_rate_bps))
        if warning:
            console.print(f"[yellow]warning:[/yellow] {warning}", highlight=False)


def calibration_file() -> Path:
    """In the state folder of the user, or of the one who called sudo (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state) / _FILE
    caller = os.environ.get("SUDO_UID") if os.geteuid() == 0 else None
    home = Path(pwd.getpwuid(int(caller)).pw_dir) if caller else Path.home()
    return home / ".local/state" / _FILE


def machine() -> dict[str, Any]:
    """What capacity depends on."""
    return {"kernel": platform.release(), "cores": len(os.sched_getaffinity(0)), "cpu": _cpu_model()}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
