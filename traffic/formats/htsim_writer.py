"""Schedules written as htsim's connection matrices, so that another simulator can be asked about the same traffic."""

from __future__ import annotations

from collections import defaultdict

from traffic.formats.format import FormatError
from traffic.schedule import Schedule

_PICOSECONDS = 10**12


def write_matrix(schedule: Schedule) -> str:
    """Return a schedule as a connection matrix; read again, it is the same flows.

    Raises FormatError for what a matrix cannot say: computations, a flow that waits and has a start time besides, and
    one that more than two sets of flows wait for, as a connection fires two triggers at most.
    """
    if schedule.computes:
        raise FormatError("a connection matrix has no computations: write a table or GOAL instead")
    trigger_of: dict[tuple[int, ...], int] = {}
    fires: dict[int, list[int]] = defaultdict(list)
    for flow in schedule.flows:
        if flow.waits_for and flow.start_s:
            raise FormatError(f"flow {flow.id} waits and has a start time, which a connection matrix cannot say")
        if flow.waits_for and flow.waits_for not in trigger_of:
            trigger_of[flow.waits_for] = len(trigger_of) + 1
            for awaited in flow.waits_for:
                fires[awaited].append(trigger_of[flow.waits_for])
    for id, fired in fires.items():
        if len(fired) > 2:
            raise FormatError(
                f"{len(fired)} sets of flows wait for flow {id}, and a connection fires 2 triggers at most"
            )
    lines = [f"Nodes {schedule.ranks}", f"Connections {len(schedule.flows)}"]
    lines += [f"Triggers {len(trigger_of)}"] if trigger_of else []
    for flow in schedule.flows:
        trigger = trigger_of.get(flow.waits_for)
        start = f"trigger {trigger}" if trigger else f"start {round(flow.start_s * _PICOSECONDS)}"
        words = [f"{flow.src}->{flow.dst} id {flow.id + 1} {start} size {flow.size_bytes}"]
        words += [f"{key} {fired}" for key, fired in zip(_KEYS, fires[flow.id], strict=False)]
        lines.append(" ".join(words))
    for waits, trigger in trigger_of.items():
        kind = "oneshot" if len(waits) == 1 else f"barrier count {len(waits)}"
        lines.append(f"trigger id {trigger} {kind}")
    return "\n".join(lines) + "\n"


_KEYS = ("send_done_trigger", "recv_done_trigger")
