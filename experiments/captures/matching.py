"""The same packet in two captures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.captures.streams import FLOW, Ints

IDENTITY = [*FLOW, "ip_id", "seq", "ack", "payload_bytes", "tcp_flags", "ts_val", "ts_ecr"]
"""What a packet keeps from hop to hop; not its DSCP, which the sending host's NIC may write."""


def match_packets(before: pd.DataFrame, after: pd.DataFrame) -> Ints:
    """For each packet of `before`, its place in `after`, or -1: TCP packets only.

    The k-th of several packets alike in all of `IDENTITY` is the k-th in the other capture. Hosts that number their
    packets (Linux: the IP id of a connection goes up by one a packet) never send two alike, even when retransmitting.
    """
    rows = [np.flatnonzero(frame["is_tcp"].to_numpy()) for frame in (before, after)]
    packets = [frame[IDENTITY].iloc[row] for frame, row in zip((before, after), rows, strict=True)]
    hashes = [pd.util.hash_pandas_object(each, index=False).to_numpy() for each in packets]
    alike, _ = pd.factorize(np.concatenate(hashes))
    split = len(rows[0])
    keys = [part << 32 | pd.Series(part).groupby(part).cumcount().to_numpy() for part in (alike[:split], alike[split:])]
    partner = pd.Index(keys[1]).get_indexer(pd.Index(keys[0]))

    matched = np.flatnonzero(partner >= 0)
    same = np.ones(len(matched), bool)  # two packets may share a hash
    for name in IDENTITY:
        same &= packets[0][name].to_numpy()[matched] == packets[1][name].to_numpy()[partner[matched]]
    places = np.full(len(before), -1, np.int64)
    places[rows[0][matched[same]]] = rows[1][partner[matched[same]]]
    return places
