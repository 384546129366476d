"""The flows of a capture and where each segment lies in its flow's byte stream; what the analyses build on.

Frames are those of decode.read_capture, rows in the order of capture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.captures.ordering import Ints, beginnings, stable_order

FLOW = ["src_ip", "src_port", "dst_ip", "dst_port"]
REVERSE_FLOW = ["dst_ip", "dst_port", "src_ip", "src_port"]


def number_flows(packets: pd.DataFrame, row: Ints, key: Sequence[str] = FLOW) -> tuple[Ints, pd.DataFrame]:
    """Number the flows (4-tuples) of the packets at places `row`, in order of appearance; with the flows' columns."""
    source, source_port, target, target_port = (packets[name].to_numpy()[row].astype(np.uint64) for name in key)
    pair, pairs = pd.factorize(source << np.uint64(32) | target)
    ports = (source_port << np.uint64(16) | target_port).astype(np.int64)
    flow, flows = pd.factorize(pair << 32 | ports)
    hosts = pairs[flows >> 32]
    columns = (hosts >> np.uint64(32), flows >> 16 & 0xFFFF, hosts & np.uint64(0xFFFFFFFF), flows & 0xFFFF)
    kinds = (packets[name].dtype for name in key)
    return flow, pd.DataFrame(
        {name: column.astype(kind) for name, column, kind in zip(FLOW, columns, kinds, strict=True)}
    )


def find_flows(packets: pd.DataFrame, row: Ints, flows: pd.DataFrame, key: Sequence[str]) -> Ints:
    """The row in `flows` of each packet at places `row`, its flow read from the columns `key`; -1 where it is none."""
    number, seen = number_flows(packets, row, key)
    known = seen.merge(flows.assign(flow=np.arange(len(flows))), on=FLOW, how="left")["flow"]
    return known.fillna(-1).to_numpy(np.int64)[number] if len(row) else np.empty(0, np.int64)


def data_segments(frame: pd.DataFrame) -> Ints:
    """Return the places in `frame` of the TCP segments that carry payload."""
    return np.flatnonzero(frame["is_tcp"].to_numpy() & (frame["payload_bytes"].to_numpy() > 0))


class Numbered(NamedTuple):
    """Data packets flow by flow, each flow in order of arrival; `number`, that of sending, rises from flow to flow.

    `in_order` are the numbers sorted; flow i has the packets from `first[i]` on.
    """

    first: Ints
    number: Ints
    in_order: Ints


