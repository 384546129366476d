"""Models that are split over a group of ranks: by tensors, by layers, by experts. Groups follow each other in rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from traffic.jobs.graph import Graph, JobError
from traffic.jobs.job import Job, Training, groups_of
from traffic.jobs.models import Layer

_Waits = Mapping[int, Sequence[int]]


def _gradients(
    graph: Graph, training: Training, elements: float, groups: Sequence[Sequence[int]], after: _Waits
) -> dict[int, list[int]]:
    """Sum gradients within each of `groups`; return what each rank then waits for."""
    done: dict[int, list[int]] = {rank: [] for rank in range(graph.ranks)}
    for group in groups:
        if len(group) > 1:
            size = elements * training.gradient_bytes
            summed = graph.collective("allreduce", size, group, after, ("gradients", len(group)))
            for rank, task in summed.items():
                done[rank].append(task)
    return done


def _tensor(graph: Graph, training: Training, ends: _Waits) -> _Waits:
    """Megatron's: two sums a layer and pass of tokens x hidden (arXiv 1909.08053), which hold what follows.

    With `sequence_parallel`, a gathering and a scattering stand for each sum (arXiv 2205.05198).
    """
    shares, same = groups_of(graph, training)
    size = training.tokens * training.model.hidden * training.weight_bytes
    names = ("allgather", "reducescatter") if training.sequence_parallel else ("allreduce",)
    at: dict[int, Sequence[int]] = dict(ends)

    def pass_through(layer: Layer, seconds: float, label: str) -> None:
        halves = 2 if layer.name == "block" else 1  # attention, and the feed-forward network
        for _ in range(halves):
            for rank in range(graph.ranks):
                at[rank] = [graph.compute(rank, seconds / halves, at[rank], label)]
            if layer.name == "block":
                for name in names:
                    done = [graph.collective(name, size, group, at, "tensor") for group in shares]
                    at.update({rank: [task] for each in done for rank, task in each.items()})

    for layer in training.model.layers:
        pass_through(layer, training.forward_s([layer]), "forward")
    sums: dict[int, list[int]] = {rank: [] for rank in range(graph.ranks)}
    for layer in reversed(training.model.layers):
        pass_through(layer, training.backward_s([layer]), "backward")
        summed = _gradients(graph, training, layer.parameters / training.group, same, at)
        sums = {rank: summed[rank] or sums[rank] for rank in sums}
    return {rank: [*at[rank], *sums[rank]] for rank in sums}


def _stages(training: Training) -> list[list[Layer]]:
    """The layers of every stage: equally many blocks, the first and the last stage with what is before and behind."""
    layers, stages = list(training.model.layers), training.group
    if len(layers) < stages:
        raise JobError(f"group {stages} is more stages than the {len(layers)} layers of {training.model.name}")
    cuts = [round(place * len(layers) / stages) for place in range(stages + 1)]
    return [layers[first:last] for first, last in pairwise(cuts)]


def _order(stage: int, stages: int, parts: int) -> list[tuple[str, int]]:
    """What a stage does in turn: 1F1B (arXiv 2104.04473): as many forward as stages follow, then one of each."""
    ahead = min(stages - stage - 1, parts)
    steps = [("forward", part) for part in range(ahead)]
    for part in range(parts - ahead):
        steps += [("forward", ahead + part), ("backward", part)]
    return [*steps, *(("backward", part) for part in range(parts - ahead, parts))]


def _pipeline(graph: Graph, training: Training, ends: _Waits) -> _Waits:
    """A stage sends on the activations of every part of its batch, and back their gradients."""
    pipes, same = groups_of(graph, training)
    stages, parts = _stages(training), training.microbatches
    size = training.tokens / parts * training.model.hidden * training.weight_bytes
    at: dict[int, Sequence[int]] = dict(ends)
    orders = [_order(stage, len(stages), parts) for stage in range(len(stages))]
    for pipe in pipes:
        arrived: dict[tuple[str, int, int], int] = {}
        turn = [0] * len(stages)
        while any(place < 2 * parts for place in turn):
            for stage, rank in enumerate(pipe):
                while turn[stage] < 2 * parts:
                    kind, part = orders[stage][turn[stage]]
                    source = stage - 1 if kind == "forward" else stage + 1
                    if 0 <= source < len(stages) and (kind, part, stage) not in arrived:
                        break  # not there yet: the stage that sends it comes first
                    of = training.forward_s if kind == "forward" else training.backward_s
                    waits = [*at[rank], *([arrived[kind, part, stage]] if (kind, part, stage) in arrived else [])]
                    done = graph.compute(rank, of(stages[stage]) * len(stages) / parts, waits, f"{kind} {part}")
                    at[rank] = [done]
                    target = stage + 1 if kind == "forward" else stage - 1
                    if 0 <= target < len(stages):
                        arrived[kind, part, target] = graph.send(rank, pipe[target], size, [done], kind)
                    turn[stage] += 1
    summed: dict[int, list[int]] = {rank: [] for rank in range(graph.ranks)}
    for layers, group in zip(stages, same, strict=True):
        found = _gradients(graph, training, sum(layer.parameters for layer in layers), [group], at)
        summed.update({rank: found[rank] for rank in group})
    return {rank: [*at[rank], *summed[rank]] for rank in summed}


def shares(count: int, skew: float) -> list[float]:
    """Return which part of all tokens goes to each of `count` ranks: the first has `skew` times the mean, the others
    share what is left.
    """
    if not 1 <= skew <= count:
        raise JobError(f"skew {skew:g} of {count} ranks: write 1 to {count}")
    return [skew / count, *[(1 - skew / count) / (count - 1)] * (count - 1)] if count > 1 else [1.0]


def _experts(graph: Graph, training: Training, ends: _Waits) -> _Waits:
    """Every layer has tokens x chosen experts sent out and back, in either pass: four exchanges.

    Experts are dealt out to a group; all else every rank has whole. Its gradients are summed over all ranks, those of
    experts over the ranks that have the same.
    """
    groups, same = groups_of(graph, training)
    model = training.model
    if not model.chosen:
        raise JobError(f"{model.name} has no experts: use a model such as mixtral")
    parts = shares(training.group, training.skew)
    bytes_each = training.tokens * model.chosen * model.hidden * training.weight_bytes
    at: dict[int, Sequence[int]] = dict(ends)

    def compute(seconds: float, label: str) -> None:
        for rank in range(graph.ranks):
            at[rank] = [graph.compute(rank, seconds, at[rank], label)]

    def exchange(*, back: bool) -> None:
        for group in groups:
            graph.room_for(len(group) * (len(group) - 1))
            sizes = {
                (dst, src) if back else (src, dst): bytes_each * part
                for src in group
                for dst, part in zip(group, parts, strict=True)
                if src != dst
            }
            at.update({rank: [task] for rank, task in graph.exchange(sizes, group, at, "experts").items()})

    def layer_pass(layer: Layer, seconds: float, label: str) -> None:
        if not layer.experts:
            return compute(seconds, label)
        compute(seconds / 2, label)
        exchange(back=False)
        compute(seconds / 2, label)
        return exchange(back=True)

    for layer in model.layers:
        layer_pass(layer, training.forward_s([layer]), "forward")
    sums: dict[int, list[int]] = {rank: [] for rank in range(graph.ranks)}
    for layer in reversed(model.layers):
        layer_pass(layer, training.backward_s([layer]), "backward")
        whole = _gradients(graph, training, layer.parameters - layer.experts, [range(graph.ranks)], at)
        dealt = _gradients(graph, training, layer.experts / training.group, same, at) if layer.experts else sums
        sums = {rank: [*whole[rank], *dealt[rank]] for rank in sums}
    return {rank: [*at[rank], *sums[rank]] for rank in sums}


TENSOR = Job(
    "tp", "layers are split, and what they put out is summed twice a layer and pass (Megatron's)", _tensor, shared=True
)
PIPELINE = Job(
    "pp", "stages send activations on and their gradients back, one forward and one back (1F1B)", _pipeline, shared=True
)
EXPERTS = Job("ep", "tokens are exchanged with the ranks of their experts, four times a layer", _experts)
