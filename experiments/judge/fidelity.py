"""Can a run's numbers be trusted? Invariants that hold on any real network, checked on what was measured.

Each check returns the reasons it fails, one line each, with the amount; no reasons means it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from emulator.meters.capture import Which, capture_points
from emulator.meters.meters import Samples
from emulator.ports import Port, Shaping
from emulator.topology import LeafSpine
from experiments.captures.summary import CaptureSummary
from experiments.judge.floor import head_start_s, too_short
from experiments.judge.senders import longest_unheld
from experiments.runs.messages import Measured
from experiments.theory.loads import choose_spines
from traffic.plan import TrafficPlan

RATE_TOLERANCE = 0.03
"""How far from its configured rate a busy port may be, and how far above a port may ever be."""

SHAPING_TOLERANCE = 0.001
"""How far a rate read back may be from what was asked."""

BURST_GRAIN_S = 1e-6
"""A bucket is set as the time it takes to fill, in whole microseconds: it may differ by what one of them fills."""

MIN_IDLE = 0.02
"""Least part of all cores idle in every second."""

MAX_WAITING_BUCKETS = 2
"""Most that may wait at a port, on average over any second, for a userspace switch to take it, in depths of the port's
token bucket. A bucket makes up for packets that come late by its depth, and the kernel counts up to two bytes for every
byte that waits. What the switch process uses of a core tells nothing: it looks for packets without a pause long before
it is late (16 hosts at 20 and 30 Mb/s: never asleep, 10 kB waiting, 1.03 of the bound; at 35: 34 kB and 1.1; at 40:
46 kB and 1.25)."""

MIN_REPLAY_WAITS = 0.08
"""Least part of every second that a replay waits for the network. One thread drives all sockets: if it never waits,
some of them run dry, and the number is its own, not the fabric's (16 hosts, single frames: where it waited 0.2 of the
time, CCTs were within 1.03 of the bound; at 0.07, 1.13 to 1.29; at 0.05, 1.26 to 1.33, with a quarter of the machine
idle)."""

MAX_SAMPLER_LATE_S = 0.1
"""Latest a sampler's wake-up may come; what the sampler suffers, shaping suffers too."""

MAX_UNHELD, LEAST_UNHELD_S = 0.1, 0.4
"""Most of a run's time, and of any run, that a sender may have bytes while no link on their way is full."""

CAPTURE_TOLERANCE = 0.001
"""How far the bytes of a capture may be from the interface's counters."""

WINDOW_S = 1.0
"""The machine is judged over every second; a run shorter than that, as a whole."""

PORT_WINDOW_S = 0.2
"""A port is judged over every stretch of this length, and a machine over none shorter. A token bucket is exact but for
its depth, so RATE_TOLERANCE of this, 6 ms, is how late a sampler may look at the clock."""


class Counted(Protocol):
    """What the fabric's own instruments saw."""

    @property
    def before(self) -> pd.DataFrame: ...
    @property
    def after(self) -> pd.DataFrame: ...
    @property
    def samples(self) -> Samples: ...
    @property
    def shaping(self) -> Mapping[str, Shaping | None]: ...


class Observed(Protocol):
    """What is known of any run, whoever sent its packets. `start_s` to `end_s` is when the machine is judged."""

    @property
    def measured(self) -> Counted: ...
    @property
    def ports(self) -> Sequence[Port]: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...


@dataclass(frozen=True)
class Run:
    """A replay, whose bytes and bound are known as well. `asked` is what was to be captured, and read."""

    measured: Measured
    plan: TrafficPlan
    ports: Sequence[Port]
    bound_s: float
    topology: LeafSpine
    seed: int
    captured: CaptureSummary | None = None
    asked: Which = "none"

    @property
    def start_s(self) -> float:
        return min(self.measured.replay.started_s)

    @property
    def end_s(self) -> float:
        return max(self.measured.replay.finished_s)


def shaping_is_as_asked(run: Observed) -> list[str]:
    """1. The shaping read back from the kernel is what was asked, on every port."""
    faults = ((port, _shaping_fault(port, run.measured.shaping[port.name])) for port in run.ports)
    return [f"{port.name}: {fault}" for port, fault in faults if fault]


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


def packets_are_conserved(run: Observed) -> list[str]:
    """2. On every hop, packets in = packets out + drops that a counter admits to: across links and through switches."""
    delta = run.measured.after - run.measured.before
    drops = drops_packets(run.measured, len(run.ports))
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
        dropped = int(drops[numbers].sum())
        # A queue's drops may be counted by the interface as well; either way each is admitted to.
        if entered not in (left, left + dropped):
            reasons.append(f"{node}: {_astray(entered, left + dropped, 'in the switch')}")
    return reasons


