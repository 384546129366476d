"""Traffic that is requests to a pool of servers, to be put beside a training job."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, StrictInt

from emulator.topology import LeafSpine
from experiments.spec.fields import Between, SizeBytes, TimeS
from experiments.spec.traffic.entry import TrafficEntry
from traffic.jobs.requests import requests
from traffic.schedule import Schedule

_Few = Annotated[StrictInt, Between(1, 1024, too_few="at least {least}", too_many="at most {most}")]


class RequestTraffic(TrafficEntry):
    """Requests of the first `clients` ranks to the `pool` that follow. Sizes and times are those of the emulation."""

    key: ClassVar[str] = "requests"
    example: ClassVar[str] = "{requests: 256, clients: 4, pool: 8, serve: 1s}"

    count: Annotated[StrictInt, Between(1, 100_000, too_few="at least {least}", too_many="at most {most}")] = Field(
        alias="requests", description="a number of requests"
    )
    clients: _Few = 4
    pool: _Few = 4
    at_once: _Few = 10
    up_bytes: SizeBytes = Field(default=2000, alias="up", description="a size such as 2KB")
    down_bytes: SizeBytes = Field(default=2500, alias="down", description="a size such as 2500B")
    serve_s: TimeS = Field(default=0.0, alias="serve", description="a time such as 1s")

    def names(self) -> tuple[str, str]:
        return self.key, "pool"

    @property
    def label(self) -> str:
        return self.key

    def settings(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def flow_count(self, topology: LeafSpine) -> int:
        return 2 * self.count

    def schedule(self, topology: LeafSpine, placement: str, seed: int) -> Schedule:
        return requests(
            self.count,
            clients=self.clients,
            pool=self.pool,
            at_once=self.at_once,
            up_bytes=self.up_bytes,
            down_bytes=self.down_bytes,
            serve_s=self.serve_s,
        )
