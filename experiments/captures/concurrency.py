"""How much happened at once: flows that start together and senders that meet at a receiver."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.captures.ordering import beginnings
from experiments.captures.streams import Streams, time_bins


def flow_starts(packets: pd.DataFrame | Streams) -> pd.DataFrame:
    """Return when each flow sent its first data, and how long after the first flow of all.

    The spread of these is what "flows start almost together" is about, the first of four observations on collectives in
    arXiv 2407.00550. Columns: the flow, `start_ns`, `skew_s`; in order of start. Give it the flows that are meant to
    start together: those of one step.
    """
    streams = Streams.of(packets)
    start_ns = streams.column("time_ns")
    if len(start_ns):
        start_ns = np.minimum.reduceat(start_ns, streams.first)
    table = streams.flows.assign(
        start_ns=start_ns, skew_s=(start_ns - start_ns.min(initial=np.iinfo(np.int64).max)) / 1e9
    )
    return table.sort_values("start_ns", kind="stable", ignore_index=True)


def incast_degree(packets: pd.DataFrame | Streams, window_s: float, start_ns: int | None = None) -> pd.DataFrame:
    """Return how many hosts send data to each host in each window of time.

    The incast degree is the number of servers that send to one receiver at the same time (Chen et al., "Understanding
    TCP Incast Throughput Collapse in Datacenter Networks", WREN 2009); "the same time" is here within `window_s`.
    Columns `time_s` (of the window's start, from `start_ns` or the first packet of the frame), `dst_ip`, `sources`;
    windows in which a host receives no data are left out. Raises ValueError if `window_s` is not positive.
    """
    streams = Streams.of(packets)
    window = time_bins(streams.frame, window_s, start_ns)[streams.row]
    stretch = beginnings(streams.flow, window)
    hosts = streams.flows[["dst_ip", "src_ip"]].astype(np.int64).iloc[streams.flow[stretch]].reset_index(drop=True)
    senders = hosts.assign(window=window[stretch]).drop_duplicates()
    table = senders.groupby(["window", "dst_ip"]).size().rename("sources").reset_index()
    table.insert(0, "time_s", table.pop("window") * window_s)
    return table.astype({"dst_ip": np.uint32})
