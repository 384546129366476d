"""The fabric of an experiment: its counts, its links and queues."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StrictInt, StrictStr, ValidationInfo, WithJsonSchema, field_validator

from controllers.dataplane import AUTO, PLANES
from emulator.ports import least_rate_bps
from emulator.topology import ETHERNET_HEADER_BYTES, MAX_HOSTS_PER_LEAF, MAX_LEAVES, MAX_SPINES, LeafSpine
from experiments.spec.amounts import Amount, PartOfRate
from experiments.spec.fields import Auto, Between, Keys, RateBps, SizeBytes
from experiments.spec.links import links_failed, rates_by_spine
from experiments.spec.messages import SpecError
from experiments.spec.scale import SAYS, Scale, ScaleSpec
from experiments.spec.units import RATE_PATTERN, format_rate_bps, format_size_bytes

MAX_MTU_BYTES = 9216  # as switches have it
MAX_BURST_FRAMES = 16
MAX_QUEUE_BYTES = 2**32 - 1  # tc counts a queue's bytes in 32 bits

if TYPE_CHECKING:
    AnyPlane = str
else:
    AnyPlane = Literal[AUTO, *PLANES]

_MOST_BURST_BYTES = 65_535  # of one IPv4 packet
_WHOLE = Amount(100.0, percent=True)

_RATE = {"type": "string", "pattern": rf"^(?:{RATE_PATTERN}|[0-9]+(\.[0-9]+)? ?%)$"}

SpineRates = Annotated[
    dict[str, PartOfRate],
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": _RATE, "minItems": 1, "maxItems": MAX_SPINES},
                {
                    "type": "object",
                    "patternProperties": {"^(?:spine)?[1-9][0-9]?$": _RATE},
                    "additionalProperties": False,
                    "minProperties": 1,
                },
            ]
        }
    ),
]
"""Rates by the names of spines; of others, it is the fabric's."""


