"""What an experiment is, and the checking of its file: every error is one sentence with file, line, key and the fix."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from emulator.caller import as_caller
from emulator.faults import Fault, Reaction
from emulator.topology import LeafSpine
from experiments.spec.budget import too_many_swept
from experiments.spec.fabric import FabricSpec
from experiments.spec.faults import Faults, fault_kind_of, faults_of, impossible_faults
from experiments.spec.fields import Between, Keys, Matches, TimeS, keys, one_of_each, some
from experiments.spec.messages import Problem, SpecError, explain, meant, report
from experiments.spec.reaction import HostsSpec, ReactionSpec
from experiments.spec.replay import ReplaySpec
from experiments.spec.strain import Strains, StrainSpec, kind_of_strain
from experiments.spec.sweep import Sweep, Swept
from experiments.spec.traffic import Traffic, kind_of
from experiments.spec.yamlfile import YamlFile, YamlFileError, put, read_yaml
from traffic.collectives import ScheduleError
from traffic.formats import FormatError
from traffic.placement import PlacementError, place
from traffic.promises import check_verifiable
from traffic.repath import Repath
from traffic.schedule import Schedule
from traffic.schemes import names_of_role, scheme_of
from traffic.strain import Strain, StrainError, strained
from traffic.transport import Transport

CATALOG = Path(__file__).parents[1] / "catalog"
STARTER = Path(__file__).parents[1] / "examples" / "starter.yaml"
"""What `init` writes."""

MAX_CHECKED_FLOWS = 300_000  # of a file; schedules of more take too long to build just for checking
MAX_SEED = 2**16 - 1  # the basis of the leaf's hash has 16 bits

_LONGEST_NAME = 100

Placement = Literal["packed", "interleaved", "random"]


def _checked_scheme(name: str) -> str:
    return scheme_of(name).name


_COMPARED = tuple(names_of_role(role)[0] for role in ("plain", "spraying", "splitting"))  # by the verdict
Scheme = Annotated[StrictStr, AfterValidator(_checked_scheme)]
Seed = Annotated[
    StrictInt,
    Between(
        0,
        MAX_SEED,
        too_few="a seed is from {least} to {most}",
        too_many="ECMP's seed has 16 bits, so at most {most}",
    ),
]


class TransportSpec(Keys):
    """How the hosts' TCP is set up: see `traffic.transport.Transport`."""

    congestion_control: Annotated[
        StrictStr, Matches("[a-z0-9_-]{1,15}", "the kernel's name of a congestion control such as cubic")
    ] = Field(default="cubic", description="the name of a congestion control such as cubic")
    windows: Literal["fitted", "default"] = "fitted"
    acknowledgements: Literal["first", "in-turn"] = "first"
    reordering: Literal["tolerant", "default"] = "tolerant"


@dataclass(frozen=True)
class Point:
    """One setting of a sweep: the values of the swept keys as they are written, and the experiment with them."""

    label: str
    setting: Mapping[str, str]
    experiment: Experiment


