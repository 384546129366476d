"""A schedule being drawn up: algorithms say who sends which bytes at which step, the draft finds what waits for what.

A flow waits for the arrivals that made the bytes it sends what they are: the last flow that overwrote them and every
flow reduced onto them since. Only arrivals of earlier steps count; flows of one step run together.
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

from traffic.collectives.layout import ELEMENT_BYTES, ScheduleError, Span, SpanMap, divide, element_bytes
from traffic.schedule import Flow

PIPELINE_CHUNKS = 8
"""Chunks that flow through a tree or a broadcast ring one behind the other, unless asked otherwise."""


class _Send(NamedTuple):
    step: int
    src: int
    dst: int
    span: Span
    channel: int
    reduce: bool
    dst_offset_bytes: int
    after: int | None


class Draft:
    """The sends of one collective of `size_bytes` among `ranks` ranks, over `channels` connections a pair."""

    def __init__(self, ranks: int, size_bytes: int, channels: int) -> None:
        self.ranks = ranks
        self.size_bytes = size_bytes
        self.channels = channels
        self._unit_bytes = element_bytes(size_bytes)
        self._sends: list[_Send] = []

    @property
    def message(self) -> Span:
        return range(self.size_bytes)

    def divide(self, span: Span, parts: int) -> list[Span]:
        return divide(span, parts, self._unit_bytes)

    def require_pieces(self, **counts: int) -> None:
        """Raise ScheduleError unless the message can be cut by all of `counts` with no piece empty."""
        parts = 1
        for name, count in counts.items():
            if count < 1:
                raise ScheduleError(f"{name} must be 1 or more, not {count}")
            parts *= count
        if self.size_bytes < parts * self._unit_bytes:
            cut = " x ".join(f"{count} {name}" for name, count in counts.items())
            raise ScheduleError(
                f"size {self.size_bytes} bytes is too small to cut into {cut}: "
                f"use at least {parts * ELEMENT_BYTES} bytes"
            )

    def send(
        self,
        step: int,
        src: int,
        dst: int,
        span: Span,
        *,
        channel: int = 0,
        reduce: bool = False,
        dst_offset_bytes: int | None = None,
        after: int | None = None,
    ) -> int:
        """Send `span` of the buffer of `src`; return its handle.

        The bytes land at the same place of the buffer of `dst` unless `dst_offset_bytes` says otherwise. `after` is
        the handle of a send of an earlier step to wait for, besides those that made the bytes.
        """
        landing = span.start if dst_offset_bytes is None else dst_offset_bytes
        self._sends.append(_Send(step, src, dst, span, channel, reduce, landing, after))
        return len(self._sends) - 1

    def flows(self) -> list[Flow]:
        """Return all sends as flows in order of step, each with what it waits for."""
        order = sorted(range(len(self._sends)), key=lambda handle: self._sends[handle].step)
        flow_id = {handle: place for place, handle in enumerate(order)}
        arrived: list[SpanMap[tuple[int, ...]]] = [SpanMap(()) for _ in range(self.ranks)]
        flows: list[Flow] = []
        for step, handles in groupby(order, key=lambda handle: self._sends[handle].step):
            first = len(flows)
            for handle in handles:
                _, src, dst, span, channel, reduce, landing, after = self._sends[handle]
                waits_for = _ids(arrived[src], span)
                if after is not None:
                    waits_for = tuple(sorted({*waits_for, flow_id[after]}))
                flows.append(
                    Flow(
                        id=len(flows),
                        src=src,
                        dst=dst,
                        size_bytes=len(span),
                        step=step,
                        channel=channel,
                        waits_for=waits_for,
                        src_offset_bytes=span.start,
                        dst_offset_bytes=landing,
                        reduce=reduce,
                    )
                )
            for flow in flows[first:]:
                self._note_arrival(arrived[flow.dst], flow)
        return flows

    def _note_arrival(self, arrived: SpanMap[tuple[int, ...]], flow: Flow) -> None:
        if flow.dst_offset_bytes >= self.size_bytes:
            return  # behind the message: never sent on
        landed = range(flow.dst_offset_bytes, flow.dst_offset_bytes + flow.size_bytes)
        if flow.reduce:
            for part, ids in arrived.get(landed):
                arrived.put(part, (*ids, flow.id))
        else:
            arrived.put(landed, (flow.id,))


def _ids(arrived: SpanMap[tuple[int, ...]], span: Span) -> tuple[int, ...]:
    parts = arrived.get(span)
    if len(parts) == 1:
        return parts[0][1]
    return tuple(sorted({flow_id for _, ids in parts for flow_id in ids}))
