"""Traffic that is a collective of `traffic.collectives`: its options are those that the algorithms declare."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, StrictInt, StrictStr, ValidationInfo, create_model, field_validator

from emulator.topology import LeafSpine
from experiments.spec.fields import Between, SizeBytes, keys
from experiments.spec.traffic.entry import TrafficEntry
from traffic.collectives import COLLECTIVES, Outline, algorithm_of, build_schedule, outline
from traffic.schedule import Schedule

MAX_CHANNELS = 64

_SEED = "seed"  # the one option that is the run's and not the file's


class CollectiveTraffic(TrafficEntry):
    """One collective. `size_bytes` as nccl-tests counts it; options that are not given are None."""

    key: ClassVar[str] = "collective"
    example: ClassVar[str] = "{collective: alltoall, size: 4MB}"
    options: ClassVar[tuple[str, ...]] = ()

    collective: StrictStr = Field(description="the name of a collective such as alltoall")
    algorithm: StrictStr = Field(default="", validate_default=True, description="the name of an algorithm such as ring")
    channels: Annotated[
        StrictInt,
        Between(
            1,
            MAX_CHANNELS,
            too_few="a pair of ranks needs at least {least} connection",
            too_many="a pair of ranks has at most {most} connections",
        ),
    ] = 1
    size_bytes: SizeBytes = Field(default=4_000_000, alias="size", description="a size such as 4MB")

    @field_validator("collective")
    @classmethod
    def _known_collective(cls, collective: str) -> str:
        algorithm_of(collective)
        return collective

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, algorithm: str, info: ValidationInfo) -> str:
        if "collective" not in info.data:
            return algorithm
        return algorithm_of(info.data["collective"], algorithm or None).name

    def names(self) -> tuple[str, str]:
        return self.collective, self.algorithm

    @property
    def label(self) -> str:
        """Return the collective's name, and the algorithm's where there are several."""
        only = len(COLLECTIVES[self.collective].algorithms) == 1
        return self.collective if only else f"{self.collective}-{self.algorithm}"

    @property
    def seeded(self) -> bool:
        algorithm = algorithm_of(*self.names())
        return algorithm.seeded(**algorithm.with_defaults(self._given()))

    def settings(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def flow_count(self, topology: LeafSpine) -> int:
        return algorithm_of(*self.names()).flow_count(topology.hosts, self.channels, **self._given())

    def schedule(self, topology: LeafSpine, placement: str, seed: int) -> Schedule:
        """Schedule it for as many ranks as the fabric has hosts. Raises ScheduleError where the algorithm cannot."""
        options = self._placed(topology, placement)
        if _SEED in algorithm_of(*self.names()).options:
            options[_SEED] = seed
        return build_schedule(
            self.collective,
            self.algorithm,
            ranks=topology.hosts,
            size_bytes=self.size_bytes,
            channels=self.channels,
            **options,
        )

    def outline(self, topology: LeafSpine, placement: str) -> Outline | None:
        return outline(
            self.collective,
            self.algorithm,
            ranks=topology.hosts,
            size_bytes=self.size_bytes,
            channels=self.channels,
            **self._placed(topology, placement),
        )

    def blamed(self, message: str) -> tuple[str, ...]:
        known = keys(type(self))
        return next(((word,) for word in re.findall(r"\w+", message) if word in known), ())

    def _given(self) -> dict[str, int | str | None]:
        """The options that are given."""
        return {name: getattr(self, name) for name in self.options if getattr(self, name) is not None}

    def _placed(self, topology: LeafSpine, placement: str) -> dict[str, int | str | None]:
        """The options that are given, and those that follow from the placement."""
        options = self._given()
        if "shift" in algorithm_of(*self.names()).options:
            # The same place in the next leaf: so many ranks on as that place is away.
            options.setdefault("shift", 1 if placement == "interleaved" else topology.hosts_per_leaf)
        return options


def collective_traffic() -> type[CollectiveTraffic]:
    """Return entries whose keys are the options of every algorithm there is."""
    algorithms = [each for kind in COLLECTIVES.values() for each in kind.algorithms.values()]
    options = {name: option for each in algorithms for name, option in each.options.items() if name != _SEED}
    return _with_options(tuple((name, option.kind, option.says) for name, option in options.items()))


@cache
def _with_options(options: tuple[tuple[str, type[int] | type[str], str], ...]) -> type[CollectiveTraffic]:
    fields: dict[str, Any] = {}
    for name, kind, says in options:
        value = StrictStr if kind is str else StrictInt
        fields[name] = (Annotated[value | None, AfterValidator(_takes_it)], Field(default=None, description=says))
    model = create_model("CollectiveTraffic", __base__=CollectiveTraffic, __module__=__name__, **fields)
    model.options = tuple(fields)
    return model


def _takes_it(value: int | str | None, info: ValidationInfo) -> int | str | None:
    if value is not None and info.field_name and {"collective", "algorithm"} <= info.data.keys():
        algorithm_of(info.data["collective"], info.data["algorithm"], {info.field_name: value})
    return value
