"""Traffic that is several entries at the same time, each on hosts of its own or all on the same."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import zip_longest
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, StrictStr, ValidationInfo, field_validator

from emulator.inputs import quote
from emulator.topology import LeafSpine
from experiments.spec.fields import DelayS
from experiments.spec.messages import shown
from experiments.spec.traffic.entry import TrafficEntry
from experiments.spec.traffic.scaled import MAX_RANKS
from traffic.jobs.graph import MAX_TASKS, JobError
from traffic.jobs.together import together
from traffic.schedule import Schedule

MAX_JOBS = 64


def _entries(value: object, info: ValidationInfo) -> object:
    assert info.context, "entries are read by read_entry"
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_JOBS:
        raise ValueError(f"{shown(value)} is not a list of 1 to {MAX_JOBS} entries such as {SeveralTraffic.example}")
    read, folder = info.context["read"], info.context["folder"]  # of whoever knows all kinds, this one too
    return tuple(read(entry, folder) for entry in value)


_SOME_HOSTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_PLACES = ("packed", "spread")


def _place(text: str) -> str:
    if text not in _PLACES and not _numbered(text):
        raise ValueError(f"{quote(text)} is no place; write hosts such as 0-7 or 0,4,8-9, or {' or '.join(_PLACES)}")
    return text


def _numbered(text: str) -> list[int]:
    """The hosts that a place names, in its order; none where it names none, or what is no number."""
    found: list[int] = []
    for part in text.split(",", MAX_RANKS):
        some = _SOME_HOSTS.fullmatch(part)
        if not some or len(found) > MAX_RANKS:
            return []
        found += range(int(some[1]), int(some[2] or some[1]) + 1)
    return found


def _hosts(where: str, ranks: int, label: str, topology: LeafSpine, taken: Collection[int]) -> list[int]:
    """Return the hosts of one entry's ranks. Raises JobError where there are too few or too many, or not all free."""
    wanted = _numbered(where)
    if not wanted:
        free = [[host for host in topology.hosts_of(leaf) if host not in taken] for leaf in range(topology.leaves)]
        turns: Iterable[Iterable[int | None]] = free if where == "packed" else zip_longest(*free)
        wanted = [host for turn in turns for host in turn if host is not None][:ranks]
    if len(wanted) != ranks:
        raise JobError(f"hosts {where} are {len(wanted)}, and {label} has {ranks} ranks: they must be as many")
    if max(wanted) >= topology.hosts:
        raise JobError(f"hosts {where}: the fabric has hosts 0 to {topology.hosts - 1}")
    seen = set(taken)
    for host in wanted:
        if host in seen:
            raise JobError(f"hosts {where}: host {host} is taken already: a host has one rank")
        seen.add(host)
    return wanted


class SeveralTraffic(TrafficEntry):
    """Several jobs at the same time, each on as many ranks as it has, one after the other in the order of ranks; or all
    on the same.

    `places` are where each lives, whatever the experiment's placement: on hosts by number, from 0 on, on the first ones
    that are free (packed), or on free ones of one leaf after the other (spread). `starts_s` is when each begins.
    """

    key: ClassVar[str] = "together"
    example: ClassVar[str] = "{together: [{job: ddp, model: dit-xl2, ranks: 8}, {goal: FILE.goal}]}"

    entries: Annotated[tuple[SerializeAsAny[TrafficEntry], ...], BeforeValidator(_entries)] = Field(
        alias="together", description="a list of entries, of which jobs have ranks"
    )
    ranks: Literal["own", "same"] = Field(default="own", description="own or same")
    places: tuple[Annotated[StrictStr, AfterValidator(_place)], ...] | None = Field(
        default=None, alias="hosts", description="a list with a place for each such as [0-7, packed, spread]"
    )
    starts_s: tuple[DelayS, ...] | None = Field(
        default=None, alias="start", description="a list with a time for each such as [0s, 2s]"
    )

    @field_validator("places", "starts_s")
    @classmethod
    def _one_each(cls, values: tuple[Any, ...] | None, info: ValidationInfo) -> tuple[Any, ...] | None:
        entries = info.data.get("entries", ())
        if values is not None and entries and len(values) != len(entries):
            raise ValueError(f"a list of {len(values)} for {len(entries)} entries; write one for each")
        return values

    def names(self) -> tuple[str, str]:
        return self.key, "-".join(entry.label for entry in self.entries)

    @property
    def label(self) -> str:
        return "+".join(entry.label for entry in self.entries)

    @property
    def parts(self) -> tuple[TrafficEntry, ...]:
        return self.entries

    @property
    def seeded(self) -> bool:
        return any(entry.seeded for entry in self.entries)

    def settings(self) -> dict[str, Any]:
        own = {"hosts": self.places, "start": self.starts_s, "ranks": ["same"] if self.ranks == "same" else None}
        return {key: "+".join(map(str, value)) for key, value in own.items() if value} | {
            f"{place}-{key}": value
            for place, entry in enumerate(self.entries)
            for key, value in entry.settings().items()
        }

    def flow_count(self, topology: LeafSpine) -> int:
        return sum(entry.flow_count(topology) for entry in self.entries)

    def schedule(self, topology: LeafSpine, placement: str, seed: int) -> Schedule:
        """Return all of them as one. Raises JobError for more than one may have."""
        schedules: list[Schedule] = []
        tasks = 0
        for entry in self.entries:
            schedules.append(entry.schedule(topology, placement, seed))
            tasks += len(schedules[-1].flows) + len(schedules[-1].computes)
            if tasks > MAX_TASKS:
                raise JobError(f"more than {MAX_TASKS:,} flows and computations together: use fewer or smaller jobs")
            if self.ranks == "same" and (schedules[-1].computes or self.places):
                raise JobError("ranks: same is for what only sends, on all hosts; leave it out, or hosts and jobs")
        labels = [entry.label for entry in self.entries]
        hosts: list[int] = []
        for schedule, label, where in zip(schedules, labels, self.places or (), strict=False):
            hosts += _hosts(where, schedule.ranks, label, topology, set(hosts))
        return together(schedules, labels, self.starts_s or (), hosts or None, same_ranks=self.ranks == "same")

    def blamed(self, message: str) -> tuple[str, ...]:
        return ("hosts",) if message.startswith("hosts ") else super().blamed(message)
