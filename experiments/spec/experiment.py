"""What an experiment is, and the checking of its file: every error is one sentence with file, line, key and the fix.

Keys of the file are aliases of fields that carry their unit: `host_rate: 20mbit` is `host_rate_bps`. A field's
`description` says what is right, in words that follow both "write" and "is not".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from emulator.inputs import quote
from emulator.ports import least_rate_bps
from emulator.topology import ETHERNET_HEADER_BYTES, MAX_HOSTS_PER_LEAF, MAX_LEAVES, MAX_SPINES, LeafSpine
from experiments.spec.budget import flow_count
from experiments.spec.messages import Problem, explain, meant, report, shown
from experiments.spec.units import (
    format_rate_bps,
    format_size_bytes,
    format_time_s,
    parse_rate_bps,
    parse_size_bytes,
    parse_time_s,
)
from experiments.spec.yamlfile import YamlFile, YamlFileError, read_yaml
from traffic.collectives import ScheduleError, build_schedule, check_names, options_of
from traffic.formats.htsim import MatrixError, load_matrix
from traffic.placement import PlacementError, place
from traffic.promises import check_verifiable
from traffic.schedule import Schedule
from traffic.schemes import names_of_role, scheme_of
from traffic.transport import Transport

CATALOG = Path(__file__).parents[1] / "catalog"
MAX_CHANNELS = 64
MAX_MTU_BYTES = 9216  # as switches have it
MAX_BURST_FRAMES = 16
_MOST_BURST_BYTES = 65_535  # of one IPv4 packet
MAX_CHECKED_FLOWS = 300_000  # of a file; schedules of more take too long to build just for checking
MAX_ENTRIES = 1000  # of traffic
MAX_QUEUE_BYTES = 2**32 - 1  # tc counts a queue's bytes in 32 bits
MAX_SEED = 2**16 - 1  # the basis of the leaf's hash has 16 bits

_LONGEST_NAME = 100

Placement = Literal["packed", "interleaved", "random"]


class SpecError(Exception):
    """An experiment that cannot be run. One sentence: where, which key, what is wrong, what would be right."""


def _written(parse: Callable[[str], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse("" if value is None else str(value)))


AUTO_RATE = 0
"""Stands for the rate that this machine carries faithfully, until `experiments.machine.calibration` has put it in."""

RateBps = Annotated[
    int,
    _written(lambda text: AUTO_RATE if text == "auto" else parse_rate_bps(text)),
    PlainSerializer(lambda rate_bps: "auto" if rate_bps == AUTO_RATE else format_rate_bps(rate_bps)),
]
SizeBytes = Annotated[int, _written(parse_size_bytes), PlainSerializer(format_size_bytes)]
TimeS = Annotated[float, _written(parse_time_s), PlainSerializer(format_time_s)]


def _between(least: int, most: int, too_few: str, too_many: str) -> AfterValidator:
    def check(value: int) -> int:
        if value < least:
            raise ValueError(f"{value} is too small: {too_few}")
        if value > most:
            raise ValueError(f"{value} is too large: {too_many}")
        return value

    return AfterValidator(check)


def _matches(pattern: str, allowed: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{quote(value)} is not {allowed}")
        return value

    return AfterValidator(check)


def _checked_scheme(name: str) -> str:
    return scheme_of(name).name


def _some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("the list is empty; write at least one")
    if len(values) > MAX_ENTRIES:
        raise ValueError(f"the list has {len(values)} entries; write at most {MAX_ENTRIES}")
    return values


def _one_of_each(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("the list is empty; write at least one")
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value} is there twice; keep one")
        seen.add(value)
    return values


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


class FabricSpec(_Keys):
    """`leaves` x `spines` x `hosts_per_leaf`, and what its links and queues are like."""

    leaves: Annotated[
        StrictInt,
        _between(
            2,
            MAX_LEAVES,
            "with fewer than 2 leaves nothing crosses a spine, so at least 2",
            f"each leaf has one 10.<leaf>.0.0/16 prefix, so at most {MAX_LEAVES} leaves",
        ),
    ] = Field(description=f"a whole number from 2 to {MAX_LEAVES}")
    spines: Annotated[
        StrictInt,
        _between(
            1,
            MAX_SPINES,
            "leaves are joined by spines only, so at least 1 spine",
            f"a path tag is a 6-bit DSCP value, so at most {MAX_SPINES} spines",
        ),
    ] = Field(description=f"a whole number from 1 to {MAX_SPINES}")
    hosts_per_leaf: Annotated[
        StrictInt,
        _between(
            1,
            MAX_HOSTS_PER_LEAF,
            "traffic needs hosts, so at least 1 host a leaf",
            f"a leaf has addresses and ports for so many, so at most {MAX_HOSTS_PER_LEAF} hosts a leaf",
        ),
    ] = Field(description=f"a whole number from 1 to {MAX_HOSTS_PER_LEAF}")
    mtu_bytes: Annotated[
        StrictInt,
        _between(
            576, MAX_MTU_BYTES, "IPv4 asks for at least 576 bytes", f"jumbo frames carry at most {MAX_MTU_BYTES} bytes"
        ),
    ] = Field(default=9000, alias="mtu", description=f"a whole number of bytes from 576 to {MAX_MTU_BYTES}")
    host_rate_bps: RateBps = Field(default=20_000_000, alias="host_rate", description="a rate such as 20mbit, or auto")
    fabric_rate_bps: RateBps = Field(
        alias="fabric_rate",
        description="a rate such as 20mbit, or auto",
        default_factory=lambda before: before["host_rate_bps"],
    )
    queue_bytes: SizeBytes = Field(default=4_000_000, alias="queue", description="a size such as 4MB")
    dataplane: Literal["auto", "ovs", "linux"] = Field(default="auto", description="one of auto, ovs, linux")
    burst_frames: Annotated[
        StrictInt,
        _between(
            1, MAX_BURST_FRAMES, "at least 1 frame travels at a time", f"Linux is asked for {MAX_BURST_FRAMES} at most"
        ),
    ] = Field(default=1, alias="burst", description=f"a whole number of frames from 1 to {MAX_BURST_FRAMES}")

    @field_validator("host_rate_bps", "fabric_rate_bps")
    @classmethod
    def _rate_can_be_made(cls, rate_bps: int, info: ValidationInfo) -> int:
        least_bps = least_rate_bps(info.data["mtu_bytes"]) if "mtu_bytes" in info.data else 1
        if rate_bps != AUTO_RATE and rate_bps < least_bps:
            frame_bytes = info.data["mtu_bytes"] + ETHERNET_HEADER_BYTES
            raise ValueError(
                f"{format_rate_bps(rate_bps)} is too small: a frame of {frame_bytes} bytes would "
                f"take more than a second, so write {format_rate_bps(least_bps)} or more, or a smaller mtu"
            )
        return rate_bps

    @field_validator("burst_frames")
    @classmethod
    def _burst_can_be_made(cls, burst_frames: int, info: ValidationInfo) -> int:
        mtu_bytes, queue_bytes = info.data.get("mtu_bytes", 0), info.data.get("queue_bytes", MAX_QUEUE_BYTES)
        most = min(_MOST_BURST_BYTES // max(1, mtu_bytes), queue_bytes // (mtu_bytes + ETHERNET_HEADER_BYTES) - 1)
        if burst_frames > max(1, most):
            raise ValueError(
                f"{burst_frames} is too large: a burst of frames of {mtu_bytes} bytes is one packet of less than 64KiB "
                f"and fits the queue with a frame to spare, so at most {max(1, most)}"
            )
        return burst_frames

    @field_validator("queue_bytes")
    @classmethod
    def _queue_can_be_made(cls, queue_bytes: int, info: ValidationInfo) -> int:
        frame_bytes = info.data.get("mtu_bytes", 0) + ETHERNET_HEADER_BYTES
        if queue_bytes < 2 * frame_bytes:
            raise ValueError(
                f"{format_size_bytes(queue_bytes)} is too small: a queue holds at least 2 frames "
                f"of {frame_bytes} bytes, so write {2 * frame_bytes}B or more"
            )
        if queue_bytes > MAX_QUEUE_BYTES:
            raise ValueError(f"{format_size_bytes(queue_bytes)} is too large: the kernel's queues hold less than 4GiB")
        return queue_bytes

    def topology(self) -> LeafSpine:
        return LeafSpine(
            leaves=self.leaves,
            spines=self.spines,
            hosts_per_leaf=self.hosts_per_leaf,
            host_rate_bps=self.host_rate_bps,
            fabric_rate_bps=self.fabric_rate_bps,
            mtu_bytes=self.mtu_bytes,
            queue_bytes=self.queue_bytes,
            burst_frames=self.burst_frames,
        )


class CollectiveTraffic(_Keys):
    """One collective. `size_bytes` as nccl-tests counts it; options an algorithm does not have are None."""

    collective: StrictStr = Field(description="the name of a collective such as alltoall")
    algorithm: StrictStr = Field(default="", validate_default=True, description="the name of an algorithm such as ring")
    channels: Annotated[
        StrictInt,
        _between(
            1,
            MAX_CHANNELS,
            "a pair of ranks needs at least 1 connection",
            f"a pair of ranks has at most {MAX_CHANNELS} connections",
        ),
    ] = Field(default=1, description=f"a whole number from 1 to {MAX_CHANNELS}")
    size_bytes: SizeBytes = Field(default=4_000_000, alias="size", description="a size such as 4MB")
    chunks: StrictInt | None = Field(default=None, description="a whole number from 1 up")
    window: StrictInt | None = Field(default=None, description="a whole number from 1 up")
    order: StrictStr | None = Field(default=None, description="the name of an order such as rotated")
    shift: StrictInt | None = Field(default=None, description="a whole number of ranks")

    @field_validator("collective")
    @classmethod
    def _known_collective(cls, collective: str) -> str:
        check_names(collective)
        return collective

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, algorithm: str, info: ValidationInfo) -> str:
        if "collective" not in info.data:
            return algorithm
        return check_names(info.data["collective"], algorithm or None)

    @field_validator("chunks", "window", "order", "shift")
    @classmethod
    def _option_of_the_algorithm(cls, value: int | str | None, info: ValidationInfo) -> int | str | None:
        if value is not None and info.field_name and {"collective", "algorithm"} <= info.data.keys():
            check_names(info.data["collective"], info.data["algorithm"], {info.field_name: value})
        return value

    def flow_count(self, fabric: LeafSpine) -> int:
        return flow_count(self.collective, self.algorithm, fabric.hosts, self.channels, self.chunks)

    def schedule(self, fabric: LeafSpine, placement: Placement, seed: int) -> Schedule:
        """Among as many ranks as the fabric has hosts. Raises ScheduleError where the algorithm cannot."""
        takes = options_of(self.collective, self.algorithm)
        options = {name: getattr(self, name) for name in takes if getattr(self, name, None) is not None}
        if "seed" in takes:
            options["seed"] = seed
        if "shift" in takes:
            # The same place in the next leaf: so many ranks on as that place is away.
            options.setdefault("shift", 1 if placement == "interleaved" else fabric.hosts_per_leaf)
        return build_schedule(
            self.collective,
            self.algorithm,
            ranks=fabric.hosts,
            size_bytes=self.size_bytes,
            channels=self.channels,
            **options,
        )


def _beside_the_experiment(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise ValueError(f"{shown(value)} is not a file; write one such as perm.cm, relative to the experiment's")
    folder: Path = (info.context or {}).get("folder", Path())
    return (folder / value).absolute()


class MatrixTraffic(_Keys):
    """The flows of an htsim connection matrix. `matrix` is an absolute path once read."""

    matrix: Annotated[Path, BeforeValidator(_beside_the_experiment)] = Field(description="a file such as perm.cm")

    @property
    def collective(self) -> str:
        return "matrix"

    @property
    def algorithm(self) -> str:
        return self.matrix.stem

    def flow_count(self, fabric: LeafSpine) -> int:
        """None that could be told without reading the file, whose size is limited."""
        return 0

    def schedule(self, fabric: LeafSpine, placement: Placement, seed: int) -> Schedule:
        """Among as many ranks as the file has nodes. Raises MatrixError where the file is not right."""
        return load_matrix(self.matrix)


_COLLECTIVE, _MATRIX = "<collective>", "<matrix>"


def _kind_of_traffic(entry: object) -> str | None:
    if isinstance(entry, CollectiveTraffic | MatrixTraffic):
        return _MATRIX if isinstance(entry, MatrixTraffic) else _COLLECTIVE
    if not isinstance(entry, dict) or {"matrix", "collective"} <= entry.keys():
        return None
    return _MATRIX if "matrix" in entry else _COLLECTIVE


Traffic = Annotated[
    Annotated[CollectiveTraffic, Tag(_COLLECTIVE)] | Annotated[MatrixTraffic, Tag(_MATRIX)],
    Discriminator(_kind_of_traffic),
]
_COMPARED = tuple(names_of_role(role)[0] for role in ("plain", "spraying", "splitting"))  # by the verdict
Scheme = Annotated[StrictStr, AfterValidator(_checked_scheme)]
Seed = Annotated[
    StrictInt,
    _between(0, MAX_SEED, f"a seed is from 0 to {MAX_SEED}", f"ECMP's seed has 16 bits, so at most {MAX_SEED}"),
]


class TransportSpec(_Keys):
    """How the hosts' TCP is set up: see `traffic.transport.Transport`."""

    congestion_control: Annotated[
        StrictStr, _matches("[a-z0-9_-]{1,15}", "the kernel's name of a congestion control such as cubic")
    ] = Field(default="cubic", description="the name of a congestion control such as cubic")
    windows: Literal["fitted", "default"] = Field(default="fitted", description="one of fitted, default")
    acknowledgements: Literal["first", "in-turn"] = Field(default="first", description="one of first, in-turn")
    reordering: Literal["tolerant", "default"] = Field(default="tolerant", description="one of tolerant, default")


