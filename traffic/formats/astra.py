"""ASTRA-sim's workloads as text, as its version 1.0 runs them (astra-sim, branch ASTRA-sim-1.0, workload/Workload.cc).

    DATA                                        a policy, and for some of them more words
    2                                           how many layers follow
    conv1 -1 5 NONE 0 5 NONE 0 5 ALLREDUCE 1048576 5

A layer is its name, a word without meaning, and time, collective and bytes of the forward pass, of the gradient by its
input and of that by its weights; then the time of an update, which follows each of its collectives. HYBRID_CUSTOMIZED
has a policy a layer besides. All ranks do the same; what a policy has them do is said where it is done below.

Three things the file does not say: the unit of its times (nanoseconds in 1.0; in 2.0, and in Chakra's converter,
microseconds); whether the bytes of an ALLGATHER are a rank's shard (as in ASTRA-sim) or what all gather; and how many
ranks are a group's `inner` ones, ASTRA-sim's dimension 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from emulator.inputs import quote
from traffic.formats.format import Format, FormatError
from traffic.formats.text import Line, read_lines
from traffic.jobs.graph import Graph, JobError, Scale
from traffic.schedule import Schedule

SAYS = "a training job of ASTRA-sim"
COLLECTIVES = {"ALLREDUCE": "allreduce", "ALLGATHER": "allgather", "REDUCESCATTER": "reducescatter"}
COLLECTIVES |= {"ALLTOALL": "alltoall", "NONE": ""}
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3}

_TRANSFORMERS = ("HYBRID_TRANSFORMER", "HYBRID_TRANSFORMER_FWD_IN_BCKWD")
_DLRM = ("HYBRID_DLRM", "HYBRID_DLRM_ENHANCED")
_OF_LAYERS = ("DATA", "MODEL", "HYBRID_DATA_MODEL", "HYBRID_MODEL_DATA")
POLICIES = ("MICRO", *_OF_LAYERS, "HYBRID_CUSTOMIZED", *_TRANSFORMERS, *_DLRM, "DISTRIBUTED_INFERENCE")

_WORDS = 12
_PARTS = ("forward", "input gradient", "weight gradient")

Unit = Annotated[Literal["ns", "us", "ms"], "one of ns, us, ms"]
Gathered = Annotated[Literal["shard", "total"], "one of shard, total"]
Inner = Annotated[int | None, "a number of ranks such as 8"]
Iterations = Annotated[int, "a number of iterations such as 2"]


@dataclass(frozen=True)
class Part:
    """One of a layer's three parts: the time as the file has it, and the collective; none where its name is empty.

    `left_out` is the name of a collective that is not known, and of no bytes.
    """

    time: float
    collective: str
    size_bytes: int
    suffix: str = ""
    left_out: str = ""


@dataclass(frozen=True)
class Layer:
    """A row: what it computes and sends in the forward pass and for either gradient, and the time of an update."""

    name: str
    parts: Mapping[str, Part]
    update: float
    policy: str


@dataclass(frozen=True)
class Workload:
    """A file. `model` is the number of ranks that share a model, `bottom` DLRM's last layer below the interaction.

    `again` has layers before whose gradient the forward pass is run again, and from which checkpoint on.
    """

    policy: str
    layers: Sequence[Layer]
    model: int = 0
    bottom: int = 0
    again: Mapping[int, int] | None = None


def read_workload(
    path: Path,
    *,
    ranks: int,
    scale: Scale | None = None,
    unit: Unit = "ns",
    allgather: Gathered = "shard",
    inner: Inner = None,
    iterations: Iterations = 1,
    compute_scale: Annotated[float, "a factor such as 0.41"] = 1.0,
) -> Schedule:
    """Return `iterations` of the job in file `path` among `ranks` as a schedule. Raises FormatError.

    `inner` is by default what the file says, else 8 or all ranks where there are fewer.
    """
    workload = parse(path)
    try:
        play = Play(workload, Graph(ranks, scale=scale), SECONDS[unit] * compute_scale, allgather, inner)
        play.graph.repairs += left_out(workload)
        for play.graph.iteration in range(checked(iterations)):
            play.iteration()
        return play.graph.schedule("astra", path.stem)
    except JobError as error:
        raise FormatError(f"{path}: {error}") from error


FORMAT = Format(key="astra", suffix=".txt", says="a training job as ASTRA-sim's text", read=read_workload)


def left_out(workload: Workload) -> list[str]:
    """Return in a clause how many parts have no bytes and a collective that is not known, if any."""
    names = [quote(part.left_out) for layer in workload.layers for part in layer.parts.values() if part.left_out]
    known = ", ".join(dict.fromkeys(names))
    return [f"what has 0 bytes and an unknown collective is left out, {len(names)} in all ({known})"] if names else []


MAX_ITERATIONS = 100


def checked(iterations: int) -> int:
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise JobError(f"iterations is {iterations}: write 1 to {MAX_ITERATIONS}")
    return iterations


def parse(path: Path) -> Workload:
    """Return what a file says, each line right by itself. Raises FormatError."""
    lines = read_lines(path, SAYS)
    header, count = next(lines, None), next(lines, None)
    if header is None or count is None:
        raise FormatError(f"{path}: is too short: {SAYS} begins with a policy and a number of layers, a line each")
    policy = header.words[0]
    if policy not in POLICIES:
        header.fail(f"unknown policy {quote(policy)}: use one of {', '.join(POLICIES)}")
    layers = [read_layer(line, policy, COLLECTIVES) for line in lines]
    stated = count.whole("the number of layers", count.words[0])
    if stated != len(layers) or not layers:
        count.fail(f"the file says {stated} layers and has {len(layers)}: they must be as many, and 1 or more")
    model, bottom, again = 0, 0, None
    if policy in _TRANSFORMERS:
        model = header_number(header, "model_parallel_NPU_group")
        again = checkpoints(header, len(layers))
    if policy in _DLRM:
        bottom = header.whole("the last bottom layer", header.words[1] if len(header.words) > 1 else "")
        if not bottom < len(layers) - 1:
            header.fail(f"the last bottom layer is {bottom}: with {len(layers)} layers, write 0 to {len(layers) - 2}")
    return Workload(policy, layers, model, bottom, again)


def read_layer(line: Line, policy: str, collectives: Mapping[str, str], suffixes: Sequence[str] = ("",)) -> Layer:
    """Return the layer of a line; a collective's name may end in one of `suffixes`. Raises FormatError."""
    wanted = _WORDS + (policy == "HYBRID_CUSTOMIZED")
    if len(line.words) != wanted:
        line.fail(
            f"a layer has {wanted} words, as in 'conv1 -1 5 NONE 0 5 NONE 0 5 ALLREDUCE 1048576 5': here are "
            f"{len(line.words)}"
        )
    parts = {}
    for place, part in enumerate(_PARTS):
        time, name, size = line.words[2 + 3 * place : 5 + 3 * place]
        suffix = max((each for each in suffixes if name.endswith(each)), key=len)
        plain = name.removesuffix(suffix)
        size_bytes = line.whole(f"the bytes of the {part}", size)
        if plain not in collectives and size_bytes:
            line.fail(f"unknown collective {quote(name)}: use one of {', '.join(collectives)}")
        collective = collectives[plain] if size_bytes else ""
        left_out = "" if plain in collectives else name
        parts[part] = Part(line.number_of(f"the time of the {part}", time), collective, size_bytes, suffix, left_out)
    own = line.words[-1] if policy == "HYBRID_CUSTOMIZED" else policy
    if policy == "HYBRID_CUSTOMIZED" and own not in _OF_LAYERS:
        line.fail(f"unknown policy {quote(own)} of a layer: use one of {', '.join(_OF_LAYERS)}")
    return Layer(line.words[0], parts, line.number_of("the time of the update", line.words[11]), own)


