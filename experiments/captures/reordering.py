"""How far packets arrived out of order.

The first functions take one stream as the numbers its packets were sent under, in order of arrival, each number once;
those on frames number the packets of every flow and do the same.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.captures.streams import FLOW, Cover, Ints, Streams, data_segments, number_flows, unwrap

DISPLACEMENT_THRESHOLD = 1000  # packets; beyond any order that Linux's TCP waits for at tcp_max_reordering=1000


def reordered(numbers: Ints) -> npt.NDArray[np.bool_]:
    """Which arrivals are Type-P-Reordered: their number is below NextExp, one above the highest so far (RFC 4737, 3.3).

    The ratio of RFC 4737, 4.1 is the mean of it.
    """
    highest_before = np.concatenate((numbers[:1], np.maximum.accumulate(numbers)[:-1]))
    return numbers < highest_before


def extents(numbers: Ints) -> Ints:
    """Reordering extent of each arrival (RFC 4737, 4.2.1), in packets; 0 for one in order.

    For a reordered arrival i it is i - j, j being the earliest arrival with a higher number.
    """
    earliest_higher = np.searchsorted(np.maximum.accumulate(numbers), numbers, side="right")
    return np.maximum(np.arange(len(numbers)) - earliest_higher, 0)


def displacements(numbers: Ints, threshold: int = DISPLACEMENT_THRESHOLD) -> Ints:
    """Displacement of each arrival that counts (RFC 5236): its receive index less its number, late ones positive.

    The receive index counts 1, 2, 3 ... but skips lost packets. A packet later or earlier than `threshold` packets is
    taken for lost. Where none is, the i-th arrival's receive index is just the i-th smallest number.
    """
    straight = np.sort(numbers) - numbers
    return straight if (np.abs(straight) <= threshold).all() else _displacements_step_by_step(numbers, threshold)


def _displacements_step_by_step(numbers: Ints, threshold: int) -> Ints:
    """The algorithm for RD of RFC 5236, which drops packets beyond the threshold as it meets them."""
    arrivals = iter(numbers.tolist())
    window = deque(islice(arrivals, threshold + 1))
    upcoming = set(window)
    early: set[int] = set()  # arrived before their receive index came up
    index = min(window)
    found = []
    while window:
        if index not in upcoming and index not in early:  # lost
            index = min((number for number in (*window, *early) if number >= index), default=index)
        number = window.popleft()
        upcoming.discard(number)
        displacement = index - number
        if abs(displacement) <= threshold:
            found.append(displacement)
            early.discard(index)
            if displacement < 0:
                early.add(number)
            index += 1
        if (following := next(arrivals, None)) is not None:
            window.append(following)
            upcoming.add(following)
    return np.array(found, np.int64)


def reordering(frame: pd.DataFrame, numbering: str = "seq") -> pd.DataFrame:
    """Reordering of each flow in a capture at its receiver, by RFC 4737.

    Columns: the flow, `packets`, `reordered_packets`, `reordered_ratio`, `extent_mean_packets` (over the reordered) and
    `extent_max_packets`. See `number_packets` for `numbering`.
    """
    sent = number_packets(frame, numbering)
    extent = extents(sent.number)
    packets = pd.DataFrame({"flow": sent.flow, "late": reordered(sent.number), "extent": extent})
    late = packets[packets["late"]].groupby("flow")["extent"].agg(["mean", "max"]).reindex(sent.flows.index)
    counts = packets.groupby("flow")["late"].agg(["size", "sum", "mean"])
    return sent.flows.assign(
        packets=counts["size"],
        reordered_packets=counts["sum"],
        reordered_ratio=counts["mean"],
        extent_mean_packets=late["mean"].fillna(0.0),
        extent_max_packets=late["max"].fillna(0).astype(np.int64),
    )


def reorder_density(
    frame: pd.DataFrame, numbering: str = "seq", threshold: int = DISPLACEMENT_THRESHOLD
) -> pd.DataFrame:
    """Reorder density (RFC 5236) over all flows of a capture at their receiver.

    The share of packets by displacement, of those that count as received: columns `displacement_packets` (late ones
    positive), `packets`, `density`. See `number_packets` for `numbering`. Raises ValueError if `threshold` is negative.
    """
    if threshold < 0:
        raise ValueError(f"a displacement threshold of {threshold} packets makes no sense: give 0 or more")
    sent = number_packets(frame, numbering)
    moved = np.sort(sent.number) - sent.number  # each flow has its own part of the line, so one sort serves all
    beyond = np.unique(sent.flow[np.abs(moved) > threshold])
    parts = [moved[~np.isin(sent.flow, beyond)]]
    parts += [displacements(sent.number[sent.flow == flow], threshold) for flow in beyond]
    values, packets = np.unique(np.concatenate(parts), return_counts=True)
    return pd.DataFrame(
        {"displacement_packets": values, "packets": packets, "density": packets / max(packets.sum(), 1)}
    )


class Numbered(NamedTuple):
    """Data packets flow by flow, each flow in order of arrival; `number` rises from flow to flow."""

    flows: pd.DataFrame
    flow: Ints
    number: Ints


def number_packets(frame: pd.DataFrame, numbering: str = "seq") -> Numbered:
    """Number the data packets of each flow in the order they were sent; of duplicates the first to arrive stays.

    `seq`: by place in the byte stream, a hole counting for as many packets as full segments fill it. A retransmission
    that fills a hole is then reordered too. `ip_id`: by the IP id, which Linux raises by one for each packet of a
    connection, retransmissions included: this shows what the network reordered, and nothing else. Raises ValueError
    for any other `numbering`.
    """
    if numbering == "seq":
        return _number_by_seq(frame)
    if numbering == "ip_id":
        return _number_by_ip_id(frame)
    raise ValueError(f"packets cannot be numbered by {numbering!r}: use 'seq' or 'ip_id'")


def _number_by_seq(frame: pd.DataFrame) -> Numbered:
    streams = Streams.of(frame)
    new = Cover.of(streams).new_bytes() > 0
    flow, start, end = (each[new] for each in (streams.flow, streams.start, streams.end))
    full_segment = np.ones(len(streams.flows), np.int64)
    np.maximum.at(full_segment, flow, end - start)
    order = np.argsort(start, kind="stable")
    hole = np.zeros(len(start), np.int64)
    hole[1:] = np.maximum(start[order][1:] - np.maximum.accumulate(end[order])[:-1], 0)
    missing = -(-hole // full_segment[flow[order]])
    number = np.empty(len(start), np.int64)
    number[order] = np.cumsum(1 + missing)
    arrival = np.argsort(flow, kind="stable")
    return Numbered(streams.flows, flow[arrival], number[arrival])


def _number_by_ip_id(frame: pd.DataFrame) -> Numbered:
    row = data_segments(frame)
    flow, flows = number_flows(frame[FLOW].iloc[row])
    number = unwrap(frame["ip_id"].to_numpy()[row], flow)
    first = ~pd.DataFrame({"flow": flow, "number": number}).duplicated().to_numpy()
    flow, number = flow[first], number[first]
    arrival = np.argsort(flow, kind="stable")
    flow, number = flow[arrival], number[arrival]
    low, high = (pd.Series(number).groupby(flow).agg(how).to_numpy(np.int64) for how in ("min", "max"))
    spans = high - low + 1
    return Numbered(flows, flow, number + (np.cumsum(spans) - spans - low)[flow])
