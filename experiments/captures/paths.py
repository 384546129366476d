"""Which paths the bytes took."""

from __future__ import annotations

import pandas as pd

from experiments.captures.streams import time_bins


def path_share(frame: pd.DataFrame, bin_s: float, by: str = "dscp", start_ns: int | None = None) -> pd.DataFrame:
    """Return bytes on each path, and each path's share of all, over time.

    A path is a value of the column `by`: `dscp` (the path tag: spine + 1, 0 for untagged) or `link`. Columns `time_s`
    (of the bin's start, from `start_ns` or the first packet), `by`, `wire_bytes`, `share` (the shares of a bin add up
    to 1). Bins and paths without bytes are left out. Wire bytes are what Linux interface counters count: whole frames
    without preamble, gap and checksum. Raises ValueError if `bin_s` is not positive.
    """
    packets = pd.DataFrame({"bin": time_bins(frame, bin_s, start_ns), by: frame[by], "wire_bytes": frame["wire_bytes"]})
    table = packets.groupby(["bin", by], observed=True)["wire_bytes"].sum().astype("int64").reset_index()
    table["share"] = table["wire_bytes"] / table.groupby("bin")["wire_bytes"].transform("sum")
    table.insert(0, "time_s", table.pop("bin") * bin_s)
    return table
