"""What holds on any real network: ports work as they are shaped, packets do not vanish, captures miss none."""

from __future__ import annotations

from typing import Any

import numpy as np

from emulator.meters.capture import capture_points
from emulator.ports import Port, Shaping
from experiments.judge.evidence import Evidence, Measured
from experiments.judge.windows import PORT_WINDOW_S, windows

RATE_TOLERANCE = 0.03
"""How far from its configured rate a busy port may be, and how far above a port may ever be."""

SHAPING_TOLERANCE = 0.001
"""How far a rate read back may be from what was asked."""

BURST_GRAIN_S = 1e-6
"""A bucket is set as the time it takes to fill, in whole microseconds: it may differ by what one of them fills."""

MAX_FAULT_LATE_S = 0.1
"""How late a fault may come about or be over."""

CAPTURE_TOLERANCE = 0.001
"""How far the bytes of a capture may be from the interface's counters."""


def shaping_is_as_asked(run: Evidence[Any]) -> list[str]:
    """The shaping read back from the kernel is what was asked, on every port."""
    faults = ((port, _shaping_fault(port, run.measured.shaping[port.name])) for port in run.ports)
    return [f"{port.name}: {fault}" for port, fault in faults if fault]


def faults_are_as_asked(run: Evidence[Any]) -> list[str]:
    """Every fault began and ended when it was due, and the kernel then said of every port what was asked."""
    reasons = []
    for happened in run.measured.faults:
        fault, words = happened.fault, happened.fault.words(run.topology)
        if not happened.begun and not fault.again:
            reasons.append(f"{words}: did not come about, for the run ended before")
        origin_s = happened.due_s - fault.at_s
        for changes, at_s in ((happened.begun, fault.at_s), (happened.ended, fault.end_s)):
            late_s = max((change.confirmed_s for change in changes), default=0.0) - origin_s - at_s
            if late_s > MAX_FAULT_LATE_S:
                reasons.append(
                    f"{words}: {late_s * 1e3:.0f} ms late, at most {MAX_FAULT_LATE_S * 1e3:.0f} ms is trusted"
                )
        for changes, began in ((happened.begun, True), (happened.ended, False)):
            for change in changes:
                if change.port is None:
                    continue
                port = run.ports[change.port]
                asked_bps = fault.sends_bps(port.shaping.rate_bps) if began else port.shaping.rate_bps
                if change.rate_bps is not None and abs(change.rate_bps - asked_bps) > SHAPING_TOLERANCE * asked_bps:
                    found = f"{change.rate_bps / 1e6:g} Mb/s, {asked_bps / 1e6:g} Mb/s was asked"
                    reasons.append(f"{words}: {port.name} was shaped to {found}")
    return reasons


def _shaping_fault(port: Port, found: Shaping | None) -> str | None:
    asked = port.shaping
    if found is None:
        return f"no shaping is in force, {asked.rate_bps / 1e6:g} Mb/s was asked"
    if abs(found.rate_bps - asked.rate_bps) > SHAPING_TOLERANCE * asked.rate_bps:
        return f"shaped to {found.rate_bps / 1e6:g} Mb/s, {asked.rate_bps / 1e6:g} Mb/s was asked"
    grain_bytes = 1 + BURST_GRAIN_S * asked.rate_bps / 8
    if abs(found.burst_bytes - asked.burst_bytes) > grain_bytes or found.queue_bytes != asked.queue_bytes:
        return (
            f"burst {found.burst_bytes} and queue {found.queue_bytes} bytes, "
            f"{asked.burst_bytes} and {asked.queue_bytes} were asked"
        )
    return None


def packets_are_conserved(run: Evidence[Any]) -> list[str]:
    """On every hop, packets in = packets out + drops that a counter admits to: across links and through switches."""
    delta = run.measured.after - run.measured.before
    drops = drops_packets(run.measured, len(run.ports))
    destroyed = run.timeline.destroyed_packets
    place = {port.name: number for number, port in enumerate(run.ports)}
    reasons = []
    for number, port in enumerate(run.ports):
        far = place[port.peer]
        sent = int(delta.tx_packets.iloc[number])
        arrived = int(delta.rx_packets.iloc[far] + delta.rx_drops.iloc[far])
        # What the far end has no room for, Linux counts as dropped by both ends and sent by neither.
        if arrived not in (sent, sent + int(delta.tx_drops.iloc[number])):
            reasons.append(f"{port.name} -> {port.peer}: {_astray(sent, arrived, 'on the link')}")
    nodes: dict[str, list[int]] = {}
    for number, port in enumerate(run.ports):
        if not port.at_host:
            nodes.setdefault(port.node, []).append(number)
    for node, numbers in nodes.items():
        entered = int(delta.rx_packets.iloc[numbers].sum())
        left = int(delta.tx_packets.iloc[numbers].sum() + delta.tx_drops.iloc[numbers].sum())
        left += int(destroyed[numbers].sum())
        dropped = int(drops[numbers].sum())
        # A queue's drops may be counted by the interface as well; either way each is admitted to.
        if entered not in (left, left + dropped):
            reasons.append(f"{node}: {_astray(entered, left + dropped, 'in the switch')}")
    return reasons


