"""A collective as flows: who sends how many bytes to whom, and what must have arrived first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Flow:
    """`size_bytes` from rank `src` to rank `dst`, sent once every flow in `waits_for` has arrived in full.

    `id` is the flow's place in its schedule, and every id it waits for is smaller, so a schedule is listed in an order
    that never deadlocks. Flows of one `step` are meant to run together: splitting looks at a step at a time.
    Flows of equal (src, dst, channel) share their connections, in order of id.

    `src_offset_bytes` and `dst_offset_bytes` place the bytes in the ranks' buffers; `reduce` adds them to what is there
    instead of overwriting it. Replay needs them only to carry and check real data.
    """

    id: int
    src: int
    dst: int
    size_bytes: int
    step: int = 0
    channel: int = 0
    waits_for: tuple[int, ...] = ()
    start_s: float = 0.0
    src_offset_bytes: int = 0
    dst_offset_bytes: int = 0
    reduce: bool = False


@dataclass(frozen=True)
class Schedule:
    """The flows of one collective among `ranks` ranks.

    `size_bytes` is the message size as nccl-tests counts it, and `busbw_factor` what algbw is multiplied by to give
    busbw (nccl-tests, doc/PERFORMANCE.md).
    """

    collective: str
    algorithm: str
    ranks: int
    channels: int
    size_bytes: int
    flows: Sequence[Flow] = field(repr=False)
    busbw_factor: float = 1.0

    @property
    def payload_bytes(self) -> int:
        return sum(flow.size_bytes for flow in self.flows)
