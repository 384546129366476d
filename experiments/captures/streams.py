"""The flows of a capture and where each segment lies in its flow's byte stream; what the analyses build on.

Frames are those of decode.read_capture, rows in the order of capture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

Ints = npt.NDArray[np.int64]

FLOW = ["src_ip", "src_port", "dst_ip", "dst_port"]
REVERSE_FLOW = ["dst_ip", "dst_port", "src_ip", "src_port"]


def number_flows(packets: pd.DataFrame, key: list[str] = FLOW) -> tuple[Ints, pd.DataFrame]:
    """The flow (4-tuple) of each packet as a number, counted in order of appearance, and the flows' columns."""
    columns = [packets[name].to_numpy().astype(np.int64) for name in key]
    source, _ = pd.factorize(columns[0] << 16 | columns[1])
    target, _ = pd.factorize(columns[2] << 16 | columns[3])
    flow, _ = pd.factorize(source << 32 | target)
    first = np.empty(flow.max(initial=-1) + 1, np.intp)
    first[flow[::-1]] = np.arange(len(flow))[::-1]  # written last to first: the first stays
    return flow, packets[key].iloc[first].set_axis(FLOW, axis=1).reset_index(drop=True)


def find_flows(packets: pd.DataFrame, flows: pd.DataFrame, key: list[str]) -> Ints:
    """The row in `flows` of each packet, its flow read from the columns `key`; -1 where it is not there."""
    number, seen = number_flows(packets, key)
    known = seen.merge(flows.assign(flow=np.arange(len(flows))), on=FLOW, how="left")["flow"]
    return known.fillna(-1).to_numpy(np.int64)[number] if len(packets) else np.empty(0, np.int64)


def data_segments(frame: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Places in `frame` of the TCP segments that carry payload."""
    return np.flatnonzero(frame["is_tcp"].to_numpy() & (frame["payload_bytes"].to_numpy() > 0))


@dataclass(frozen=True)
class Streams:
    """The data segments of a capture as intervals of bytes, all flows laid out one after the other on one line.

    A segment of flow `flow[i]` (a row of `flows`) stands at place `row[i]` of the frame and holds the bytes from
    `start[i]` to before `end[i]`. Positions in different flows never meet, so that one sort or search serves all flows
    at once. Sequence numbers are unwrapped by serial arithmetic (RFC 1982) from each segment to the next of its flow.
    """

    flows: pd.DataFrame
    lowest: Ints  # of each flow: where its part of the line begins
    highest: Ints
    flow: Ints
    row: npt.NDArray[np.intp]
    start: Ints
    end: Ints
    seq: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Streams:
        row = data_segments(frame)
        flow, flows = number_flows(frame[FLOW].iloc[row])
        seq = frame["seq"].to_numpy()[row]
        payload = frame["payload_bytes"].to_numpy()[row].astype(np.int64)
        start = unwrap(seq, flow)
        lowest = np.full(len(flows), np.iinfo(np.int64).max)
        highest = np.full(len(flows), np.iinfo(np.int64).min)
        np.minimum.at(lowest, flow, start)
        np.maximum.at(highest, flow, start + payload)
        spans = highest - lowest
        base = np.cumsum(spans) - spans - lowest
        start = start + base[flow]
        return cls(flows, lowest + base, highest + base, flow, row, start, start + payload, seq)

    @cached_property
    def by_flow(self) -> npt.NDArray[np.intp]:
        """The segments flow by flow, each flow in order of capture."""
        return np.argsort(self.flow, kind="stable")

    def locate(self, flow: Ints, row: Ints, seq: npt.NDArray[np.uint32]) -> Ints:
        """Positions of sequence numbers of flows seen at places `row` of the frame, in an ack, say.

        Unwrapped from the flow's nearest segment before, and kept within the flow's part of the line; -1 where the flow
        has sent nothing before that row.
        """
        rows = int(max(self.row[-1:].tolist() + row[-1:].tolist(), default=0)) + 1
        moments = (self.flow * rows + self.row)[self.by_flow]
        nearest = np.searchsorted(moments, flow * rows + row, side="right") - 1
        segment = self.by_flow[np.maximum(nearest, 0)]
        known = (nearest >= 0) & (self.flow[segment] == flow)
        ahead = (seq - self.seq[segment]).view(np.int32)
        position = np.clip(self.start[segment] + ahead, self.lowest[flow], self.highest[flow])
        return np.where(known, position, -1)


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
    def of(cls, streams: Streams) -> Cover:
        segments = len(streams.row)
        edges, place = np.unique(np.concatenate((streams.start, streams.end)), return_inverse=True)
        first, count = place[:segments], place[segments:] - place[:segments]
        segment = np.repeat(np.arange(segments), count)
        nth = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
        return cls(segment, first[segment] + nth, np.diff(edges), segments)

    def first_holder(self, segments: npt.NDArray[np.bool_] | None = None) -> Ints:
        """The first segment, of the chosen or of all, that holds each piece; `self.segments` where none does."""
        chosen = slice(None) if segments is None else segments[self.segment]
        holder = np.full(len(self.length_bytes), self.segments)
        holder[self.piece[chosen][::-1]] = self.segment[chosen][::-1]  # written last to first: the first stays
        return holder

    def new_bytes(self) -> Ints:
        """How many bytes of each segment no earlier segment held."""
        new = self.first_holder()[self.piece] == self.segment
        lengths = self.length_bytes[self.piece[new]]
        return np.bincount(self.segment[new], weights=lengths, minlength=self.segments).astype(np.int64)


def unwrap(seq: npt.NDArray[np.unsignedinteger], flow: Ints) -> Ints:
    """Serial numbers without their wrap-around, 0 for the first of each flow (RFC 1982).

    Exact while neighbours of a flow are less than half the number space apart: 2 GiB for TCP.
    """
    order = np.argsort(flow, kind="stable")
    ordered, owner = seq[order], flow[order]
    signed = np.dtype(f"i{seq.dtype.itemsize}")
    steps = np.zeros(len(seq), np.int64)
    steps[1:] = np.diff(ordered).view(signed)
    first = np.flatnonzero(np.concatenate(([True], owner[1:] != owner[:-1]))) if len(seq) else np.empty(0, np.intp)
    travelled = np.cumsum(steps)
    lengths = np.diff(np.append(first, len(seq)))
    out = np.empty(len(seq), np.int64)
    out[order] = travelled - np.repeat(travelled[first], lengths)
    return out


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