def header_number(header: Line, key: str) -> int:
    words = [word.removesuffix(":") for word in header.words]
    if key not in words[:-1]:
        header.fail(f"no {key}: write it as in '{key}: 4'")
    number = header.whole(key, words[words.index(key) + 1])
    if not number:
        header.fail(f"{key} is 0: write 1 or more")
    return number


def checkpoints(header: Line, layers: int) -> dict[int, int]:
    """Return, by the layer before whose gradient forward passes are run again, from which layer on."""
    lists: dict[str, list[int]] = {"checkpoints": [], "checkpoint_initiates": []}
    words = [word.removesuffix(":") for word in header.words]
    for key, found in lists.items():
        if key in words[:-1]:
            place = words.index(key) + 1
            count = header.whole(f"the number of {key}", words[place])
            if len(words) < place + 1 + count:
                header.fail(f"{key} says {count} layers, and the line ends before them")
            found += [header.whole(f"a layer of {key}", word) for word in words[place + 1 : place + 1 + count]]
    for layer in (*lists["checkpoints"], *lists["checkpoint_initiates"]):
        if layer >= layers:
            header.fail(f"checkpoint {layer} is no layer: with {layers} layers, write 0 to {layers - 1}")
    again = {}
    for layer in lists["checkpoint_initiates"]:
        before = [each for each in lists["checkpoints"] if each <= layer]
        if not before:
            header.fail(f"layer {layer} has no checkpoint before it: add one to checkpoints")
        again[layer] = max(before)
    return again


