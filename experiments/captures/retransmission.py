"""What was sent twice, and whether it had to be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.captures.matching import match_packets
from experiments.captures.ordering import Ints
from experiments.captures.streams import REVERSE_FLOW, Cover, Streams, find_flows


def retransmissions(sender: pd.DataFrame | Streams, receiver: pd.DataFrame | Streams | None = None) -> pd.DataFrame:
    """Return the retransmitted segments in a capture at their sender, and which of them were spurious.

    A segment is retransmitted if it holds at least some bytes sent before (RFC 4898, tcpEStatsPerfSegsRetrans). It was
    spurious if what it repeats had arrived, or was yet to arrive, in an earlier copy. Two signs tell: the receiver
    reported the duplicate (DSACK, RFC 2883, used as in RFC 3708), in the acks that the same capture holds; or, with the
    capture of the `receiver`, the earlier copy is seen there.

    One row a retransmitted segment: `row` in the frame, `time_ns`, the flow, `seq`, `payload_bytes`,
    `retransmitted_bytes`, `spurious_by_dsack`, `spurious_by_arrival` (False without `receiver`), `spurious`. Of n
    copies of a segment of which d were reported, the last d count as spurious by DSACK, at most n - 1.

    Give frames of one point of capture each: in two points joined, every packet would appear to be sent twice. A
    capture on Linux sees what has left the queueing discipline; of a segment dropped there it sees the retransmission
    only, which then counts as the first copy. The kernel's own count (TCP_INFO) has those too.
    """
    streams = Streams.of(sender)
    retransmitted_bytes = streams.payload_bytes - streams.new_bytes
    again = np.flatnonzero(retransmitted_bytes > 0)
    again = again[np.argsort(streams.row[again])]
    row = streams.row[again]
    by_arrival = np.zeros(len(again), bool)
    if receiver is not None and len(again):
        receiver = receiver.frame if isinstance(receiver, Streams) else receiver
        arrived = match_packets(streams.frame, receiver).partner[streams.row[streams.overlapping]] >= 0
        answers = _earlier_copy_arrived(streams.cover, arrived)
        by_arrival = answers[np.searchsorted(streams.overlapping, again)]
    by_dsack = _reported(streams, again)
    table = pd.DataFrame(
        {
            "row": row,
            "time_ns": streams.frame["time_ns"].to_numpy()[row],
            **{name: column.to_numpy()[streams.flow[again]] for name, column in streams.flows.items()},
            "seq": streams.seq[again],
            "payload_bytes": streams.payload_bytes[again],
            "retransmitted_bytes": retransmitted_bytes[again],
            "spurious_by_dsack": by_dsack,
            "spurious_by_arrival": by_arrival,
        }
    )
    return table.assign(spurious=by_dsack | by_arrival)


def _earlier_copy_arrived(cover: Cover, arrived: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """For each segment: everything in it that was sent before had arrived, or would, in an earlier copy."""
    sent_before = cover.first_holder()[cover.piece] < cover.segment
    arrives_before = cover.first_holder(arrived)[cover.piece] < cover.segment
    needed = np.bincount(cover.segment[sent_before & ~arrives_before], minlength=cover.segments)
    return needed == 0


def _reported(streams: Streams, again: Ints) -> npt.NDArray[np.bool_]:
    """Which of the retransmitted segments `again` the receiver's DSACKs account for."""
    row = np.flatnonzero(streams.frame["dsack"].to_numpy())
    flow = find_flows(streams.frame, row, streams.flows, REVERSE_FLOW)
    row, flow = row[flow >= 0], flow[flow >= 0]
    edges = (streams.frame[name].to_numpy()[row] for name in ("sack_start", "sack_end"))
    starts, ends = (np.sort(streams.locate(flow, row, edge)) for edge in edges)
    first_byte = streams.start[again]
    reports = np.searchsorted(starts, first_byte, "right") - np.searchsorted(ends, first_byte, "right")
    later_copies = pd.Series(first_byte).groupby(first_byte).cumcount(ascending=False).to_numpy()
    return later_copies < reports
