"""Can a run's numbers be trusted? Invariants that hold on any real network, checked on what was measured.

Each check returns the reasons it fails, one line each, with the amount; no reasons means it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emulator.ports import Port
from experiments.measurement import Measured
from traffic.schemes import TrafficPlan

RATE_TOLERANCE = 0.03
"""How far from its configured rate a busy port may be, and how far above a port may ever be."""

SHAPING_TOLERANCE = 0.001
"""A bucket read back may differ by the rounding to the kernel's ticks."""

MIN_IDLE = 0.02
"""Least part of all cores idle in every second."""

MAX_SWITCH_BUSY = 0.97
"""Most of one core that the userspace switch may use in any second; above it, packets wait for the switch."""

MAX_SAMPLER_LATE_S = 0.1
"""Latest a sampler's wake-up may come; what the sampler suffers, pacing and shaping suffer too."""

WINDOW_S = 1.0
_SHORTEST_WINDOW_S = 0.2


@dataclass(frozen=True)
class Run:
    """What the checks look at."""

    measured: Measured
    plan: TrafficPlan
    ports: Sequence[Port]
    bound_s: float

    @property
    def start_s(self) -> float:
        return min(self.measured.replay.started_s)

    @property
    def end_s(self) -> float:
        return max(self.measured.replay.finished_s)


def shaping_is_as_asked(run: Run) -> list[str]:
    """1. The shaping read back from the kernel is what was asked, on every port."""
    reasons = []
    for port in run.ports:
        found, asked = run.measured.shaping[port.name], port.shaping
        if found is None:
            reasons.append(f"{port.name}: no shaping is in force, {asked.rate_bps / 1e6:g} Mb/s was asked")
        elif abs(found.rate_bps / asked.rate_bps - 1) > SHAPING_TOLERANCE:
            reasons.append(
                f"{port.name}: shaped to {found.rate_bps / 1e6:g} Mb/s, {asked.rate_bps / 1e6:g} Mb/s was asked"
            )
        elif (
            abs(found.burst_bytes / asked.burst_bytes - 1) > SHAPING_TOLERANCE or found.queue_bytes != asked.queue_bytes
        ):
            reasons.append(
                f"{port.name}: burst {found.burst_bytes} and queue {found.queue_bytes} bytes, "
                f"{asked.burst_bytes} and {asked.queue_bytes} were asked"
            )
    return reasons


def packets_are_conserved(run: Run) -> list[str]:
    """2. On every hop, packets in = packets out + drops that a counter admits to: across links, and through switches."""
    delta = run.measured.after - run.measured.before
    drops = drops_packets(run.measured, len(run.ports))
    place = {port.name: number for number, port in enumerate(run.ports)}
    reasons = []
    for number, port in enumerate(run.ports):
        far = place[port.peer]
        sent = int(delta.tx_packets.iloc[number])
        lost = sent - int(delta.rx_packets.iloc[far]) - int(delta.rx_drops.iloc[far])
        if lost:
            reasons.append(f"{port.name} -> {port.peer}: {_share(lost, sent)} of packets left no trace on the link")
    nodes: dict[str, list[int]] = {}
    for number, port in enumerate(run.ports):
        if port.host is None or not port.up:
            nodes.setdefault(port.node, []).append(number)
    for node, numbers in nodes.items():
        entered = int(delta.rx_packets.iloc[numbers].sum())
        left = int(delta.tx_packets.iloc[numbers].sum() + delta.tx_drops.iloc[numbers].sum())
        dropped = int(drops[numbers].sum())
        lost = entered - left - dropped
        # A queue's drops may be counted by the interface as well; either way each is admitted to.
        if lost and lost != -dropped:
            reasons.append(f"{node}: {_share(lost, entered)} of packets left no trace in the switch")
    return reasons


def ports_work_at_their_rate(run: Run) -> list[str]:
    """3. A port whose queue cannot have been empty sent at its configured rate, and no port ever exceeded it.

    Between two samples a queue cannot have emptied if at the first it held more than the port sends in between.
    """
    reasons = []
    for number, samples in run.measured.samples.queues.groupby("port"):
        port = run.ports[int(number)]
        time_s, sent, waiting = (samples[name].to_numpy(float) for name in ("time_s", "sent_bytes", "backlog_bytes"))
        can_send = np.diff(time_s) * port.shaping.rate_bps / 8
        sent = np.diff(sent)
        slack = port.shaping.burst_bytes
        windows = np.maximum(1, np.ceil(_SHORTEST_WINDOW_S / np.maximum(np.diff(time_s), 1e-6))).astype(int)
        length = int(np.median(windows)) if len(windows) else 1
        for first in range(0, max(0, len(sent) - length + 1)):
            part = slice(first, first + length)
            could, did = can_send[part].sum(), sent[part].sum()
            if did > could * (1 + RATE_TOLERANCE) + slack:
                reasons.append(_at(run, port, time_s[first], time_s[first + length], did / could, "exceeded"))
                break
            busy = bool((waiting[first : first + length] > can_send[part] + slack).all())
            if busy and did < could * (1 - RATE_TOLERANCE) - slack:
                reasons.append(_at(run, port, time_s[first], time_s[first + length], did / could, "stayed below"))
                break
    return reasons


