"""The kinds of entries that `traffic` may have: a file a kind, and a line in `kinds`.

Whatever reads entries asks here, so that a format or an algorithm that is registered is known to experiment files too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import PlainValidator, SerializeAsAny, ValidationInfo

from experiments.spec.messages import shown
from experiments.spec.traffic.collective import CollectiveTraffic, collective_traffic
from experiments.spec.traffic.entry import TrafficEntry
from experiments.spec.traffic.files import file_traffic
from experiments.spec.traffic.job import JobTraffic
from experiments.spec.traffic.requests import RequestTraffic
from experiments.spec.traffic.several import SeveralTraffic
from traffic.formats import FORMATS

__all__ = ["Traffic", "TrafficEntry", "kind_of", "kinds", "read_entry"]


def kinds() -> dict[str, type[TrafficEntry]]:
    """Return every kind, by the key that tells it."""
    return {
        CollectiveTraffic.key: collective_traffic(),
        JobTraffic.key: JobTraffic,
        RequestTraffic.key: RequestTraffic,
        SeveralTraffic.key: SeveralTraffic,
        **{key: file_traffic(form) for key, form in FORMATS.items()},
    }


def kind_of(entry: object) -> type[TrafficEntry]:
    """Return the kind that an entry is meant to be of: a collective, unless it says otherwise. Raises ValueError."""
    known = kinds()
    if not isinstance(entry, dict):
        example, *others = known.values()
        raise ValueError(
            f"{shown(entry)} is no entry; write one such as {example.example}, or with one of the keys "
            f"{', '.join(other.key for other in others)}"
        )
    named = [key for key in known if key in entry]
    if len(named) > 1:
        raise ValueError(f"names both a {named[0]} and a {named[1]}; keep one")
    return known[named[0] if named else CollectiveTraffic.key]


def read_entry(entry: object, folder: Path = Path()) -> TrafficEntry:
    """Return an entry as an experiment file of `folder` has it. Raises ValueError."""
    if isinstance(entry, TrafficEntry):
        return entry
    return kind_of(entry).model_validate(entry, context={"folder": folder, "read": read_entry})


def _in_its_folder(entry: object, info: ValidationInfo) -> TrafficEntry:
    return read_entry(entry, (info.context or {}).get("folder", Path()))


Traffic = Annotated[SerializeAsAny[TrafficEntry], PlainValidator(_in_its_folder)]
