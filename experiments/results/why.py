"""Why a scheme took longer than its bound though it shared bytes ideally: what its runs counted, likeliest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

IDEAL_BELOW, SLOW_FROM = 1.02, 1.05
"""A congestion ratio that is ideal but for headers and rounding, and a CCT / bound that is not."""

_EXPECTED_FROM = 1.03  # a prediction over the bound that is a reason


def why(lines: pd.DataFrame) -> Iterator[str]:
    """Say in a sentence for each cause, of the schemes of one traffic, why time is lost where bytes are shared ideally.

    `lines` is what `overview.summary` makes; what cannot be trusted explains nothing.
    """
    causes: dict[str, list[Any]] = {}
    for row in lines.itertuples():
        if row.trusted and row.congestion_ratio <= IDEAL_BELOW and row.cct_over_bound >= SLOW_FROM:
            causes.setdefault(_cause(row), []).append(row)
    for cause, rows in causes.items():
        ratios = sorted({f"{row.cct_over_bound:.2f}" for row in rows}, key=float)
        took = " to ".join(dict.fromkeys([ratios[0], ratios[-1]]))
        schemes = ", ".join(row.scheme for row in rows)
        yield f"{schemes}: bytes are shared ideally, yet CCT is {took} x the bound: {cause}."


def _cause(row: Any) -> str:
    if row.faulty:
        return "a fault took capacity away meanwhile"
    if row.timeouts > 0:
        return "TCP waited for retransmission time-outs"
    if row.predicted_cct_s >= _EXPECTED_FROM * row.bound_s and not row.unexplained:
        return "theory expects it, as flows meet on a link at some times and leave it idle at others"
    if row.retransmitted_segments > 0:
        return "segments were sent again, which may have slowed senders down"
    if row.step_s > 0:
        return "ranks compute between what they send"
    return "no counter tells; the queues over time may"
