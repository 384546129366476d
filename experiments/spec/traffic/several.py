"""Traffic that is several entries at the same time, each on hosts of its own or all on the same."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator

from emulator.topology import LeafSpine
from experiments.spec.fields import StartS, format_start_s
from experiments.spec.messages import shown
from experiments.spec.traffic.entry import TrafficEntry
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


class SeveralTraffic(TrafficEntry):
    """Several jobs, each on as many ranks as it has, one after the other in the order of ranks; or all on the same.

    `starts_s` are the times at which they start, one for each; without any, all start at once.
    """

    key: ClassVar[str] = "together"
    example: ClassVar[str] = "{together: [{job: ddp, model: dit-xl2, ranks: 8}, {goal: FILE.goal}]}"

    entries: Annotated[tuple[SerializeAsAny[TrafficEntry], ...], BeforeValidator(_entries)] = Field(
        alias="together", description="a list of entries, of which jobs have ranks"
    )

    ranks: Literal["own", "same"] = Field(default="own", description="own or same")
    starts_s: tuple[StartS, ...] = Field(default=(), alias="starts", description="a list of times such as [0s, 200ms]")

    @field_validator("starts_s")
    @classmethod
    def _one_for_each(cls, starts_s: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        entries = info.data.get("entries", ())
        if starts_s and entries and len(starts_s) != len(entries):
            raise ValueError(f"{len(starts_s)} times for {len(entries)} entries; write one for each")
        return starts_s

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
        own: dict[str, Any] = {"ranks": self.ranks} if self.ranks != "own" else {}
        if self.starts_s:
            own["starts"] = " ".join(map(format_start_s, self.starts_s))
        return own | {
            f"{place}-{key}": value
            for place, entry in enumerate(self.entries)
            for key, value in entry.settings().items()
        }

    def flow_count(self, topology: LeafSpine) -> int:
        return sum(entry.flow_count(topology) for entry in self.entries)

    def schedule(self, topology: LeafSpine, placement: str, seed: int) -> Schedule:
        """Return all of them as one. Raises JobError for more than one may have, and for what cannot be placed so."""
        schedules: list[Schedule] = []
        tasks = 0
        for entry in self.entries:
            schedules.append(entry.schedule(topology, placement, seed))
            tasks += len(schedules[-1].flows) + len(schedules[-1].computes)
            if tasks > MAX_TASKS:
                raise JobError(f"more than {MAX_TASKS:,} flows and computations together: use fewer or smaller jobs")
            if schedules[-1].computes and (self.starts_s or self.ranks != "own"):
                raise JobError(
                    f"{entry.label} computes, and starts and ranks: same are for what only sends; leave them out"
                )
        names = [entry.label for entry in self.entries]
        return together(schedules, names, same_ranks=self.ranks == "same", starts_s=self.starts_s)
