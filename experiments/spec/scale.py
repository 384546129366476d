"""How a cluster's fabric is emulated by a machine that cannot carry its rates: slower, by one factor.

Every rate is divided by the factor; bytes (messages, frames, queues) stay what they are. So whatever takes its time on
a wire takes the factor times as long, and what compares times or bytes with each other is as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, WithJsonSchema

from emulator.faults import Fault, Reaction
from emulator.topology import LeafSpine
from experiments.spec.messages import shown
from experiments.spec.units import format_rate_bps
from traffic.repath import Repath
from traffic.schedule import Schedule

Timed = TypeVar("Timed", Fault, Reaction, Repath)

MAX_FACTOR = 10**9
REAL_RATE_BPS = 10**9
"""From here on a link is a cluster's, and not one that was chosen for an emulation."""

SAYS = "auto, none, or by how much slower: a whole number such as 8000"


def _read(value: Any) -> Any:
    if value in ("auto", "none"):
        return value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_FACTOR:
        raise ValueError(f"{shown(value)} is not {SAYS}")
    return value


ScaleSpec = Annotated[
    int | Literal["auto", "none"],
    BeforeValidator(_read),
    WithJsonSchema({"anyOf": [{"enum": ["auto", "none"]}, {"type": "integer", "minimum": 1, "maximum": MAX_FACTOR}]}),
]


@dataclass(frozen=True)
class Scale:
    """One second of the cluster is `factor` seconds of the emulation. With 1 they are the same."""

    factor: int = 1

    def rate_bps(self, real_bps: int) -> int:
        """Return the emulated rate of a link."""
        return round(real_bps / self.factor)

    def schedule(self, real: Schedule) -> Schedule:
        """Return `real` with every time in it as the emulation has it."""
        if self.factor == 1:
            return real
        flows, computes = real.flows, real.computes
        if any(flow.start_s for flow in flows):
            flows = [replace(flow, start_s=flow.start_s * self.factor) for flow in flows]
        if computes:
            computes = [replace(each, seconds=each.seconds * self.factor) for each in computes]
        return replace(real, flows=flows, computes=computes)

    def slowed(self, real: Timed) -> Timed:
        """Return a fault, or a reaction, as slow as its fabric: its fields carry their units, rates and times."""
        changed: dict[str, Any] = {}
        for field in fields(real):
            value = getattr(real, field.name)
            if value is not None and field.name.endswith("_bps"):
                changed[field.name] = self.rate_bps(value)
            elif value is not None and field.name.endswith("_s"):
                changed[field.name] = value * self.factor
        return replace(real, **changed) if self.factor > 1 else real

    def __str__(self) -> str:
        return f"1:{self.factor}"


def rounded_up(factor: float) -> int:
    """Return a whole number of at most two digits that count, and no less than `factor`."""
    size = 10 ** max(0, len(str(int(factor))) - 2)
    return int(-(-factor // size) * size)


def explained(scale: Scale, real: LeafSpine) -> list[str]:
    """Return what people should know of `real` being emulated at `scale`, a sentence each; nothing where it is 1:1."""
    if scale.factor == 1:
        return []
    rates = (real.host_rate_bps, real.fabric_rate_bps)
    there, here = (" and ".join(map(format_rate_bps, each)) for each in (rates, map(scale.rate_bps, rates)))
    return [
        f"scale {scale}: links of {there} (hosts, fabric) are emulated at {here}; a leaf stays oversubscribed "
        f"{oversubscription(real):.3g}:1",
        f"scaled: rates, to 1/{scale.factor}; start times, computation and all that takes its time on a wire, to "
        f"{scale.factor} times; TCP's least time-out, by what a full queue takes to drain. Sizes, frames, queues and "
        "counts are as they are",
        "not scaled: delays of wires, switches and hosts; TCP instead of RoCE, without PFC and ECN. Ratios carry over, "
        "microseconds do not: docs/cluster.md",
    ]


def oversubscription(topology: LeafSpine) -> float:
    """Return what the hosts of a leaf send at most, over what its links to the spines carry, of the leaf with least."""
    least_bps = min(
        sum(map(topology.spine_rate_bps, topology.live_spines(leaf, leaf))) for leaf in range(topology.leaves)
    )
    return topology.hosts_per_leaf * topology.host_rate_bps / least_bps
