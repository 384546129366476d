"""How long packets waited at a hop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.captures.matching import match_packets
from experiments.captures.streams import FLOW


@dataclass(frozen=True)
class HopDelay:
    """One-way delays over a hop.

    `packets` has a row for each packet seen on both sides: `time_ns` on the near side, the flow, `wire_bytes`,
    `delay_ns`, `queueing_ns`. The rest of the packets: `lost_packets` were seen on the near side only,
    `duplicated_packets` came out more often than they went in, `stray_packets` came out without having gone in.
    `baseline_ns` is what a packet takes that does not wait.
    """

    packets: pd.DataFrame
    lost_packets: int
    duplicated_packets: int
    stray_packets: int
    baseline_ns: float


def queueing_delay(before: pd.DataFrame, after: pd.DataFrame, rate_bps: float | None = None) -> HopDelay:
    """Return the delay of each TCP packet from one point of capture to the next, and how much of it was queueing.

    One-way delay as in RFC 7679, on one clock; queueing is what exceeds the least delay seen, as in RFC 5481, 4.2
    (packet delay variation against the minimum). With `rate_bps`, the rate of the link crossed, each packet's
    serialisation, wire_bytes x 8 / rate_bps, is taken off before the least is looked for; without, packets should be of
    one size, for large ones take longer without waiting. Both frames hold one direction only: packets that go from
    `before` to `after`. Raises ValueError if `rate_bps` is not positive.
    """
    if rate_bps is not None and not rate_bps > 0:
        raise ValueError(f"a link cannot have a rate of {rate_bps} b/s: give a positive rate")
    match = match_packets(before, after)
    sent = np.flatnonzero(match.partner >= 0)
    packets = pd.DataFrame({name: before[name].to_numpy()[sent] for name in ("time_ns", *FLOW, "wire_bytes")})
    packets["delay_ns"] = after["time_ns"].to_numpy()[match.partner[sent]] - packets["time_ns"]
    unavoidable_ns = packets["wire_bytes"] * (8e9 / rate_bps) if rate_bps else 0.0
    beyond_ns = packets["delay_ns"] - unavoidable_ns
    baseline_ns = float(beyond_ns.min()) if len(packets) else float("nan")
    packets["queueing_ns"] = beyond_ns - baseline_ns

    return HopDelay(
        packets=packets,
        lost_packets=int(before["is_tcp"].sum()) - len(sent),
        duplicated_packets=len(match.duplicates),
        stray_packets=len(match.strays),
        baseline_ns=baseline_ns,
    )