def ports_work_at_their_rate(run: Observed) -> list[str]:
    """3. A port whose queue never emptied over a window sent at its configured rate, and no port ever exceeded it.

    A queue that is first in, first out, and drops at its tail alone, has not been empty between two samples if less
    left it in between than was waiting at the first. A token bucket sends what its rate allows, give or take its depth.
    Ports that are not shaped as asked fail invariant 1, and this one has nothing to say of them.
    """
    reasons = []
    for number, samples in run.measured.samples.queues.groupby("port"):
        port = run.ports[int(number)]
        if _shaping_fault(port, run.measured.shaping[port.name]):
            continue
        time_s, sent, waiting = (samples[name].to_numpy(float) for name in ("time_s", "sent_bytes", "backlog_bytes"))
        starts, ends = _windows(time_s, PORT_WINDOW_S)
        could, did = (time_s[ends] - time_s[starts]) * port.shaping.rate_bps / 8, sent[ends] - sent[starts]
        slack = port.shaping.burst_bytes
        # How often, up to each sample, the queue may have emptied since the one before.
        emptied = np.concatenate([[0], np.cumsum(np.diff(sent) >= waiting[:-1])])
        never_empty = emptied[ends] == emptied[starts]
        above = did > could * (1 + RATE_TOLERANCE) + slack
        below = never_empty & (did < could * (1 - RATE_TOLERANCE) - slack)
        for wrong, sign, verb in ((above, -1, "exceeded"), (below, 1, "stayed below")):
            if wrong.any():
                worst = np.argmin(np.where(wrong, sign * did / could, np.inf))
                first, last = time_s[[starts[worst], ends[worst]]] - run.start_s
                reasons.append(
                    f"{port.name} {verb} its rate: {did[worst] / could[worst]:.1%} of it "
                    f"between {first:.2f} s and {last:.2f} s"
                )
    return reasons


def machine_kept_up(run: Observed) -> list[str]:
    """4. Idle CPU in every second, no pegged switch process, the sampler's own wake-ups on time."""
    reasons = []
    cpu = samples_within(run)
    idle = least_idle(cpu)
    if idle < MIN_IDLE:
        reasons.append(f"the machine was {1 - idle:.0%} busy for a second: at most {1 - MIN_IDLE:.0%} is trusted")
    reasons += packets_wait_for_the_switch(run)
    lost = (run.measured.after - run.measured.before).rx_drops.to_numpy()
    if lost.any():
        reasons.append(
            f"{lost.sum()} packets were dropped on arrival, most at {run.ports[int(lost.argmax())].name}: more waited "
            "for a core than net.core.netdev_max_backlog allows"
        )
    late = float(cpu.late_s.max())
    if late > MAX_SAMPLER_LATE_S:
        reasons.append(f"a sample came {late * 1e3:.0f} ms late: at most {MAX_SAMPLER_LATE_S * 1e3:.0f} ms is trusted")
    return reasons


def machine_and_replay_kept_up(run: Run) -> list[str]:
    """4, of a replay: what sends the traffic is part of the machine."""
    reasons = machine_kept_up(run)
    if run.measured.replay.waited:
        time_s, waited_s = np.array(run.measured.replay.waited).T
        starts, ends = _seconds(time_s)
        least = ((waited_s[ends] - waited_s[starts]) / (time_s[ends] - time_s[starts])).min(initial=1.0)
        if least < MIN_REPLAY_WAITS:
            reasons.append(
                f"the replay waited for the network for {least:.1%} of a second: less than {MIN_REPLAY_WAITS:.0%}, and "
                "it is the replay that is measured"
            )
    return reasons


def packets_wait_for_the_switch(run: Observed) -> list[str]:
    """Part of 4: a switch in user space takes packets as they come."""
    worst, reason = 1.0, ""
    for number, samples in _within(run, run.measured.samples.waiting).groupby("port"):
        port = run.ports[int(number)]
        time_s, waiting = (samples[name].to_numpy(float) for name in ("time_s", "waiting_bytes"))
        average = _averages(time_s, waiting)
        allowed = MAX_WAITING_BUCKETS * port.shaping.burst_bytes
        if len(average) and average.max() > worst * allowed:
            worst = average.max() / allowed
            reason = (
                f"the switch process is too slow: {average.max() / 1e3:.0f} kB waited for it at {port.name} for a "
                f"second, at most {allowed / 1e3:.0f} kB is trusted"
            )
    return [reason] if reason else []


def bytes_are_as_asked(run: Run) -> list[str]:
    """5. The bytes received are what the schedule asked for, real data is right, and no run beats its bound."""
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
    sooner_s = head_start_s(run.plan.schedule, run.topology, run.plan.hosts, run.bound_s)
    if run.measured.replay.cct_s < run.bound_s * (1 - RATE_TOLERANCE) - sooner_s:
        reasons.append(f"CCT {run.measured.replay.cct_s:.4f} s is below the bound of {run.bound_s:.4f} s")
    return [*reasons, *(run.measured.replay.data_problems or ())]