class Experiment(Keys):
    """Runs are the product `traffic` x `schemes` x `seeds`, at each point of `sweep`."""

    name: Annotated[
        StrictStr,
        Matches(
            f"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_LONGEST_NAME - 1}}}",
            f"a name of at most {_LONGEST_NAME} letters, digits, '.', '_', '-', such as my-test.1",
        ),
    ] = Field(description="a name such as my-test (in quotes if it is a number)")
    fabric: FabricSpec = Field(description="a mapping such as {leaves: 4, spines: 4, hosts_per_leaf: 4}")
    traffic: Annotated[tuple[Traffic, ...], AfterValidator(some)] = Field(
        description="a list of entries such as {collective: alltoall, size: 4MB}"
    )
    schemes: Annotated[tuple[Scheme, ...], AfterValidator(one_of_each)] = Field(
        default=_COMPARED, description=f"a list such as [{', '.join(_COMPARED)}]"
    )
    transport: TransportSpec = Field(default=TransportSpec(), description="a mapping such as {reordering: tolerant}")
    replay: ReplaySpec = Field(default=ReplaySpec(), description="a mapping such as {processes: 1}")
    placement: Placement = "packed"
    seeds: Annotated[tuple[Seed, ...], AfterValidator(one_of_each)] = Field(
        default=(1, 2, 3), description="a list of whole numbers such as [1, 2, 3]"
    )
    captures: Literal["none", "uplinks", "hosts", "all"] = "none"

    @field_validator("captures")
    @classmethod
    def _captured_as_on_a_wire(cls, captures: str, info: ValidationInfo) -> str:
        fabric = info.data.get("fabric")
        if captures != "none" and fabric and fabric.burst_frames > 1:
            raise ValueError(f"{captures} captures bursts as single frames; write none, or 1 as fabric.burst")
        return captures

    faults: tuple[Faults, ...] = Field(
        default=(), description="a list such as [{at: 30%, for: 2s, link: leaf1-spine1, kind: degrade, rate: 50%}]"
    )
    reaction: ReactionSpec | None = Field(default=None, description="a mapping such as {network: controller}")
    verify: StrictBool = Field(default=False, description="true or false")
    strain: Strains | None = Field(default=None, description="a mapping such as {jitter: 5%}")

    @field_validator("strain")
    @classmethod
    def _data_can_be_checked(cls, strain: StrainSpec | None, info: ValidationInfo) -> StrainSpec | None:
        for each in strain.strains() if strain and info.data.get("verify") else ():
            if not each.keeps_data:
                raise ValueError(
                    f"{each.key} changes what flows carry, so that no data can be checked; write 0, or verify: false"
                )
        return strain

    stall_timeout_s: TimeS = Field(default=10.0, alias="stall_timeout", description="a time such as 10s")
    sweep: Swept | None = Field(default=None, description="a mapping such as {strain.jitter: [0, 5%]}")

    _checked: dict[tuple[int, int, LeafSpine], Schedule] = PrivateAttr(default_factory=dict)
    """What was listed to check `traffic`, which is not listed again: by entry, seed and fabric."""

    @property
    def listed(self) -> int:
        """How many flows and computations were listed to check `traffic`."""
        return sum(len(schedule.flows) + len(schedule.computes) for schedule in self._checked.values())

    def tcp(self) -> Transport:
        """How the hosts' TCP is to be set up."""
        return Transport(**self.transport.model_dump(), stall_timeout_s=self.stall_timeout_s)

    def impossible_faults(self) -> list[Problem]:
        """What of `faults` cannot be on this fabric; rates are looked at once they are known."""
        known = self.fabric.rates_known
        fabric = self.fabric.at_scale(1).topology() if known else self.fabric.shape()
        return list(impossible_faults(self.faults, fabric, rates_known=known))

    def broken(self, bound_s: float, seed: int) -> list[Fault]:
        """What breaks in the run of `seed` whose bound, were all whole, is `bound_s`."""
        if not self.faults:
            return []
        scale, real = self.fabric.slower, self.fabric.at_scale(1).topology()
        return [scale.slowed(fault) for fault in faults_of(self.faults, real, bound_s / scale.factor, seed)]

    def network_reaction(self) -> Reaction | None:
        """What the network does about links that are down; None: nothing."""
        reaction = self.reaction.of_network() if self.reaction else None
        return reaction and self.fabric.slower.slowed(reaction)

    def repath(self) -> Repath | None:
        """What the hosts of a replay do about connections that bring nothing any more; None: nothing."""
        repath = self.reaction.of_hosts() if self.reaction else None
        return repath and self.fabric.slower.slowed(repath)

    def schedule(self, traffic_index: int, seed: int) -> Schedule:
        """The flows of one entry of `traffic`, as every scheme of this seed sends them, before any strain."""
        shape = self.fabric.shape()
        real = self._checked.get((traffic_index, seed, shape))
        if real is None:
            real = self.traffic[traffic_index].schedule(shape, self.placement, seed)
        return self.fabric.slower.schedule(real)

    def impossible_traffic(self) -> Iterator[Problem]:
        """Entries of `traffic` that make no schedule on this fabric; of too many flows, no more are looked at."""
        seed, shape = self.seeds[0], self.fabric.shape()
        for index, entry in enumerate(self.traffic):
            if self.listed + entry.flow_count(shape) > MAX_CHECKED_FLOWS:
                return
            try:
                self._checked[index, seed, shape] = entry.schedule(shape, self.placement, seed)
                schedule = self.schedule(index, seed)
                self.hosts(schedule, seed)
                if self.verify:
                    check_verifiable(schedule)
                self.strained(schedule, 1.0, seed)
            except StrainError as error:
                yield Problem(("strain",), str(error))
            except (FormatError, PlacementError, ScheduleError) as error:
                yield Problem(("traffic", index, *entry.blamed(str(error))), str(error))

    def at_scale(self, factor: int) -> Experiment:
        """Return the same experiment, to be emulated `factor` times as slow; 1 is what was asked for."""
        return self.model_copy(update={"fabric": self.fabric.at_scale(factor)})

    @property
    def strains(self) -> list[Strain]:
        """What is put on every schedule: nothing where all is 0."""
        strain: StrainSpec | None = self.strain
        return strain.strains() if strain else []

    def strained(self, schedule: Schedule, bound_s: float, seed: int) -> Schedule:
        """Return `schedule`, whose bound is `bound_s`, with this experiment's strain. Raises StrainError."""
        return strained(schedule, self.strains, bound_s=bound_s, seed=seed)

    def hosts(self, schedule: Schedule, seed: int) -> list[int]:
        """The host of each rank of `schedule`."""
        if schedule.hosts is not None:
            return list(schedule.hosts)
        return place(self.placement, self.fabric.shape(), schedule.ranks, seed)

    def points(self) -> list[Point]:
        """Every setting of `sweep`, checked as an experiment of its own. Raises SpecError."""
        sweep: Sweep | None = self.sweep
        if sweep is None:
            return []
        points: list[Point] = []
        listed = 0
        for setting in sweep.settings():
            label = sweep.label(setting)
            points.append(Point(label, sweep.told(setting), self._at(setting, label)))
            listed += points[-1].experiment.listed
            if too_much := too_many_swept(listed, len(points)):
                raise SpecError(f"{self.name}: sweep: {too_much}")
        return points

    def _at(self, setting: Mapping[str, Any], label: str) -> Experiment:
        content = self.as_json()
        del content["sweep"]
        for key, value in setting.items():
            try:
                put(content, key.split("."), value)
            except ValueError as error:
                raise SpecError(f"{self.name}: sweep.{key}: {error}") from error
        return _check(content, Path(), f"{self.name} at {label}")

    def as_json(self) -> dict[str, Any]:
        """As an experiment file has it, for `restore_experiment` and for people."""
        return self.model_dump(mode="json", exclude_none=True)