def ports_work_at_their_rate(run: Evidence[Any]) -> list[str]:
    """A port whose queue never emptied over a window sent at its configured rate, and no port ever exceeded it.

    A queue that is first in, first out, and drops at its tail alone, has not been empty between two samples if less
    left it in between than was waiting at the first. A token bucket sends what its rate allows, give or take its depth.
    Ports that are not shaped as asked fail another invariant, and this one has nothing to say of them.
    """
    reasons = []
    for number, samples in run.measured.samples.queues.groupby("port"):
        port = run.ports[int(number)]
        if _shaping_fault(port, run.measured.shaping[port.name]):
            continue
        time_s, sent, waiting = (samples[name].to_numpy(float) for name in ("time_s", "sent_bytes", "backlog_bytes"))
        starts, ends = windows(time_s, PORT_WINDOW_S)
        least, most = run.timeline.could_send_bytes(int(number), time_s[starts], time_s[ends])
        did = sent[ends] - sent[starts]
        slack = port.shaping.burst_bytes
        # How often, up to each sample, the queue may have emptied since the one before.
        emptied = np.concatenate([[0], np.cumsum(np.diff(sent) >= waiting[:-1])])
        never_empty = emptied[ends] == emptied[starts]
        above = did > most * (1 + RATE_TOLERANCE) + slack
        below = never_empty & (did < least * (1 - RATE_TOLERANCE) - slack)
        for wrong, could, sign, verb in ((above, most, -1, "exceeded"), (below, least, 1, "stayed below")):
            if wrong.any():
                worst = np.argmin(np.where(wrong, sign * did / np.maximum(could, 1.0), np.inf))
                first, last = time_s[[starts[worst], ends[worst]]] - run.start_s
                reasons.append(
                    f"{port.name} {verb} its rate: {did[worst] / max(could[worst], 1.0):.1%} of it "
                    f"between {first:.2f} s and {last:.2f} s"
                )
    return reasons


def something_was_sent(run: Evidence[Any]) -> list[str]:
    """Where no host sends a byte, nothing is measured that could be trusted."""
    return [] if sent_bytes(run) else ["nothing was sent: no host put a byte on its link"]


def sent_bytes(run: Evidence[Any]) -> int:
    """Return what all hosts together put on their links, headers included."""
    sent = run.measured.after.tx_bytes - run.measured.before.tx_bytes
    return int(sent[[port.at_host for port in run.ports]].sum())


def captures_are_complete(run: Evidence[Any]) -> list[str]:
    """What was to be captured was; no packet is missing, and their bytes are what the interface counted."""
    points = [port.name for port in capture_points(run.ports, run.asked)]
    if points and (run.measured.captures is None or run.captured is None):
        never = "taken" if run.measured.captures is None else "read"
        return [f"{points[0]} and {len(points) - 1} other ports were to be captured, and no capture was {never}"]
    reasons = []
    if run.measured.captures is not None:
        for row in run.measured.captures.itertuples():
            if row.drops_packets:
                all_packets = row.packets + row.drops_packets
                reasons.append(f"{row.port}: {row.drops_packets} of {all_packets} packets were not captured")
    if run.captured is not None:
        delta = run.measured.after - run.measured.before
        counted = dict(zip((port.name for port in run.ports), delta.tx_bytes + delta.rx_bytes, strict=True))
        told = {*run.captured.wire_bytes, *(problem.partition(":")[0] for problem in run.captured.problems)}
        reasons += [f"{name}: was to be captured, and no capture was read" for name in points if name not in told]
        for name, seen in run.captured.wire_bytes.items():
            if not seen and counted[name]:
                reasons.append(f"{name}: its capture has no packets, the interface counted {counted[name]} bytes")
            elif abs(seen - counted[name]) > CAPTURE_TOLERANCE * counted[name]:
                reasons.append(f"{name}: {seen} bytes were captured, the interface counted {counted[name]}")
        reasons += run.captured.problems
    return reasons


def drops_packets(measured: Measured[Any], ports: int) -> np.ndarray:
    """Packets each port's queue dropped during the run."""
    totals = measured.samples.queues.groupby("port").drops_packets
    return (totals.last() - totals.first()).reindex(range(ports), fill_value=0).to_numpy()


def _astray(entered: int, left: int, where: str) -> str:
    if left > entered:
        return f"{left - entered} packets more than the {entered} sent appeared {where}"
    return f"{(entered - left) / entered:.2%} ({entered - left}) of packets left no trace {where}"
