"""What `spraylab calibrate` found on this machine, kept for later: to warn of rates too high, and to choose them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from emulator.caller import home
from emulator.files import Folder
from emulator.inputs import InputError, read_input
from emulator.ports import least_rate_bps
from emulator.topology import MAX_EMULATED_HOSTS
from experiments.results.folder import ResultsError, write_file
from experiments.results.manifest import machine
from experiments.spec.experiment import Experiment
from experiments.spec.fabric import MAX_BURST_FRAMES
from experiments.spec.fields import Auto
from experiments.spec.messages import SpecError
from experiments.spec.scale import REAL_RATE_BPS, rounded_up
from experiments.spec.units import format_rate_bps

_AUTO_PART = 0.8  # what passed at the edge fails now and then
_UNCALIBRATED_BPS = 160_000_000  # of all hosts together: what `quick` has, which two cores carry with room to spare
_MOST_BPS = 10**12
_MOST_BYTES = 1024 * 1024
_FILE = Path("spraylab/calibration.json")


@dataclass(frozen=True)
class Calibration:
    """What was found on this very machine."""

    rows: Sequence[Mapping[str, Any]]

    def faithful_rate_bps(self, dataplane: str, hosts: int, burst_frames: int = 1) -> int | None:
        """The highest faithful link rate of so many hosts; None where this data plane was not calibrated.

        Between two numbers of hosts that were measured the total of all hosts is interpolated (it falls slowly); beyond
        them it is that of the nearest.
        """
        known = self._known(dataplane, burst_frames)
        if not known:
            return None
        logs = np.log([row["hosts"] for row in known])
        total_bps = float(np.interp(math.log(hosts), logs, [row["total_bps"] for row in known]))
        return int(total_bps / hosts * (1 + 1e-9))

    def dataplane(self, asked: str, hosts: int, burst_frames: int = 1) -> str | None:
        """Which of the data planes calibrated is meant: of several, the one that carries most."""
        names = {
            row["dataplane"]
            for row in self.rows
            if (asked == "auto" or row["dataplane"].startswith(asked)) and self._known(row["dataplane"], burst_frames)
        }
        return max(names, key=lambda name: self.faithful_rate_bps(name, hosts, burst_frames) or 0, default=None)

    def warning(self, dataplane: str, hosts: int, rate_bps: int, burst_frames: int = 1) -> str | None:
        """One sentence, if so many hosts at this link rate are more than the machine carries faithfully."""
        most_bps = self.faithful_rate_bps(dataplane, hosts, burst_frames)
        if most_bps is None or rate_bps <= most_bps:
            return None
        measured = max(row["measured"] for row in self._known(dataplane, burst_frames))
        return (
            f"{hosts} hosts x {format_rate_bps(rate_bps)} is above what this machine carries faithfully on "
            f"{dataplane}: {format_rate_bps(rounded(most_bps))}, measured {measured}"
        )

    def _known(self, dataplane: str, burst_frames: int) -> list[Mapping[str, Any]]:
        rows = (row for row in self.rows if row["dataplane"] == dataplane and row["burst_frames"] == burst_frames)
        return sorted(rows, key=lambda row: row["hosts"])


def rounded(rate_bps: float) -> int:
    """To three digits, as people write rates."""
    return int(float(f"{rate_bps:.3g}"))


def with_rates(experiment: Experiment) -> Experiment:
    """Its rates that are `auto` are four fifths of what this machine was found to carry faithfully.

    Raises SpecError where that is not known.
    """
    spec = experiment.fabric
    if Auto.RATE not in (spec.host_rate_bps, spec.fabric_rate_bps):
        return experiment
    hosts = spec.shape().hosts
    found = load()
    dataplane = found and found.dataplane(spec.dataplane, hosts, spec.burst_frames)
    rate_bps = found and dataplane and found.faithful_rate_bps(dataplane, hosts, spec.burst_frames)
    auto_bps = rounded(_AUTO_PART * rate_bps) if rate_bps else 0
    if auto_bps < least_rate_bps(spec.mtu_bytes):
        burst = f" --burst {spec.burst_frames}" if spec.burst_frames > 1 else ""
        known = (
            "it carries none faithfully"
            if rate_bps is not None and dataplane
            else f"`spraylab calibrate{burst}` finds out"
        )
        raise SpecError(
            f"{experiment.name}: a rate of auto is what this machine carries with {hosts} hosts on {spec.dataplane}, "
            f"and {known}; or write a rate such as 20mbit"
        )
    fields = ("host_rate_bps", "fabric_rate_bps")
    settled = {name: auto_bps for name in fields if getattr(spec, name) is Auto.RATE}
    return experiment.model_copy(update={"fabric": spec.model_copy(update=settled)})


def to_scale(experiment: Experiment) -> Experiment:
    """Return `experiment` with its scale settled: by how much slower this machine is to emulate it.

    `auto` leaves rates below REAL_RATE_BPS as they are. Raises SpecError where what remains cannot be emulated.
    """
    spec = experiment.fabric
    rate_bps = max(spec.known_rates_bps)
    hosts = spec.shape().hosts
    if isinstance(spec.scale, int) or hosts > MAX_EMULATED_HOSTS:  # so many are refused whatever their rate
        return experiment
    if rate_bps < REAL_RATE_BPS:
        return experiment.at_scale(1)
    carried_bps = _carried_bps(experiment)
    factor = rounded_up(rate_bps / max(1, carried_bps))
    if spec.scale == "none" and factor > 1:
        raise SpecError(
            f"{experiment.name}: fabric.scale: none asks for links of {format_rate_bps(rate_bps)}, and with {hosts} "
            f"hosts this machine carries about {format_rate_bps(carried_bps)}: leave it out, or write {factor}"
        )
    slowest_bps = min(spec.known_rates_bps)
    if (least_bps := least_rate_bps(spec.mtu_bytes)) > slowest_bps // factor:
        fitting = int(hosts * slowest_bps / factor / least_bps)
        fits = f"about {fitting} hosts would fit" if fitting > 1 else "write rates that are nearer to each other"
        raise SpecError(
            f"{experiment.name}: with {hosts} hosts this machine carries links of about "
            f"{format_rate_bps(carried_bps)}, at which a frame of {spec.mtu_bytes} bytes takes more than a second on "
            f"the slowest: {fits}, or a smaller mtu; predict takes it as it is"
        )
    return experiment.at_scale(factor)


def _carried_bps(experiment: Experiment) -> int:
    """The link rate at which this machine is to emulate: as for `auto` if it was calibrated, else what `quick` has."""
    spec, hosts, found = experiment.fabric, experiment.fabric.shape().hosts, load()
    dataplane = found and found.dataplane(spec.dataplane, hosts, spec.burst_frames)
    if found and dataplane:
        return rounded(_AUTO_PART * (found.faithful_rate_bps(dataplane, hosts, spec.burst_frames) or 0))
    return _UNCALIBRATED_BPS // hosts


def warning(experiment: Experiment) -> str | None:
    """One sentence, if the links of an experiment are faster than was found faithful here, or nothing can be found."""
    (found, unusable), fabric = _read(), experiment.fabric.topology()
    if unusable:
        return unusable
    dataplane = found and found.dataplane(experiment.fabric.dataplane, fabric.hosts, fabric.burst_frames)
    if not found or not dataplane:
        return None
    rate_bps = fabric.fastest_bps
    return found.warning(dataplane, fabric.hosts, rate_bps, fabric.burst_frames)


def userspace_limit_bps(hosts: int) -> int | None:
    """Traffic of so many hosts together that Open vSwitch in user space carries faithfully here; None: not known."""
    found = load()
    rate_bps = found.faithful_rate_bps("ovs-user", hosts) if found else None
    return None if rate_bps is None else rate_bps * hosts


def save(found: Sequence[Mapping[str, Any]]) -> Path:
    """Keeps `found`, and what is known of others. Raises ResultsError."""
    before = load()
    kept = {_key(row): dict(row) for row in [*(before.rows if before else ()), *found]}
    path = calibration_file()
    if path is None:
        raise ResultsError("cannot keep what was found: this user has no home folder; set XDG_STATE_HOME to a folder")
    try:
        Folder(path.parent).make()
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}") from error
    write_file(path, json.dumps({"machine": machine(), "rows": list(kept.values())}, indent=2) + "\n")
    return path


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["dataplane"], row["hosts"], row["burst_frames"]


def load() -> Calibration | None:
    """What `save` kept on this machine, if it was this machine, with this kernel; None too where it is damaged."""
    return _read()[0]


def _read() -> tuple[Calibration | None, str | None]:
    """What is known of this machine, and a sentence if there is a file that cannot be used."""
    path = calibration_file()
    if path is None:
        return None, None
    try:
        content = json.loads(read_input(path, _MOST_BYTES))
        if content["machine"] != machine():
            return None, None
        return Calibration([_Row.model_validate(row).model_dump() for row in content["rows"]]), None
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None, None
        problem = str(error)
    except (ValueError, KeyError, TypeError, RecursionError):
        problem = "is not as `spraylab calibrate` wrote it"
    return None, f"{path} {problem}: it is not used; remove it, and `spraylab calibrate` writes a new one"


class _Row(BaseModel):
    """One number of hosts on one data plane."""

    model_config = ConfigDict(strict=True)

    dataplane: str = Field(pattern="^(ovs|linux)[a-z-]{0,20}$")
    hosts: int = Field(ge=1, le=MAX_EMULATED_HOSTS)
    burst_frames: int = Field(ge=1, le=MAX_BURST_FRAMES)
    rate_bps: int = Field(ge=0, le=_MOST_BPS)
    total_bps: int = Field(ge=0, le=_MOST_BPS * MAX_EMULATED_HOSTS)
    measured: str = Field(pattern="^[0-9-]{10}$")


def calibration_file() -> Path | None:
    """In the state folder of the user, or of the one who called sudo (XDG Base Directory Specification).

    None for a user who has no home folder.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state) / _FILE
    own = home()
    return own / ".local/state" / _FILE if own else None
