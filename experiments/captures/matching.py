"""The same packet in two captures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.captures.streams import FLOW, Ints

IDENTITY = [*FLOW, "ip_id", "seq", "ack", "payload_bytes", "tcp_flags", "ts_val", "ts_ecr"]
"""What a packet keeps from hop to hop; not its DSCP, which the sending host's NIC may write."""


@dataclass(frozen=True)
class Match:
    """TCP packets of one capture found in another.

    `partner` has for each row of the first frame the row in the second, or -1. Rows of the second that are nobody's
    partner are `duplicates` of packets of the first, or `strays` that the first does not have at all.
    """

    partner: Ints
    duplicates: npt.NDArray[np.intp]
    strays: npt.NDArray[np.intp]


def match_packets(before: pd.DataFrame, after: pd.DataFrame) -> Match:
    """Find the packets of `before` in `after`.

    The k-th of several packets alike in all of `IDENTITY` is the k-th in the other capture. Hosts that number their
    packets (Linux: the IP id of a connection goes up by one a packet) never send two alike, even when retransmitting.
    """
    rows = [np.flatnonzero(frame["is_tcp"].to_numpy()) for frame in (before, after)]
    packets = [frame[IDENTITY].iloc[row] for frame, row in zip((before, after), rows, strict=True)]
    hashes = [pd.util.hash_pandas_object(each, index=False).to_numpy() for each in packets]
    alike, _ = pd.factorize(np.concatenate(hashes))
    kinds = alike[: len(rows[0])], alike[len(rows[0]) :]
    keys = [kind << 32 | pd.Series(kind).groupby(kind).cumcount().to_numpy() for kind in kinds]
    found = pd.Index(keys[1]).get_indexer(pd.Index(keys[0]))

    sent = np.flatnonzero(found >= 0)
    same = np.ones(len(sent), bool)  # different packets may, just, share a hash
    for name in IDENTITY:
        same &= packets[0][name].to_numpy()[sent] == packets[1][name].to_numpy()[found[sent]]
    sent = sent[same]
    partner = np.full(len(before), -1, np.int64)
    partner[rows[0][sent]] = rows[1][found[sent]]

    extra = np.ones(len(rows[1]), bool)
    extra[found[sent]] = False
    went_in = np.zeros(alike.max(initial=-1) + 1, bool)
    went_in[kinds[0]] = True
    return Match(partner, rows[1][extra & went_in[kinds[1]]], rows[1][extra & ~went_in[kinds[1]]])