class Experiment(_Keys):
    """Runs are the product `traffic` x `schemes` x `seeds`."""

    name: Annotated[
        StrictStr,
        _matches(
            f"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_LONGEST_NAME - 1}}}",
            f"a name of at most {_LONGEST_NAME} letters, digits, '.', '_', '-', such as my-test.1",
        ),
    ] = Field(description="a name such as my-test (in quotes if it is a number)")
    fabric: FabricSpec = Field(description="a mapping such as {leaves: 4, spines: 4, hosts_per_leaf: 4}")
    traffic: Annotated[tuple[Traffic, ...], AfterValidator(_some)] = Field(
        description="a list of entries such as {collective: alltoall, size: 4MB}"
    )
    schemes: Annotated[tuple[Scheme, ...], AfterValidator(_one_of_each)] = Field(
        default=_COMPARED, description=f"a list such as [{', '.join(_COMPARED)}]"
    )
    transport: TransportSpec = Field(default=TransportSpec(), description="a mapping such as {reordering: tolerant}")
    placement: Placement = Field(default="packed", description="one of packed, interleaved, random")
    seeds: Annotated[tuple[Seed, ...], AfterValidator(_one_of_each)] = Field(
        default=(1, 2, 3), description="a list of whole numbers such as [1, 2, 3]"
    )
    captures: Literal["none", "uplinks", "hosts", "all"] = Field(
        default="none", description="one of none, uplinks, hosts, all"
    )

    @field_validator("captures")
    @classmethod
    def _captured_as_on_a_wire(cls, captures: str, info: ValidationInfo) -> str:
        fabric = info.data.get("fabric")
        if captures != "none" and fabric and fabric.burst_frames > 1:
            raise ValueError(f"{captures} captures bursts as single frames; write none, or 1 as fabric.burst")
        return captures

    verify: StrictBool = Field(default=False, description="true or false")
    stall_timeout_s: TimeS = Field(default=10.0, alias="stall_timeout", description="a time such as 10s")

    def tcp(self) -> Transport:
        """How the hosts' TCP is to be set up."""
        return Transport(**self.transport.model_dump(), stall_timeout_s=self.stall_timeout_s)

    def schedule(self, traffic_index: int, seed: int) -> Schedule:
        """The flows of one entry of `traffic`, as every scheme of this seed sends them."""
        return self.traffic[traffic_index].schedule(self.fabric.topology(), self.placement, seed)

    def hosts(self, schedule: Schedule, seed: int) -> list[int]:
        """The host of each rank of `schedule`."""
        return place(self.placement, self.fabric.topology(), schedule.ranks, seed)

    def as_json(self) -> dict[str, Any]:
        """As an experiment file has it, for `restore_experiment` and for people."""
        return self.model_dump(mode="json", exclude_none=True)


