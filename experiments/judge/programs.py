"""When a program kept the fabric loaded, by which it is judged and compared."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.meters.meters import Samples
from emulator.ports import Port

LOADED = 0.1
"""A port that sends at this part of its rate or more is loaded: what start-up chatter stays below."""


def loaded_span_s(samples: Samples, ports: Sequence[Port]) -> tuple[float, float] | None:
    """Return when the first port became loaded and when the last ceased to be; None where none ever was."""
    queues = samples.queues
    grouped = queues.groupby("port")
    passed_s, sent = grouped.time_s.diff(), grouped.sent_bytes.diff()
    rate_bps = queues.port.map(lambda number: ports[int(number)].shaping.rate_bps)
    loaded = sent * 8 >= LOADED * rate_bps * passed_s
    if not loaded.any():
        return None
    return float((queues.time_s - passed_s)[loaded].min()), float(queues.time_s[loaded].max())
