"""Data parallelism: every rank has a batch of its own. Its gradients are summed over all ranks, whole or in shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from traffic.jobs.graph import Graph
from traffic.jobs.job import Job, Training, buckets
from traffic.jobs.models import Layer

_Waits = Mapping[int, Sequence[int]]


def _backward_in_buckets(graph: Graph, training: Training, ends: _Waits, collective: str) -> dict[int, list[int]]:
    """Forward, then backward with a collective a bucket, each issued when its last gradient is ready.

    Returns what ends each rank's part. Buckets queue on one communicator, as NCCL's do in one stream.
    """
    everyone = range(graph.ranks)
    model = training.model
    last = {rank: graph.compute(rank, training.forward_s(model.layers), ends[rank], "forward") for rank in everyone}
    ready, parts = [], buckets(training)
    for bucket in parts:
        last = {rank: graph.compute(rank, bucket.backward_s, [last[rank]], "backward") for rank in everyone}
        ready.append(last)
    done = last
    for bucket, computed in zip(parts, ready, strict=True):
        after = {rank: [(computed if training.overlap else last)[rank]] for rank in everyone}
        done = graph.collective(collective, bucket.elements * training.gradient_bytes, everyone, after, "gradients")
    return {rank: [last[rank], done[rank]] for rank in everyone}


def _ddp(graph: Graph, training: Training, ends: _Waits) -> _Waits:
    return _backward_in_buckets(graph, training, ends, "allreduce")


def _zero1(graph: Graph, training: Training, ends: _Waits) -> _Waits:
    """Each rank updates a shard of all parameters, once it has that shard's gradients, and then all gather them.

    What the update takes is counted before the gathering.
    """
    reduced = _backward_in_buckets(graph, training, ends, "reducescatter")
    done: Mapping[int, Sequence[int]] = reduced
    for bucket in buckets(training):
        size = bucket.elements * training.weight_bytes
        gathered = graph.collective("allgather", size, range(graph.ranks), done, "gradients")
        done = {rank: [gathered[rank], *reduced[rank]] for rank in gathered}
    return done


def _units(training: Training) -> tuple[list[Layer], list[list[Layer]]]:
    """The root unit, and the others in the order of the forward pass."""
    blocks = training.model.blocks
    if not blocks:
        return [], [[layer] for layer in training.model.layers]
    return [layer for layer in training.model.layers if layer.name != "block"], [[block] for block in blocks]


_AHEAD = 2  # units that are gathered and not computed yet, at most: PyTorch's limit_all_gathers


def _fsdp(graph: Graph, training: Training, ends: _Waits) -> _Waits:
    """FULL_SHARD: a unit's parameters are gathered for either pass and its gradients scattered.

    A unit is gathered ahead while the one before is computed. The root unit is gathered once, as it is used first and
    last. All collectives of a rank are of one process group, and so of one stream.
    """
    everyone = range(graph.ranks)
    root, units = _units(training)
    free: deque[Mapping[int, Sequence[int]]] = deque([ends] * _AHEAD, maxlen=_AHEAD)
    last: Mapping[int, Sequence[int]] = ends

    def gather(unit: Sequence[Layer]) -> dict[int, int]:
        size = sum(layer.parameters for layer in unit) * training.weight_bytes
        return graph.collective("allgather", size, everyone, free[0], "shards")

    def scatter(unit: Sequence[Layer]) -> dict[int, int]:
        size = sum(layer.parameters for layer in unit) * training.gradient_bytes
        return graph.collective("reducescatter", size, everyone, last, "shards")

    def computed(seconds: float, gathered: Mapping[int, int], label: str) -> dict[int, list[int]]:
        found = {rank: [graph.compute(rank, seconds, [*last[rank], gathered[rank]], label)] for rank in everyone}
        free.append(found)
        return found

    whole = gather(root) if root else {}
    for unit in units:
        gathered = gather(unit)
        after = {rank: graph.join(rank, [gathered[rank], *([whole[rank]] if root else [])]) for rank in everyone}
        last = computed(training.forward_s(unit), after, "forward")
    if root:
        seconds = training.forward_s(root) + training.backward_s(root)
        last = {rank: [graph.compute(rank, seconds, last[rank], "root")] for rank in everyone}
    done: list[dict[int, int]] = []
    following = gather(units[-1])
    for place in reversed(range(len(units))):
        gathered = following
        if place:
            following = gather(units[place - 1])  # while this one is computed
        last = computed(training.backward_s(units[place]), gathered, "backward")
        done.append(scatter(units[place]))
    if root:
        done.append(scatter(root))
    return {rank: [*last[rank], done[-1][rank]] for rank in everyone}


DDP = Job("ddp", "gradients are summed in buckets while others are computed (PyTorch's DDP)", _ddp)
FSDP = Job("fsdp", "parameters are gathered layer by layer, gradients scattered (PyTorch's FSDP)", _fsdp)
ZERO1 = Job("zero1", "gradients are scattered in buckets, and updated parameters gathered (ZeRO-1)", _zero1)