@dataclass(frozen=True)
class Streams:
    """The data segments of a capture as intervals of bytes, all flows laid out one after the other on one line.

    Segments are in order of flow, those of a flow in order of capture. Flow i, a row of `flows`, has those from
    `first[i]` on; a segment stands at place `row` of the frame and holds the bytes from `start` to before `end`.
    Positions in different flows never meet, so that one sort or search serves all flows at once.

    Each analysis takes a frame or its streams. Who has several analyses to make of a frame gives all the same streams:
    what one found out (each property is computed once), the next need not.
    """

    frame: pd.DataFrame
    flows: pd.DataFrame
    first: Ints
    flow: Ints
    row: Ints

    @classmethod
    def of(cls, packets: pd.DataFrame | Streams) -> Streams:
        if isinstance(packets, Streams):
            return packets
        row = data_segments(packets)
        flow, flows = number_flows(packets, row)
        counts = np.bincount(flow, minlength=len(flows))
        return cls(
            packets,
            flows,
            np.cumsum(counts) - counts,
            np.repeat(np.arange(len(flows)), counts),
            row[stable_order(flow.astype(np.uint64))],
        )

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return the values of a column of the frame, one a segment."""
        return self.frame[name].to_numpy()[self.row]

    @cached_property
    def seq(self) -> npt.NDArray[np.uint32]:
        return self.column("seq")

    @cached_property
    def payload_bytes(self) -> Ints:
        return self.column("payload_bytes").astype(np.int64)

    @cached_property
    def line(self) -> tuple[Ints, Ints, Ints]:
        """Return where each segment starts, and each flow's part of the line: where it begins and ends.

        Sequence numbers are unwrapped by serial arithmetic (RFC 1982) from each segment to the next of its flow.
        """
        start = unwrap(self.seq, self.first)
        lowest = np.minimum.reduceat(start, self.first) if len(start) else start
        highest = np.maximum.reduceat(start + self.payload_bytes, self.first) if len(start) else start
        spans = highest - lowest
        base = np.cumsum(spans) - spans - lowest
        return start + base[self.flow], lowest + base, highest + base

    @property
    def start(self) -> Ints:
        return self.line[0]

    @cached_property
    def end(self) -> Ints:
        return self.start + self.payload_bytes

    @cached_property
    def by_start(self) -> Ints:
        """Return the segments in order of their bytes, those that start together in order of capture."""
        return stable_order(self.start.astype(np.uint64))

    @cached_property
    def overlapping(self) -> Ints:
        """Return the segments that may have bytes in common with another: that lie in one heap with it."""
        start, end = self.start[self.by_start], self.end[self.by_start]
        apart = np.ones(len(start) + 1, bool)  # from what is before
        apart[1:-1] = start[1:] >= np.maximum.accumulate(end)[:-1]
        return np.sort(self.by_start[~(apart[:-1] & apart[1:])])

    @cached_property
    def cover(self) -> Cover:
        """Return the cover of the overlapping segments."""
        return Cover.of(self.start[self.overlapping], self.end[self.overlapping])

    @cached_property
    def new_bytes(self) -> Ints:
        """Return how many bytes of each segment no earlier segment held."""
        new_bytes = self.payload_bytes.copy()
        new_bytes[self.overlapping] = self.cover.new_bytes()
        return new_bytes

    @cached_property
    def numbered_by_seq(self) -> Numbered:
        """Number segments with new bytes by place in the stream; a hole counts for as many as full segments fill it."""
        new = self.new_bytes > 0
        order = self.by_start[new[self.by_start]]
        start, end = self.start[order], self.end[order]
        full_segment = np.zeros(len(self.flows), np.int64)
        if len(new):
            full_segment = np.maximum.reduceat(np.where(new, self.payload_bytes, 0), self.first)
        steps = np.ones(len(order), np.int64)
        hole = start[1:] - np.maximum.accumulate(end)[:-1]
        after = np.flatnonzero(hole > 0)
        steps[after + 1] += -(-hole[after] // full_segment[self.flow[order[after + 1]]])
        in_order = np.cumsum(steps)
        number = np.empty(len(new), np.int64)
        number[order] = in_order
        return Numbered(self._kept(new), number[new], in_order)

    @cached_property
    def numbered_by_ip_id(self) -> Numbered:
        """Return all segments by their IP id; of those that have the same, the first to arrive."""
        number = unwrap(self.column("ip_id"), self.first)
        if len(number):
            low, high = (each.reduceat(number, self.first) for each in (np.minimum, np.maximum))
            spans = high - low + 1
            number += (np.cumsum(spans) - spans - low)[self.flow]
        order = stable_order(number.astype(np.uint64))
        in_order = number[order]
        first = beginnings(in_order)
        new = np.zeros(len(number), bool)
        new[order[first]] = True
        return Numbered(self._kept(new), number[new], in_order[first])

    def _kept(self, which: npt.NDArray[np.bool_]) -> Ints:
        """Where each flow begins among the chosen segments."""
        return np.concatenate(([0], np.cumsum(which)))[self.first]

    def locate(self, flow: Ints, row: Ints, seq: npt.NDArray[np.uint32]) -> Ints:
        """Return the positions of sequence numbers of flows seen at places `row` of the frame, in an ack, say.

        Unwrapped from the flow's nearest segment before, and kept within the flow's part of the line; -1 where the flow
        has sent nothing before that row.
        """
        rows = len(self.frame)
        nearest = np.searchsorted(self.flow * rows + self.row, flow * rows + row, side="right") - 1
        segment = np.maximum(nearest, 0)
        known = (nearest >= 0) & (self.flow[segment] == flow)
        ahead = (seq - self.seq[segment]).view(np.int32)
        start, lowest, highest = self.line
        return np.where(known, np.clip(start[segment] + ahead, lowest[flow], highest[flow]), -1)


@dataclass(frozen=True)
class Cover:
    """Segments cut into pieces wherever any of them begins or ends: equal bytes are equal pieces.

    Segment `segment[i]` holds piece `piece[i]`; pairs are in order of segment. Piece p is `length_bytes[p]` long.
    """

    segment: Ints
    piece: Ints
    length_bytes: Ints
    segments: int

    @classmethod
    def of(cls, start: Ints, end: Ints) -> Cover:
        segments = len(start)
        edges, place = np.unique(np.concatenate((start, end)), return_inverse=True)
        first, count = place[:segments], place[segments:] - place[:segments]
        segment = np.repeat(np.arange(segments), count)
        nth = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
        return cls(segment, first[segment] + nth, np.diff(edges), segments)

    def first_holder(self, segments: npt.NDArray[np.bool_] | None = None) -> Ints:
        """Return the first segment, of the chosen or of all, that holds each piece; `self.segments` where none does."""
        chosen = slice(None) if segments is None else segments[self.segment]
        holder = np.full(len(self.length_bytes), self.segments)
        holder[self.piece[chosen][::-1]] = self.segment[chosen][::-1]  # written last to first: the first stays
        return holder

    def new_bytes(self) -> Ints:
        """Return how many bytes of each segment no earlier segment held."""
        new = self.first_holder()[self.piece] == self.segment
        lengths = self.length_bytes[self.piece[new]]
        return np.bincount(self.segment[new], weights=lengths, minlength=self.segments).astype(np.int64)


def unwrap(seq: npt.NDArray[np.unsignedinteger], first: Ints) -> Ints:
    """Return serial numbers without their wrap-around, 0 at each place of `first`, where a flow begins (RFC 1982).

    Exact while neighbours of a flow are less than half the number space apart: 2 GiB for TCP.
    """
    steps = np.zeros(len(seq), np.int64)
    steps[1:] = np.diff(seq).view(f"i{seq.dtype.itemsize}")
    travelled = np.cumsum(steps)
    lengths = np.diff(np.append(first, len(seq)))
    return travelled - np.repeat(travelled[first], lengths)


def time_bins(frame: pd.DataFrame, bin_s: float, start_ns: int | None) -> Ints:
    """The number of the `bin_s` long bin of each packet, from `start_ns` on (by default the first packet's time).

    Raises ValueError unless `bin_s` is at least a nanosecond.
    """
    bin_ns = round(bin_s * 1e9)
    if bin_ns < 1:
        raise ValueError(f"a bin of {bin_s} s is too short: give a length of at least 1e-9 s")
    time_ns = frame["time_ns"].to_numpy()
    if start_ns is None:
        start_ns = int(time_ns.min()) if len(time_ns) else 0
    return (time_ns - start_ns) // bin_ns