class FabricSpec(Keys):
    """`leaves` x `spines` x `hosts_per_leaf`, and what its links and queues are like."""

    leaves: Annotated[
        StrictInt,
        Between(
            2,
            MAX_LEAVES,
            too_few="with fewer than {least} leaves nothing crosses a spine, so at least {least}",
            too_many="each leaf has one 10.<leaf>.0.0/16 prefix, so at most {most} leaves",
        ),
    ]
    spines: Annotated[
        StrictInt,
        Between(
            1,
            MAX_SPINES,
            too_few="leaves are joined by spines only, so at least {least} spine",
            too_many="a path tag is a 6-bit DSCP value, so at most {most} spines",
        ),
    ]
    hosts_per_leaf: Annotated[
        StrictInt,
        Between(
            1,
            MAX_HOSTS_PER_LEAF,
            too_few="traffic needs hosts, so at least {least} host a leaf",
            too_many="a leaf has addresses and ports for so many, so at most {most} hosts a leaf",
        ),
    ]
    mtu_bytes: Annotated[
        StrictInt,
        Between(
            576,
            MAX_MTU_BYTES,
            too_few="IPv4 asks for at least {least} bytes",
            too_many="jumbo frames carry at most {most} bytes",
            of="bytes",
        ),
    ] = Field(default=9000, alias="mtu")
    host_rate_bps: RateBps = Field(default=20_000_000, alias="host_rate", description="a rate such as 20mbit, or auto")
    fabric_rate_bps: RateBps = Field(
        alias="fabric_rate",
        description="a rate such as 20mbit, or auto",
        default_factory=lambda before: before["host_rate_bps"],
    )
    spine_rates: SpineRates | None = Field(
        default=None, description="a rate a spine: a list, or a mapping such as {spine1: 50%}"
    )
    failed: tuple[StrictStr, ...] = Field(default=(), description="a list such as [leaf1-spine2, spine3]")
    queue_bytes: SizeBytes = Field(default=4_000_000, alias="queue", description="a size such as 4MB")
    dataplane: AnyPlane = AUTO
    burst_frames: Annotated[
        StrictInt,
        Between(
            1,
            MAX_BURST_FRAMES,
            too_few="at least {least} frame travels at a time",
            too_many="Linux is asked for {most} at most",
            of="frames",
        ),
    ] = Field(default=1, alias="burst")

    @field_validator("host_rate_bps", "fabric_rate_bps")
    @classmethod
    def _rate_can_be_made(cls, rate_bps: int | Auto, info: ValidationInfo) -> int | Auto:
        least_bps = least_rate_bps(info.data["mtu_bytes"]) if "mtu_bytes" in info.data else 1
        if not isinstance(rate_bps, Auto) and rate_bps < least_bps:
            raise ValueError(_too_slow(rate_bps, info.data["mtu_bytes"]))
        return rate_bps

    @field_validator("spine_rates", mode="before")
    @classmethod
    def _by_spine(cls, rates: object, info: ValidationInfo) -> object:
        fabric = _counted(info)
        return None if rates is None or fabric is None else rates_by_spine(rates, fabric)

    @field_validator("spine_rates")
    @classmethod
    def _spines_can_be_made(cls, rates: SpineRates | None, info: ValidationInfo) -> SpineRates | None:
        usual_bps = info.data.get("fabric_rate_bps")
        for name, rate in (rates or {}).items():
            if not rate.value:
                raise ValueError(
                    f"{name}: a rate of zero carries nothing; write such as 50%, or fabric.failed: [{name}]"
                )
            known = None if rate.percent and not isinstance(usual_bps, int) else int(rate.of(usual_bps or 0))
            if known is not None and "mtu_bytes" in info.data and known < least_rate_bps(info.data["mtu_bytes"]):
                raise ValueError(f"{name}: {_too_slow(known, info.data['mtu_bytes'])}")
        return rates

    @field_validator("failed")
    @classmethod
    def _paths_are_left(cls, failed: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if fabric := _counted(info):
            links_failed(failed, fabric)
        return failed

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

    scale: ScaleSpec = Field(default="auto", description=SAYS)

    @field_validator("scale")
    @classmethod
    def _slow_links_can_be_made(cls, scale: int | str, info: ValidationInfo) -> int | str:
        known = _known_rates(*(info.data.get(name) for name in ("host_rate_bps", "fabric_rate_bps", "spine_rates")))
        if isinstance(scale, int) and known and "mtu_bytes" in info.data:
            most = min(known) // least_rate_bps(info.data["mtu_bytes"])
            if scale > most:
                raise ValueError(
                    f"{scale} is too large: at a {scale}th of {format_rate_bps(min(known))}, a frame would take more "
                    f"than a second, so at most {most}, or a smaller mtu"
                )
        return scale

    @property
    def slower(self) -> Scale:
        """By how much what is emulated is slower than what was asked for; by nothing while that is not settled."""
        return Scale(self.scale) if isinstance(self.scale, int) else Scale()

    def at_scale(self, factor: int) -> FabricSpec:
        """Return the same fabric, to be emulated `factor` times as slow."""
        return self.model_copy(update={"scale": factor})

    def topology(self) -> LeafSpine:
        """The fabric itself, as slow as it is to be emulated.

        Raises SpecError while a rate is `auto`: `experiments.machine.calibration` settles it.
        """
        fabric_bps, real = _known(self.fabric_rate_bps), self.shape()
        if self.spine_rates and min(real.spine_rates_bps) < least_rate_bps(self.mtu_bytes):
            raise SpecError(f"fabric.spine_rates: {_too_slow(min(real.spine_rates_bps), self.mtu_bytes)}")
        return replace(
            real,
            host_rate_bps=self.slower.rate_bps(_known(self.host_rate_bps)),
            fabric_rate_bps=self.slower.rate_bps(fabric_bps),
            spine_rates_bps=tuple(map(self.slower.rate_bps, real.spine_rates_bps)),
            mtu_bytes=self.mtu_bytes,
            queue_bytes=self.queue_bytes,
            burst_frames=self.burst_frames,
        )

    @property
    def rates_known(self) -> bool:
        """Whether no rate is `auto`."""
        return not isinstance(self.host_rate_bps, Auto) and not isinstance(self.fabric_rate_bps, Auto)

    @property
    def known_rates_bps(self) -> list[int]:
        """The rates of links, as far as none is `auto`."""
        return _known_rates(self.host_rate_bps, self.fabric_rate_bps, self.spine_rates)

    def shape(self) -> LeafSpine:
        """The fabric with queues of any kind, and such rates as are known: for what is sent from whom to whom."""
        plain = LeafSpine(leaves=self.leaves, spines=self.spines, hosts_per_leaf=self.hosts_per_leaf)
        host_bps, fabric_bps = self.host_rate_bps, self.fabric_rate_bps
        usual_bps = plain.fabric_rate_bps if isinstance(fabric_bps, Auto) else fabric_bps
        return replace(
            plain,
            host_rate_bps=plain.host_rate_bps if isinstance(host_bps, Auto) else host_bps,
            fabric_rate_bps=usual_bps,
            failed=links_failed(self.failed, plain),
            spine_rates_bps=tuple(int(rate.of(usual_bps)) for rate in self._rates_of_spines(plain)),
        )

    def _rates_of_spines(self, fabric: LeafSpine) -> list[Amount]:
        """Of every spine, the rate of its links; nothing where all are alike."""
        rates = self.spine_rates
        return [rates.get(fabric.spine_name(spine), _WHOLE) for spine in range(self.spines)] if rates else []


def _counted(info: ValidationInfo) -> LeafSpine | None:
    """The fabric as far as its counts go; None where these are wrong themselves."""
    counts = {key: info.data[key] for key in ("leaves", "spines", "hosts_per_leaf") if key in info.data}
    return LeafSpine(**counts) if len(counts) == 3 else None


def _known_rates(host_bps: object, fabric_bps: object, spine_rates: SpineRates | None) -> list[int]:
    known = [rate_bps for rate_bps in (host_bps, fabric_bps) if isinstance(rate_bps, int)]
    for rate in (spine_rates or {}).values():
        if isinstance(fabric_bps, int) or not rate.percent:
            known.append(int(rate.of(fabric_bps if isinstance(fabric_bps, int) else 0)))
    return known


def _too_slow(rate_bps: int, mtu_bytes: int) -> str:
    return (
        f"{format_rate_bps(max(rate_bps, 1))} is too small: a frame of {mtu_bytes + ETHERNET_HEADER_BYTES} bytes would "
        f"take more than a second, so write {format_rate_bps(least_rate_bps(mtu_bytes))} or more, or a smaller mtu"
    )


def _known(rate_bps: int | Auto) -> int:
    if isinstance(rate_bps, Auto):
        raise SpecError("a rate of auto has not been settled for this machine; write a rate such as 20mbit")
    return rate_bps