def run_is_long_enough(run: Run) -> list[str]:
    """7. A run too short for its windows and its buckets says nothing."""
    reason = too_short(run.plan.schedule, run.topology, run.plan.hosts, run.bound_s)
    return [reason] if reason else []


def senders_are_held_by_the_network(run: Run) -> list[str]:
    """8. A sender with bytes keeps its link busy, unless a receiver, the fabric or its schedule is the limit.

    Where packets are lost on the way, invariant 2 fails, and TCP's own rules hold senders back.
    """
    if packets_are_conserved(run):
        return []
    replay, cct_s = run.measured.replay, run.measured.replay.cct_s
    spines = choose_spines(run.plan, run.topology, run.seed)
    held = longest_unheld(
        run.plan, run.ports, run.topology, spines, run.measured.samples.queues, replay.started_s, replay.finished_s
    )
    if held.seconds <= max(MAX_UNHELD * cct_s, LEAST_UNHELD_S):
        return []
    return [
        f"{run.topology.host_name(held.host)} had bytes to send and no link on their way was full for "
        f"{held.seconds:.1f} s of {cct_s:.1f} s: at most {MAX_UNHELD:.0%} is trusted"
    ]


def captures_are_complete(run: Run) -> list[str]:
    """6. What was to be captured was; no packet is missing, and their bytes are what the interface counted."""
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


NETWORK_INVARIANTS: dict[str, Callable[[Observed], list[str]]] = {
    "shaping": shaping_is_as_asked,
    "conservation": packets_are_conserved,
    "work conservation": ports_work_at_their_rate,
    "machine": machine_kept_up,
}
INVARIANTS: dict[str, Callable[[Run], list[str]]] = {
    **NETWORK_INVARIANTS,
    "machine": machine_and_replay_kept_up,
    "bytes": bytes_are_as_asked,
    "length": run_is_long_enough,
    "senders": senders_are_held_by_the_network,
    "captures": captures_are_complete,
}


def failures(run: Run) -> dict[str, list[str]]:
    """The invariants that fail, each with its reasons."""
    return {name: reasons for name, check in INVARIANTS.items() if (reasons := check(run))}


def network_failures(run: Observed) -> dict[str, list[str]]:
    """As `failures`, of a run whose bytes are not known."""
    return {name: reasons for name, check in NETWORK_INVARIANTS.items() if (reasons := check(run))}


def drops_packets(measured: Counted, ports: int) -> np.ndarray:
    """Packets each port's queue dropped during the run."""
    totals = measured.samples.queues.groupby("port").drops_packets
    return (totals.last() - totals.first()).reindex(range(ports), fill_value=0).to_numpy()


def least_idle(cpu: pd.DataFrame) -> float:
    """Least idle part of all cores over any second of `cpu` samples; of a run too short to judge, 1."""
    starts, ends = _seconds(cpu.time_s.to_numpy())
    if not len(starts):
        return 1.0
    totals = cpu[["idle_s", "busy_s"]].to_numpy()
    idle, busy = (totals[ends] - totals[starts]).T
    return float((idle / np.maximum(idle + busy, 1e-9)).min())


def _averages(time_s: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The average over every second of what was sampled, each value lasting until the next."""
    starts, ends = _seconds(time_s)
    total = np.concatenate([[0.0], np.cumsum(values[:-1] * np.diff(time_s))])
    averages: np.ndarray = (total[ends] - total[starts]) / (time_s[ends] - time_s[starts])
    return averages


def _seconds(time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last sample of every second. A run shorter than one is one window; one too short to judge has none."""
    if len(time_s) < 2 or time_s[-1] - time_s[0] < PORT_WINDOW_S:
        return np.array([], int), np.array([], int)
    starts, ends = _windows(time_s, WINDOW_S)
    return (starts, ends) if len(starts) else (np.array([0]), np.array([len(time_s) - 1]))


def _windows(time_s: np.ndarray, length_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Every sample that has one `length_s` or more after it, and the first that is."""
    ends = np.searchsorted(time_s, time_s + length_s)
    starts = np.flatnonzero(ends < len(time_s))
    return starts, ends[starts]


def samples_within(run: Observed) -> pd.DataFrame:
    """CPU samples from the first send to the last byte received."""
    cpu = run.measured.samples.cpu
    inside = _within(run, cpu)
    return inside if len(inside) > 1 else cpu


def _within(run: Observed, samples: pd.DataFrame) -> pd.DataFrame:
    return samples[(samples.time_s >= run.start_s - 0.1) & (samples.time_s <= run.end_s + 0.1)]


def _astray(entered: int, left: int, where: str) -> str:
    if left > entered:
        return f"{left - entered} packets more than the {entered} sent appeared {where}"
    return f"{(entered - left) / entered:.2%} ({entered - left}) of packets left no trace {where}"
