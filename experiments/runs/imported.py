"""A file of another tool as an experiment: its format found, its schedule read, and a fabric of its size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from emulator.caller import as_caller
from emulator.inputs import quote
from emulator.topology import LeafSpine
from experiments.spec.experiment import default_name
from experiments.spec.fields import keys
from experiments.spec.messages import explain
from experiments.spec.traffic import kinds
from experiments.spec.units import parse_rate_bps
from experiments.theory.told import critical_path_s
from traffic.collectives import ScheduleError
from traffic.formats import FORMATS, Format, FormatError
from traffic.schedule import Schedule

HOST_RATE_BPS = 50_000_000
_HOST_RATE = "50mbit"
LONGEST_S = 20.0
"""About how long a run of the experiment that is written takes, if nothing of it is hidden."""

FEWEST_FRAMES = 16
_PAYLOAD_BYTES = 9000 - 52

DEFAULT_RANKS = 16
_HOSTS_PER_LEAF = 4


class NotImported(ValueError):
    """A file that cannot be imported; the message is one sentence."""


@dataclass(frozen=True)
class Imported:
    """A file's schedule at its own size, and the entry of `traffic` that reads it."""

    path: Path
    says: str
    schedule: Schedule
    entry: Mapping[str, Any]

    def scaling(self) -> dict[str, str]:
        """Return in words how the experiment is scaled, and how many frames of 9000 bytes its pieces are."""
        if "scale" not in self.entry:
            return {}
        scale = self.entry["scale"]
        frames = median(flow.size_bytes for flow in self.schedule.flows) * scale / _PAYLOAD_BYTES
        few = (
            f": fewer than {FEWEST_FRAMES}, so latency counts for more than it would" if frames < FEWEST_FRAMES else ""
        )
        slower = scale * parse_rate_bps(self.entry["network"]) / HOST_RATE_BPS
        return {
            "scaled": f"bytes x {scale:g} and times x {slower:.3g}, as {self.entry['network']} becomes {_HOST_RATE}",
            "a flow": f"{frames:.3g} frames of 9000 bytes in the median{few}",
        }


def imported(path: Path, key: str | None, ranks: int | None, options: Mapping[str, Any], network: str) -> Imported:
    """Read `path` by the format `key`, or by the first that can. Raises NotImported."""
    if key is not None and key not in FORMATS:
        raise NotImported(f"--format: unknown format {quote(key)}: use one of {', '.join(FORMATS)}")
    try:
        parse_rate_bps(network)
    except ValueError as error:
        raise NotImported(f"--network: {error}") from error
    known = [form for form in FORMATS.values() if options.keys() <= {*form.options, *_SCALED}]
    likely = [form for form in known if form.suffix == path.suffix] or known
    tried: list[str] = []
    for form in [FORMATS[key]] if key else likely:
        try:
            return _read(path, form, ranks, options, network)
        except NotImported as error:
            tried.append(str(error))
    if not tried:
        raise NotImported(f"--set: no format has all of the keys {', '.join(map(quote, options))}")
    with as_caller():
        there = path.is_file()
    if len(tried) == 1 or not there:
        raise NotImported(tried[0])
    if begun := [error for error in tried if _BEYOND_THE_FIRST_LINE.match(error.rpartition(path.name)[2])]:
        raise NotImported(begun[-1])  # its first line is right; what is alike but for more words in it comes later
    names = ", ".join(form.key for form in likely)
    raise NotImported(f"{path}: is of none of the formats {names}; name one with --format to see what is wrong")


_BEYOND_THE_FIRST_LINE = re.compile(r":([2-9]|[1-9][0-9]+): ")
_SCALED = ("scale", "network", "straggler", "ranks")


def _read(path: Path, form: Format, ranks: int | None, options: Mapping[str, Any], network: str) -> Imported:
    kind = kinds()[form.key]
    given = {form.key: str(path.absolute()), **options}
    if form.takes("ranks"):
        given.setdefault("ranks", ranks or DEFAULT_RANKS)
    try:
        entry = kind.model_validate(given, context={"folder": Path()})
        schedule = entry.schedule(LeafSpine(1, 1, 1), "packed", 0)
    except ValidationError as invalid:
        error = invalid.errors(include_url=False)[0]
        raise NotImported(
            f"--set {error['loc'][-1] if error['loc'] else ''}: {explain(error, keys(kind))}"
        ) from invalid
    except (FormatError, ScheduleError) as error:
        raise NotImported(str(error)) from error
    if form.takes("scale"):
        here_s = schedule.size_bytes * 8 / HOST_RATE_BPS
        here_s += critical_path_s(schedule) * parse_rate_bps(network) / HOST_RATE_BPS
        scale = min(1.0, LONGEST_S / here_s)
        given |= {"scale": float(f"{scale:.2g}"), "network": network}
    return Imported(path, form.says, schedule, given)


def as_yaml(found: Imported) -> str:
    """Return an experiment that replays it, as a file."""
    hosts = min(_HOSTS_PER_LEAF, -(-found.schedule.ranks // 2))
    leaves = -(-found.schedule.ranks // hosts)
    content = {
        "name": default_name(found.path.stem),
        "fabric": {
            "leaves": leaves,
            "spines": hosts,
            "hosts_per_leaf": hosts,
            "host_rate": _HOST_RATE,
        },
        "traffic": [dict(found.entry)],
        "seeds": [1, 2, 3],
    }
    text = StringIO()
    YAML(typ="safe", pure=True).dump(content, text)
    return text.getvalue()