def catalog_names() -> list[str]:
    return sorted(path.stem for path in CATALOG.glob("*.yaml"))


def load_experiment(name_or_path: str, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a file or of a name in the catalog, with each KEY=VALUE of `overrides` applied, and checked.

    Checking builds the schedule of every entry of `traffic`, unless it is huge, so that what an algorithm cannot do
    fails here.
    Raises SpecError.
    """
    path = experiment_file(name_or_path)
    try:
        file = read_yaml(path, path.name if path.parent == CATALOG else name_or_path, overrides)
        content = file.plain()
    except YamlFileError as error:
        raise SpecError(str(error)) from error
    content.setdefault("name", default_name(path.stem))
    return _check(content, path.parent, file)


def default_name(stem: str) -> str:
    """What an experiment is called that has no name: as its file, with what no name may have left out or replaced."""
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()  # an accented letter without accent
    return re.sub("[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:_LONGEST_NAME] or "experiment"


def restore_experiment(content: Mapping[str, Any], source: str, folder: Path = Path()) -> Experiment:
    """What `Experiment.as_json` gave, checked again; `source` names its file in errors.

    Files that it names are relative to `folder`. Raises SpecError.
    """
    if not isinstance(content, Mapping):
        raise SpecError(f"{source}: holds no experiment")
    return _check(content, folder, source)


def experiment_file(name_or_path: str) -> Path:
    """The file of an experiment, or that of a name in the catalog. Raises SpecError."""
    path = Path(name_or_path)
    if name_or_path in catalog_names():
        return CATALOG / f"{name_or_path}.yaml"
    with suppress(OSError, ValueError), as_caller():  # what can be no path is no file
        if path.is_dir():
            raise SpecError(f"{name_or_path}: is a directory; name an experiment's file")
        if path.exists():
            return path
    names = catalog_names()
    raise SpecError(
        f"{name_or_path}: no such file, nor a name in the catalog ({', '.join(names)}){meant(path.stem, names)}"
    )


def _check(content: Mapping[str, Any], folder: Path, source: YamlFile | str) -> Experiment:
    try:
        experiment = Experiment.model_validate(content, context={"folder": folder})
    except ValidationError as invalid:
        raise SpecError(report(_problems(invalid, content), source)) from invalid
    problems = [
        *experiment.impossible_traffic(),
        *experiment.impossible_faults(),
        *_weights_of_nothing(experiment),
    ]
    if problems:
        raise SpecError(report(problems, source))
    sweep: Sweep | None = experiment.sweep
    if sweep and (too_much := too_many_swept(experiment.listed * sweep.points, sweep.points)):
        raise SpecError(report([Problem(("sweep",), too_much)], source))
    experiment.points()
    return experiment


def _problems(invalid: ValidationError, content: Mapping[str, Any]) -> list[Problem]:
    """What was found, without what only follows from it."""
    errors = invalid.errors(include_url=False)
    misspelt = {error["loc"][:-1] for error in errors if error["type"] == "extra_forbidden"}
    problems = []
    for error in errors:
        *parents, _ = error["loc"]
        follows = error["type"] == "missing" and tuple(parents) in misspelt
        if follows or error["type"] == "default_factory_not_called":
            continue
        problems.append(Problem(error["loc"], explain(error, keys(_model(parents, content)))))
    return problems


def _model(path: Sequence[str | int], content: Mapping[str, Any]) -> type[Keys]:
    """What the mapping at `path` of the file is meant to be."""
    match path:
        case ["fabric", *_]:
            return FabricSpec
        case ["transport", *_]:
            return TransportSpec
        case ["replay", *_]:
            return ReplaySpec
        case ["reaction", "hosts", *_]:
            return HostsSpec
        case ["reaction", *_]:
            return ReactionSpec
        case ["strain", *rest]:
            return kind_of_strain(*rest[:1])
        case ["traffic", int(index), *_]:
            return kind_of(content["traffic"][index])
        case ["faults", int(index), *_]:
            return fault_kind_of(content["faults"][index])
    return Experiment


def _weights_of_nothing(experiment: Experiment) -> Iterator[Problem]:
    """Schemes that go by the rates of spines where none was said, at no point of a sweep either."""
    swept = experiment.sweep.axes if experiment.sweep else ()
    if experiment.fabric.spine_rates or any(key.startswith("fabric.spine_rates") for key in swept):
        return
    for index, name in enumerate(experiment.schemes):
        if scheme_of(name).weighted:
            yield Problem(
                ("schemes", index),
                f"{name} goes by the rates of spines, and all are alike here; write such as {{spine1: 50%}} as "
                f"fabric.spine_rates, or {name.removesuffix('-weighted')}",
            )
