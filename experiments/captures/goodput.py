"""How fast data got through."""

from __future__ import annotations

import pandas as pd

from experiments.captures.streams import Cover, Streams, time_bins


def goodput(frame: pd.DataFrame, bin_s: float, start_ns: int | None = None) -> pd.DataFrame:
    """Goodput of each flow over time, from a capture at its receiver.

    Goodput is what reaches the destination less whatever was retransmitted (RFC 2647, 3.17): every byte of the stream
    counts once, when it first arrives. Columns: the flow, `time_s` (of the bin's start, from `start_ns` or the first
    packet of the frame), `new_bytes`, `goodput_bps`; bins in which a flow received nothing new are left out. Raises
    ValueError if `bin_s` is not positive.
    """
    bins = time_bins(frame, bin_s, start_ns)
    streams = Streams.of(frame)
    arrivals = pd.DataFrame(
        {"flow": streams.flow, "bin": bins[streams.row], "new_bytes": Cover.of(streams).new_bytes()}
    )
    table = arrivals[arrivals["new_bytes"] > 0].groupby(["flow", "bin"])["new_bytes"].sum().reset_index()
    table["goodput_bps"] = table["new_bytes"] * 8 / bin_s
    table.insert(0, "time_s", table.pop("bin") * bin_s)
    flow = table.pop("flow")
    return pd.concat([streams.flows.iloc[flow].reset_index(drop=True), table], axis=1)