class Play:
    """A workload being carried out by all ranks: where each rank's computing is, and what was sent last of a layer."""

    def __init__(self, workload: Workload, graph: Graph, seconds: float, allgather: str, inner: int | None) -> None:
        self.graph, self.workload, self._seconds, self._allgather = graph, workload, seconds, allgather
        self._inner = inner or workload.model or min(8, graph.ranks)
        if self._inner < 1 or graph.ranks % self._inner:
            raise JobError(
                f"a group of {self._inner} ranks does not divide {graph.ranks}: write inner, a number that does"
            )
        self._at: dict[int, list[int]] = {rank: [] for rank in range(graph.ranks)}
        self.updated: dict[int, dict[int, int]] = {}  # by layer, what its next forward pass waits for

    def iteration(self) -> None:
        """Add one pass forward and backward, as the policy has it."""
        layers, policy = range(len(self.workload.layers)), self.workload.policy
        if policy == "MICRO":
            self.updated[0] = self.issue(0, "weight gradient")
            self.wait(self.updated[0])
            return
        interaction: dict[int, int] = {}
        for layer in layers:
            self.forward(layer, block=not (policy in _DLRM and layer == 0))
            if policy in _DLRM and layer == 0:
                interaction = self.issue(0, "forward")
            if policy in _DLRM and layer == self.workload.bottom:
                self.wait(interaction)
        if policy == "DISTRIBUTED_INFERENCE":
            return
        for layer in reversed(layers):
            self.backward(layer)

    def forward(self, layer: int, *, block: bool = True) -> None:
        """Forward waits for the gradients of the pass before, and its own collective holds what follows."""
        self.wait(self.updated.get(layer, {}))
        self.compute(layer, "forward")
        if block:
            self.wait(self.issue(layer, "forward"))

    def backward(self, layer: int) -> None:
        policy, last = self.workload.layers[layer].policy, layer == 0
        if policy in _DLRM:
            return self._backward_of_dlrm(layer)
        if policy == "DATA":
            self.compute(layer, "weight gradient")
            self.updated[layer] = self.issue(layer, "weight gradient")
            if not last:
                self.compute(layer, "input gradient")
            return None
        if layer in (self.workload.again or {}):
            for again in range((self.workload.again or {})[layer], layer):
                self.forward(again)
        self.compute(layer, "input gradient")
        sent = self.issue(layer, "input gradient") if not last or policy in _TRANSFORMERS else {}
        self.compute(layer, "weight gradient")
        if policy != "MODEL":
            self.updated[layer] = self.issue(layer, "weight gradient")
        self.wait(sent)
        return None

    def _backward_of_dlrm(self, layer: int) -> None:
        """Layer 0's gradients are exchanged while the layers below the interaction compute theirs."""
        if layer == 0:
            self.wait(self.updated.pop(-1, {}))
        self.compute(layer, "weight gradient")
        self.updated[layer] = self.issue(layer, "weight gradient")
        if layer:
            self.compute(layer, "input gradient")
        if layer == self.workload.bottom + 1:
            self.updated[-1] = self.issue(0, "input gradient")

    def compute(self, layer: int, part: str) -> None:
        of = self.workload.layers[layer]
        if seconds := of.parts[part].time * self._seconds:
            for rank, at in self._at.items():
                self._at[rank] = [self.graph.compute(rank, seconds, at, f"{of.name} {part}")]

    def issue(self, layer: int, part: str) -> dict[int, int]:
        """Send what the part of a layer says; return what is done, by rank, once it and the update are."""
        of = self.workload.layers[layer]
        sent = of.parts[part]
        done: dict[int, int] = {}
        if sent.collective:
            kind = "weights" if part == "weight gradient" else "activations"
            for group in self.groups(layer, part):
                shards = len(group) if sent.collective == "allgather" and self._allgather == "shard" else 1
                communicator = (kind, len(group), group.step)
                size = self.sized(sent.size_bytes, part) * shards
                done |= self.graph.collective(sent.collective, size, group, self._at, communicator)
            if update_s := of.update * self._seconds:
                done = {
                    rank: self.graph.compute(rank, update_s, [task], f"{of.name} update") for rank, task in done.items()
                }
        return done

    def sized(self, size_bytes: int, part: str) -> int:
        """Return what a collective of a part counts as."""
        return size_bytes

    def wait(self, done: Mapping[int, int]) -> None:
        for rank, task in done.items():
            self._at[rank] = [*self._at[rank], task]

    def groups(self, layer: int, part: str) -> list[range]:
        """Return whom a layer's collective joins: all, the inner ranks, or those at the same place in them."""
        ranks, inner, policy = self.graph.ranks, self._inner, self.workload.layers[layer].policy
        if policy in ("MICRO", "DATA", "MODEL", "DISTRIBUTED_INFERENCE", *_DLRM):
            return [range(ranks)]
        within = [range(first, first + inner) for first in range(0, ranks, inner)]
        across = [range(place, ranks, inner) for place in range(inner)]
        by_weights = part == "weight gradient"
        return across if by_weights == (policy != "HYBRID_MODEL_DATA") else within
