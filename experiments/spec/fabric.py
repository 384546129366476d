"""The fabric of an experiment: its counts, its links and queues."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StrictInt, ValidationInfo, field_validator

from controllers.dataplane import AUTO, PLANES
from emulator.ports import least_rate_bps
from emulator.topology import ETHERNET_HEADER_BYTES, MAX_HOSTS_PER_LEAF, MAX_LEAVES, MAX_SPINES, LeafSpine
from experiments.spec.fields import Auto, Between, Keys, RateBps, SizeBytes
from experiments.spec.messages import SpecError
from experiments.spec.scale import SAYS, Scale, ScaleSpec
from experiments.spec.units import format_rate_bps, format_size_bytes

MAX_MTU_BYTES = 9216  # as switches have it
MAX_BURST_FRAMES = 16
MAX_QUEUE_BYTES = 2**32 - 1  # tc counts a queue's bytes in 32 bits

if TYPE_CHECKING:
    AnyPlane = str
else:
    AnyPlane = Literal[AUTO, *PLANES]

_MOST_BURST_BYTES = 65_535  # of one IPv4 packet


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
            frame_bytes = info.data["mtu_bytes"] + ETHERNET_HEADER_BYTES
            raise ValueError(
                f"{format_rate_bps(rate_bps)} is too small: a frame of {frame_bytes} bytes would "
                f"take more than a second, so write {format_rate_bps(least_bps)} or more, or a smaller mtu"
            )
        return rate_bps

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
        rates = [info.data.get(name) for name in ("host_rate_bps", "fabric_rate_bps")]
        known = [rate_bps for rate_bps in rates if isinstance(rate_bps, int)]
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
        return replace(
            self.shape(),
            host_rate_bps=self.slower.rate_bps(_known(self.host_rate_bps)),
            fabric_rate_bps=self.slower.rate_bps(_known(self.fabric_rate_bps)),
            mtu_bytes=self.mtu_bytes,
            queue_bytes=self.queue_bytes,
            burst_frames=self.burst_frames,
        )

    @property
    def rates_known(self) -> bool:
        """Whether no rate is `auto`."""
        return not isinstance(self.host_rate_bps, Auto) and not isinstance(self.fabric_rate_bps, Auto)

    def shape(self) -> LeafSpine:
        """The fabric with queues of any kind, and such rates as are known: for what is sent from whom to whom."""
        plain = LeafSpine(leaves=self.leaves, spines=self.spines, hosts_per_leaf=self.hosts_per_leaf)
        host_bps, fabric_bps = self.host_rate_bps, self.fabric_rate_bps
        return replace(
            plain,
            host_rate_bps=plain.host_rate_bps if isinstance(host_bps, Auto) else host_bps,
            fabric_rate_bps=plain.fabric_rate_bps if isinstance(fabric_bps, Auto) else fabric_bps,
        )


def _known(rate_bps: int | Auto) -> int:
    if isinstance(rate_bps, Auto):
        raise SpecError("a rate of auto has not been settled for this machine; write a rate such as 20mbit")
    return rate_bps
