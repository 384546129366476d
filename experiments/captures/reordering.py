"""How far packets arrived out of order.

The first functions take one stream as the numbers its packets were sent under, in order of arrival, each number once;
those on frames number the packets of every flow and do the same.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.captures.ordering import Ints
from experiments.captures.streams import Numbered, Streams

DISPLACEMENT_THRESHOLD = 1000  # packets; beyond any order that Linux's TCP waits for at tcp_max_reordering=1000


def reordered(numbers: Ints) -> npt.NDArray[np.bool_]:
    """Which arrivals are Type-P-Reordered: their number is below NextExp, one above the highest so far (RFC 4737, 3.3).

    The ratio of RFC 4737, 4.1 is the mean of it.
    """
    highest_before = np.concatenate((numbers[:1], np.maximum.accumulate(numbers)[:-1]))
    return numbers < highest_before


def extents(numbers: Ints) -> Ints:
    """Return the reordering extent of each arrival (RFC 4737, 4.2.1), in packets; 0 for one in order.

    For a reordered arrival i it is i - j, j being the earliest arrival with a higher number.
    """
    late = np.flatnonzero(reordered(numbers))
    extent = np.zeros(len(numbers), np.int64)
    extent[late] = late - np.searchsorted(np.maximum.accumulate(numbers), numbers[late], side="right")
    return extent


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


def reordering(packets: pd.DataFrame | Streams, numbering: str = "seq") -> pd.DataFrame:
    """Measure the reordering of each flow in a capture at its receiver, by RFC 4737.

    Columns: the flow, `packets`, `reordered_packets`, `reordered_ratio`, `extent_mean_packets` (over the reordered) and
    `extent_max_packets`. See `number_packets` for `numbering`.
    """
    streams = Streams.of(packets)
    sent = number_packets(streams, numbering)
    extent = extents(sent.number)
    count = np.diff(np.append(sent.first, len(extent)))
    late, extent_sum, extent_max = (
        function.reduceat(values, sent.first) if len(extent) else extent
        for function, values in ((np.add, (extent > 0).astype(np.int64)), (np.add, extent), (np.maximum, extent))
    )
    return streams.flows.assign(
        packets=count,
        reordered_packets=late,
        reordered_ratio=late / count,
        extent_mean_packets=extent_sum / np.maximum(late, 1),
        extent_max_packets=extent_max,
    )


def reorder_density(
    packets: pd.DataFrame | Streams, numbering: str = "seq", threshold: int = DISPLACEMENT_THRESHOLD
) -> pd.DataFrame:
    """Return the reorder density (RFC 5236) over all flows of a capture at their receiver.

    The share of packets by displacement, of those that count as received: columns `displacement_packets` (late ones
    positive), `packets`, `density`. See `number_packets` for `numbering`. Raises ValueError if `threshold` is negative.
    """
    if threshold < 0:
        raise ValueError(f"a displacement threshold of {threshold} packets makes no sense: give 0 or more")
    sent = number_packets(packets, numbering)
    moved = sent.in_order - sent.number
    bounds = np.append(sent.first, len(moved))
    beyond = np.unique(np.searchsorted(sent.first, np.flatnonzero(np.abs(moved) > threshold), side="right") - 1)
    straight = np.ones(len(moved), bool)
    parts = []
    for low, high in zip(bounds[beyond], bounds[beyond + 1], strict=True):
        straight[low:high] = False
        parts.append(displacements(sent.number[low:high], threshold))
    counts = pd.Series(np.concatenate((moved[straight], *parts))).value_counts().sort_index()
    values, received = counts.index.to_numpy(np.int64), counts.to_numpy(np.int64)
    return pd.DataFrame(
        {"displacement_packets": values, "packets": received, "density": received / max(received.sum(), 1)}
    )


def number_packets(packets: pd.DataFrame | Streams, numbering: str = "seq") -> Numbered:
    """Number the data packets of each flow in the order they were sent; of duplicates the first to arrive stays.

    `seq`: by place in the byte stream, a hole counting for as many packets as full segments fill it. A retransmission
    that fills a hole is then reordered too. `ip_id`: by the IP id, which Linux raises by one for each packet of a
    connection, retransmissions included: this shows what the network reordered, and nothing else. Raises ValueError
    for any other `numbering`.
    """
    if numbering == "seq":
        return Streams.of(packets).numbered_by_seq
    if numbering == "ip_id":
        return Streams.of(packets).numbered_by_ip_id
    raise ValueError(f"packets cannot be numbered by {numbering!r}: use 'seq' or 'ip_id'")
