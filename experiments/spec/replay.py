"""What an experiment says of the processes that replay its traffic."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from experiments.spec.fields import Keys
from experiments.spec.messages import shown
from traffic.abreast import DEFAULT_PROCESSES, Processes

MAX_PROCESSES = 256
_SAYS = f"auto, or a whole number from 1 to {MAX_PROCESSES}"


def _read(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_PROCESSES):
        return value
    raise ValueError(f"{shown(value)} is not {_SAYS}")


class ReplaySpec(Keys):
    """How the traffic is replayed: see `traffic.abreast`."""

    processes: Annotated[
        Processes,
        BeforeValidator(_read),
        WithJsonSchema({"anyOf": [{"enum": ["auto"]}, {"type": "integer", "minimum": 1, "maximum": MAX_PROCESSES}]}),
    ] = Field(default=DEFAULT_PROCESSES, description=_SAYS)
