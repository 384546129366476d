"""What a training job is asked for, and what is common to all: iterations, one after the other, among all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from traffic.jobs.graph import Graph, JobError, Scale
from traffic.jobs.models import Layer, Model
from traffic.schedule import Schedule

FORWARD = 1 / 3
"""Of a pass over a batch, the forward part: the backward one computes two gradients, each as much work."""


@dataclass(frozen=True)
class Training:
    """One job. `compute_s` is what a rank computes in an iteration, `update` the part of it after the last gradient.

    Gradients have `gradient_bytes` an element, and what else is sent `weight_bytes`. `group` ranks that follow each
    other share a model where the job splits it. `tokens` are those of a rank and iteration, in `microbatches` parts.
    Without `overlap`, gradients are sent only once all are there. `skew` is how many times the mean the most chosen
    expert is chosen. With `sequence_parallel`, what is between the layers' products is split as well.
    """

    model: Model
    compute_s: float
    update: float = 0.0
    gradient_bytes: int = 4
    weight_bytes: int = 2
    group: int = 1
    tokens: int = 4096
    microbatches: int = 1
    overlap: bool = True
    skew: float = 1.0
    sequence_parallel: bool = False

    @property
    def batch_s(self) -> float:
        """Return the forward and the backward pass."""
        return self.compute_s * (1 - self.update)

    def forward_s(self, layers: Iterable[Layer]) -> float:
        return self._share(layers) * FORWARD * self.batch_s

    def backward_s(self, layers: Iterable[Layer]) -> float:
        return self._share(layers) * (1 - FORWARD) * self.batch_s

    def _share(self, layers: Iterable[Layer]) -> float:
        return sum(layer.work for layer in layers) / sum(layer.work for layer in self.model.layers)


class Bucket(NamedTuple):
    """Gradients that are sent together, once the backward pass has taken `backward_s` more."""

    elements: int
    backward_s: float


FIRST_BUCKET_BYTES, BUCKET_BYTES = 1 << 20, 25 << 20
"""PyTorch's caps of DistributedDataParallel; a bucket is closed by the tensor that reaches its cap."""


def buckets(training: Training) -> list[Bucket]:
    """Return the gradients of all tensors, last first, in buckets as PyTorch's DistributedDataParallel makes them."""
    found: list[Bucket] = []
    elements, seconds, cap_bytes = 0, 0.0, FIRST_BUCKET_BYTES
    for layer in reversed(training.model.layers):
        for tensor in reversed(layer.tensors):
            elements += tensor
            seconds += training.backward_s([layer]) * tensor / layer.parameters
            if elements * training.gradient_bytes >= cap_bytes:
                found.append(Bucket(elements, seconds))
                elements, seconds, cap_bytes = 0, 0.0, BUCKET_BYTES
    return [*found, Bucket(elements, seconds)] if elements else found


def groups_of(graph: Graph, training: Training) -> tuple[list[range], list[range]]:
    """Return the groups of ranks that share a model, and those that hold the same part of it."""
    size = training.group
    if size < 1 or graph.ranks % size:
        raise JobError(f"group {size} does not divide {graph.ranks} ranks: write a number that does")
    return (
        [range(first, first + size) for first in range(0, graph.ranks, size)],
        [range(place, graph.ranks, size) for place in range(size)],
    )


Tasks = dict[int, int]
"""By rank, the last task so far."""

Iteration = Callable[[Graph, Training, Mapping[int, Sequence[int]]], Mapping[int, Sequence[int]]]
"""Add an iteration to a graph, given what every rank waits for; returns what its update waits for."""


@dataclass(frozen=True)
class Job:
    """A way to train. `says` what is sent, in one clause.

    Where `shared`, a group works on the same tokens, and each of its ranks does its part of what they take.
    """

    name: str
    says: str
    iteration: Iteration
    shared: bool = False


def draw_up(
    job: Job,
    training: Training,
    ranks: int,
    *,
    iterations: int = 1,
    scale: Scale | None = None,
    algorithms: Mapping[str, str] | None = None,
    channels: int = 1,
) -> Schedule:
    """Return `iterations` of a job among `ranks` as a schedule. Raises JobError."""
    graph = Graph(ranks, scale=scale, algorithms=algorithms, channels=channels)
    ends: Mapping[int, Sequence[int]] = dict.fromkeys(range(ranks), ())
    for graph.iteration in range(iterations):
        before = job.iteration(graph, training, ends)
        update_s = training.update * training.compute_s
        ends = {rank: [graph.compute(rank, update_s, before[rank], "update")] for rank in range(ranks)}
    return graph.schedule("job", f"{job.name}-{training.model.name}")