_MODELS: Mapping[str | int, type[_Keys]] = {
    "fabric": FabricSpec,
    "transport": TransportSpec,
    _COLLECTIVE: CollectiveTraffic,
    _MATRIX: MatrixTraffic,
}


def catalog_names() -> list[str]:
    return sorted(path.stem for path in CATALOG.glob("*.yaml"))


def load_experiment(name_or_path: str, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a file or of a name in the catalog, with each KEY=VALUE of `overrides` applied, and checked.

    Checking builds the schedule of every entry of `traffic`, unless it is huge, so that what an algorithm cannot do
    fails here.
    Raises SpecError.
    """
    path = _find(name_or_path)
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


def restore_experiment(content: Mapping[str, Any], source: str) -> Experiment:
    """What `Experiment.as_json` gave, checked again; `source` names its file in errors. Raises SpecError."""
    if not isinstance(content, Mapping):
        raise SpecError(f"{source}: holds no experiment")
    return _check(content, Path(), source)


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if name_or_path in catalog_names():
        return CATALOG / f"{name_or_path}.yaml"
    with suppress(OSError, ValueError):  # what can be no path is no file
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
        raise SpecError(report(_problems(invalid), source)) from invalid
    problems = list(_impossible_traffic(experiment))
    if problems:
        raise SpecError(report(problems, source))
    return experiment


def _problems(invalid: ValidationError) -> list[Problem]:
    """What was found, without what only follows from it."""
    errors = invalid.errors(include_url=False)
    misspelt = {error["loc"][:-1] for error in errors if error["type"] == "extra_forbidden"}
    problems = []
    for error in errors:
        *parents, _ = error["loc"]
        follows = error["type"] == "missing" and tuple(parents) in misspelt
        if follows or error["type"] == "default_factory_not_called":
            continue
        model = next((_MODELS[part] for part in reversed(parents) if part in _MODELS), Experiment)
        path = tuple(part for part in error["loc"] if part not in (_COLLECTIVE, _MATRIX))
        problems.append(Problem(path, explain(error, _keys(model))))
    return problems


def _impossible_traffic(experiment: Experiment) -> Iterator[Problem]:
    """Entries of `traffic` that make no schedule on this fabric."""
    seed, fabric, checked_flows = experiment.seeds[0], experiment.fabric.topology(), 0
    for index, entry in enumerate(experiment.traffic):
        checked_flows += entry.flow_count(fabric)
        if checked_flows > MAX_CHECKED_FLOWS:
            return
        try:
            schedule = experiment.schedule(index, seed)
            experiment.hosts(schedule, seed)
            if experiment.verify:
                check_verifiable(schedule)
        except (MatrixError, PlacementError, ScheduleError) as error:
            yield Problem(("traffic", index, *_key_in_words(entry, str(error))), str(error))


def _key_in_words(entry: CollectiveTraffic | MatrixTraffic, message: str) -> tuple[str, ...]:
    """The key of the entry that a schedule's error speaks of, if it does."""
    if isinstance(entry, MatrixTraffic):
        return ("matrix",)
    keys = _keys(CollectiveTraffic)
    return next(((word,) for word in re.findall(r"\w+", message) if word in keys), ())


def _keys(model: type[_Keys]) -> dict[str, str]:
    """Every key of a mapping, and what is right for it."""
    return {field.alias or name: field.description or "" for name, field in model.model_fields.items()}