def machine_kept_up(run: Run) -> list[str]:
    """4. Idle CPU in every second, no pegged switch process, the sampler's own wake-ups on time."""
    reasons = []
    cpu = samples_within(run)
    idle, switch = idle_and_switch(cpu)
    if idle < MIN_IDLE:
        reasons.append(f"the machine was {1 - idle:.0%} busy for a second: at most {1 - MIN_IDLE:.0%} is trusted")
    if switch > MAX_SWITCH_BUSY:
        reasons.append(f"the switch process used {switch:.0%} of a core for a second: at most {MAX_SWITCH_BUSY:.0%} is trusted")
    late = float(cpu.late_s.max())
    if late > MAX_SAMPLER_LATE_S:
        reasons.append(f"a sample came {late * 1e3:.0f} ms late: at most {MAX_SAMPLER_LATE_S * 1e3:.0f} ms is trusted")
    return reasons


def bytes_are_as_asked(run: Run) -> list[str]:
    """5. The bytes received are the bytes the schedule asked for, and no run beats its bound."""
    reasons = []
    asked = [0] * len(run.plan.subflows)
    for piece in run.plan.pieces:
        asked[piece.subflow] += piece.size_bytes
    got = [result.received_bytes for result in run.measured.replay.subflows]
    wrong = [number for number, (a, b) in enumerate(zip(asked, got, strict=True)) if a != b]
    if wrong:
        first = wrong[0]
        reasons.append(
            f"{len(wrong)} connections received other than was asked, the first {got[first]} of {asked[first]} bytes"
        )
    if run.measured.replay.cct_s < run.bound_s * (1 - RATE_TOLERANCE):
        reasons.append(f"CCT {run.measured.replay.cct_s:.4f} s is below the bound of {run.bound_s:.4f} s")
    return reasons


INVARIANTS: dict[str, Callable[[Run], list[str]]] = {
    "shaping": shaping_is_as_asked,
    "conservation": packets_are_conserved,
    "work conservation": ports_work_at_their_rate,
    "machine": machine_kept_up,
    "bytes": bytes_are_as_asked,
}


def failures(run: Run) -> dict[str, list[str]]:
    """The invariants that fail, each with its reasons."""
    return {name: reasons for name, check in INVARIANTS.items() if (reasons := check(run))}


def drops_packets(measured: Measured, ports: int) -> np.ndarray:
    """Packets each port's queue dropped during the run."""
    totals = measured.samples.queues.groupby("port").drops_packets
    return (totals.last() - totals.first()).reindex(range(ports), fill_value=0).to_numpy()


def idle_and_switch(cpu: pd.DataFrame) -> tuple[float, float]:
    """Least idle part of all cores, and most of one core used by the switch, over any second of `cpu` samples.

    A run shorter than a second is one window.
    """
    time_s = cpu.time_s.to_numpy()
    if len(time_s) < 2 or time_s[-1] - time_s[0] < _SHORTEST_WINDOW_S:
        return 1.0, 0.0
    starts = np.flatnonzero(time_s <= time_s[-1] - WINDOW_S)
    starts = starts if len(starts) else np.array([0])
    ends = np.minimum(np.searchsorted(time_s, time_s[starts] + WINDOW_S), len(time_s) - 1)
    idle, busy, process = (np.diff(cpu[name].to_numpy()[[starts, ends]], axis=0)[0] for name in ("idle_s", "busy_s", "process_s"))
    return float((idle / np.maximum(idle + busy, 1e-9)).min()), float((process / (time_s[ends] - time_s[starts])).max())


def samples_within(run: Run) -> pd.DataFrame:
    """CPU samples from the first send to the last byte received."""
    cpu = run.measured.samples.cpu
    inside = cpu[(cpu.time_s >= run.start_s - 0.1) & (cpu.time_s <= run.end_s + 0.1)]
    return inside if len(inside) > 1 else cpu


def _share(lost: int, of: int) -> str:
    if lost < 0:
        return f"{-lost} more than the {of} sent"
    return f"{lost / max(of, 1):.2%} ({lost})"


def _at(run: Run, port: Port, start_s: float, end_s: float, ratio: float, verb: str) -> str:
    return (
        f"{port.name} {verb} its rate: {ratio:.1%} of it between "
        f"{start_s - run.start_s:.2f} s and {end_s - run.start_s:.2f} s"
    )
