"""SimAI's workloads as text, as aicb writes them (aliyun/SimAI, aliyun/aicb).

Rows are those of ASTRA-sim (`traffic.formats.astra`). The header has in any order, of which the first must be there:
`model_parallel_NPU_group: 2 ep: 1 pp: 1 vpp: 1 ga: 1 all_gpus: 16 checkpoints: 0 checkpoint_initiates: 0 pp_comm 0`. A
collective's suffix names its group: none is the tensor-parallel ranks in the forward pass and for the gradient of the
input, and the data-parallel ones for that of the weights; `_EP` those that share experts, `_DP_EP` those that have the
same. Three things differ from ASTRA-sim: the input's gradients hold what follows; a forward collective of fewer than
4096 bytes counts as 4096; an ALLGATHER's bytes are what all gather. Pipeline stages are beside each other: what they
send each other is not in the file's rows, and never sent.
"""

from __future__ import annotations

from pathlib import Path

from emulator.inputs import quote
from traffic.formats.astra import (
    COLLECTIVES,
    POLICIES,
    SECONDS,
    Gathered,
    Iterations,
    Play,
    Unit,
    Workload,
    checked,
    checkpoints,
    header_number,
    left_out,
    read_layer,
)
from traffic.formats.format import Format, FormatError
from traffic.formats.text import read_lines
from traffic.jobs.graph import Graph, JobError, Scale
from traffic.schedule import Schedule

SAYS = "a training job of SimAI"

_COLLECTIVES = {**COLLECTIVES, "BROADCAST": "broadcast"}
_SUFFIXES = ("", "_EP", "_DP_EP")
_LEAST_FORWARD_BYTES = 4096
_EXPERTS = ("ep", "expert_parallel_npu_group")


def read_workload(
    path: Path,
    *,
    ranks: int,
    scale: Scale | None = None,
    unit: Unit = "ns",
    allgather: Gathered = "total",
    iterations: Iterations = 1,
) -> Schedule:
    """Return `iterations` of the job in file `path` among `ranks`, whatever all_gpus says. Raises FormatError."""
    lines = read_lines(path, SAYS)
    header, count = next(lines, None), next(lines, None)
    if header is None or count is None:
        raise FormatError(f"{path}: is too short: {SAYS} begins with a policy and a number of layers, a line each")
    policy = header.words[0]
    if policy not in POLICIES or policy == "HYBRID_CUSTOMIZED":
        header.fail(f"unknown policy {quote(policy)}: SimAI's is HYBRID_TRANSFORMER_FWD_IN_BCKWD")
    layers = [read_layer(line, policy, _COLLECTIVES, _SUFFIXES) for line in lines]
    stated = count.whole("the number of layers", count.words[0])
    if stated > len(layers) or not layers:
        count.fail(f"the file says {stated} layers and has {len(layers)}: they must be as many, and 1 or more")
    model = 1 if policy == "MICRO" else header_number(header, "model_parallel_NPU_group")
    named = [word for word in _EXPERTS if any(each.removesuffix(":") == word for each in header.words)]
    workload = Workload(policy, layers[:stated], model, again=checkpoints(header, len(layers)))
    try:
        experts = header_number(header, named[0]) if named else 1
        play = _Play(workload, Graph(ranks, scale=scale), SECONDS[unit], allgather, experts)
        play.graph.repairs += left_out(workload)
        if stated < len(layers):
            play.graph.repairs.append(
                f"{len(layers) - stated} rows beyond the {stated} that the file says are left out"
            )
        for play.graph.iteration in range(checked(iterations)):
            play.iteration()
        return play.graph.schedule("simai", path.stem)
    except JobError as error:
        raise FormatError(f"{path}: {error}") from error


class _Play(Play):
    """What differs from ASTRA-sim."""

    def __init__(self, workload: Workload, graph: Graph, seconds: float, allgather: str, experts: int) -> None:
        super().__init__(workload, graph, seconds, allgather, workload.model)
        replicas = graph.ranks // workload.model
        if replicas % experts:
            raise JobError(f"ep {experts} does not divide {replicas} groups of {workload.model}: use other ranks")
        self._experts = experts

    def backward(self, layer: int) -> None:
        for again in range((self.workload.again or {}).get(layer, layer), layer):
            self.forward(again)
        self.compute(layer, "input gradient")
        self.wait(self.issue(layer, "input gradient"))
        self.compute(layer, "weight gradient")
        self.updated[layer] = self.issue(layer, "weight gradient")

    def sized(self, size_bytes: int, part: str) -> int:
        return max(_LEAST_FORWARD_BYTES, size_bytes) if part == "forward" else size_bytes

    def groups(self, layer: int, part: str) -> list[range]:
        ranks, model = self.graph.ranks, self.workload.model
        suffix = self.workload.layers[layer].parts[part].suffix
        if suffix == "" and part != "weight gradient" and self.workload.policy != "MICRO":
            return [range(first, first + model) for first in range(0, ranks, model)]
        span = model * self._experts
        if suffix == "_EP":
            return [
                range(start + place, start + span, model) for start in range(0, ranks, span) for place in range(model)
            ]
        step = span if suffix == "_DP_EP" else model
        return [range(place, ranks, step) for place in range(step)]


FORMAT = Format(key="simai", suffix=".txt", says="a training job as SimAI's text", read=read_workload)
