"""Traffic that is a training job of `traffic.jobs`: iterations, scaled from a real network to the emulated one."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from emulator.inputs import quote
from emulator.topology import LeafSpine
from experiments.spec.fields import Between, TimeS
from experiments.spec.traffic.scaled import Factor, Ranks, ScaledTraffic
from traffic.collectives import COLLECTIVES, algorithm_of
from traffic.jobs import JOBS, MODELS, JobError, Training, draw_up
from traffic.schedule import Schedule

FLOPS = 400e12
"""What a GPU does in a second where nothing else is known: 40 % of an H100's dense bf16 peak, 989 TFLOP/s."""

MAX_ITERATIONS = 100


def _known(name: str, names: dict[str, Any], what: str) -> str:
    if name not in names:
        raise ValueError(f"unknown {what} {quote(name)}: use one of {', '.join(names)}")
    return name


Count = Annotated[StrictInt, Between(1, 1_000_000, too_few="at least {least}", too_many="at most {most}")]


class JobTraffic(ScaledTraffic):
    """A training job, on all hosts of the fabric unless it has `ranks`.

    Without `compute`, an iteration's computing is 6 x the parameters that a token meets x `tokens` / FLOPS; a rank of a
    `group` that has its tokens in common does its part of that.
    """

    key: ClassVar[str] = "job"
    example: ClassVar[str] = "{job: ddp, model: resnet50}"

    job: Annotated[StrictStr, AfterValidator(lambda name: _known(name, JOBS, "job"))] = Field(
        description="the name of a job such as ddp"
    )
    model: Annotated[StrictStr, AfterValidator(lambda name: _known(name, MODELS, "model"))] = Field(
        description="the name of a model such as resnet50"
    )
    ranks: Ranks = Field(default=None, description="a number of ranks")
    compute_s: TimeS | None = Field(default=None, alias="compute", description="a time such as 250ms")
    iterations: Annotated[
        StrictInt, Between(1, MAX_ITERATIONS, too_few="a job has at least {least}", too_many="at most {most}")
    ] = 2
    tokens: Count = 4096
    group: Count = 1
    microbatches: Count = 1
    gradient_bytes: Literal[1, 2, 4, 8] = 4
    weight_bytes: Literal[1, 2, 4, 8] = 2
    update: Annotated[StrictFloat | StrictInt, AfterValidator(lambda share: _share(share))] = Field(
        default=0.0, description="a part of computing such as 0.04"
    )
    overlap: StrictBool = Field(default=True, description="true or false")
    sequence_parallel: StrictBool = Field(default=False, description="true or false")
    skew: Factor = Field(default=1.0, description="how many times the mean, such as 1.5")
    algorithm: Annotated[StrictStr, AfterValidator(lambda name: _allreduce(name))] = Field(
        default="ring", description="the name of an algorithm of allreduce such as ring"
    )
    channels: Annotated[StrictInt, Between(1, 64, too_few="at least {least}", too_many="at most {most}")] = 1

    def names(self) -> tuple[str, str]:
        return self.key, f"{self.job}-{self.model}"

    @property
    def label(self) -> str:
        return f"{self.job}-{self.model}"

    def settings(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"job", "model"})

    def training(self) -> Training:
        """Return the job as it is on the real network."""
        model = MODELS[self.model]
        if self.compute_s is None and not model.blocks:
            raise JobError(f"nothing says how long {self.model} computes: write compute, a time such as 250ms")
        sharing = self.group if JOBS[self.job].shared else 1
        return Training(
            model,
            self.compute_s or 6 * model.active * self.tokens / FLOPS / sharing,
            **{name: getattr(self, name) for name in _OF_TRAINING},
        )

    def schedule(self, topology: LeafSpine, placement: str, seed: int) -> Schedule:
        """Return the job among as many ranks as the fabric has hosts. Raises JobError."""
        return draw_up(
            JOBS[self.job],
            self.training(),
            self.ranks or topology.hosts,
            iterations=self.iterations,
            scale=self.scaling(topology),
            algorithms={"allreduce": self.algorithm},
            channels=self.channels,
        )


_OF_TRAINING = (
    *("update", "gradient_bytes", "weight_bytes", "group", "tokens", "microbatches"),
    *("overlap", "skew", "sequence_parallel"),
)


def _share(share: float) -> float:
    if not 0 <= share < 1:
        raise ValueError(f"{share} is not a part of computing; write a number such as 0.04")
    return share


def _allreduce(name: str) -> str:
    return algorithm_of(COLLECTIVES["allreduce"].name, name).name
