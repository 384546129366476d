"""How fast data got through."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.captures.ordering import beginnings
from experiments.captures.streams import Streams, time_bins


def goodput(packets: pd.DataFrame | Streams, bin_s: float, start_ns: int | None = None) -> pd.DataFrame:
    """Return the goodput of each flow over time, from a capture at its receiver.

    Goodput is what reaches the destination less whatever was retransmitted (RFC 2647, 3.17): every byte of the stream
    counts once, when it first arrives. Columns: the flow, `time_s` (of the bin's start, from `start_ns` or the first
    packet of the frame), `new_bytes`, `goodput_bps`; bins in which a flow received nothing new are left out. Raises
    ValueError if `bin_s` is not positive.
    """
    streams = Streams.of(packets)
    bins = time_bins(streams.frame, bin_s, start_ns)[streams.row]
    stretch = beginnings(streams.flow, bins)  # one a flow and bin, unless the clock was set back
    new_bytes = np.add.reduceat(streams.new_bytes, stretch) if len(stretch) else streams.new_bytes
    arrivals = pd.DataFrame({"flow": streams.flow[stretch], "bin": bins[stretch], "new_bytes": new_bytes})
    table = arrivals[arrivals["new_bytes"] > 0].groupby(["flow", "bin"])["new_bytes"].sum().reset_index()
    table["goodput_bps"] = table["new_bytes"] * 8 / bin_s
    table.insert(0, "time_s", table.pop("bin") * bin_s)
    flow = table.pop("flow")
    return pd.concat([streams.flows.iloc[flow].reset_index(drop=True), table], axis=1)
