"""Whether every sender with bytes to send was held by the network, not by something of the emulator's own.

On any network where senders take what they can get, a connection that has bytes waits for a link: its sender's, one of
the fabric's, or its receiver's. Where none on its way is full, and no queue holds anything, what holds it is a timer, a
window or a pace.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from emulator.ports import Port
from emulator.topology import ETHERNET_HEADER_BYTES, LeafSpine
from experiments.judge.timeline import Timeline
from experiments.theory.loads import NO_SPINE, Ints
from traffic.plan import TrafficPlan

WINDOW_S = 0.2
"""Links are full or not over stretches of this length."""

FULL = 0.9
"""Part of its rate from which a link counts as full over a stretch: in one this short, a few frames come and go."""

MOST_WAITING = 0.5
"""Part of a stretch from which on something waits on the way: where several links take turns, none need be full."""

_INSTANT_S = 0.05  # about as often as queues are looked at

_HOPS = 4
_FRAMES_OF_GRACE = 4  # on every hop: a flow's first frames and its last ones meet empty links


class Held(NamedTuple):
    """The host whose flows were held by nothing on their way for longest, and for how many seconds."""

    host: int
    seconds: float


def longest_unheld(
    plan: TrafficPlan,
    ports: Sequence[Port],
    fabric: LeafSpine,
    spines: Ints,
    queues: pd.DataFrame,
    started_s: Sequence[float],
    finished_s: Sequence[float],
    timeline: Timeline | None = None,
    timed_out: Collection[int] = (),
) -> Held:
    """Return the sender that was idle without cause for longest.

    `spines` is as `choose_spines` gives it, `queues` the samples of `Sampler`; `timeline` says what faults did. Flows
    are judged over all windows that lie within their time but for what their first and last frames need, and flows
    whose path lost packets are not, nor those over the connections `timed_out`: TCP's own rules hold those.
    """
    if not len(queues):
        return Held(0, 0.0)
    edges = np.arange(min(started_s), max(finished_s), WINDOW_S)
    if len(edges) < 2:
        return Held(0, 0.0)
    full, waiting, dropped = _links(timeline or Timeline(ports), len(ports), queues, edges)
    frame_s = (fabric.mtu_bytes + ETHERNET_HEADER_BYTES) * fabric.burst_frames * 8
    grace_s = _HOPS * _FRAMES_OF_GRACE * frame_s / fabric.slowest_bps
    paths = _paths(plan, ports, fabric, spines)
    excused = {piece.flow for piece in plan.pieces if piece.connection in timed_out}
    unheld: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(len(edges) - 1, dtype=bool))
    for flow in plan.schedule.flows:
        first = np.searchsorted(edges, started_s[flow.id] + grace_s)
        last = np.searchsorted(edges, finished_s[flow.id] - grace_s, side="right") - 1
        path = paths[flow.id]
        if first < last and path and flow.id not in excused and not dropped[path].any():
            busy = waiting[path, first:last].any(axis=0).mean(axis=1) >= MOST_WAITING
            unheld[plan.hosts[flow.src]][first:last] |= ~full[path, first:last].any(axis=0) & ~busy
    seconds = {host: float(windows.sum() * WINDOW_S) for host, windows in unheld.items()}
    worst = max(seconds, key=lambda host: (seconds[host], -host), default=0)
    return Held(worst, seconds.get(worst, 0.0))


def _links(
    timeline: Timeline, ports: int, queues: pd.DataFrame, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every port: whether it was full in each window, had a queue at each instant of it, and lost packets."""
    full = np.zeros((ports, len(edges) - 1), dtype=bool)
    instants = edges[:-1, None] + np.arange(0, WINDOW_S, _INSTANT_S)
    waiting = np.zeros((ports, *instants.shape), dtype=bool)
    dropped = timeline.on_lossy_links
    for number, samples in queues.groupby("port"):
        port = int(number)
        sent = np.interp(edges, samples.time_s, samples.sent_bytes)
        could, _ = timeline.could_send_bytes(port, edges[:-1], edges[1:])
        full[port] = np.diff(sent) >= FULL * could
        last = np.maximum(np.searchsorted(samples.time_s, instants, side="right") - 1, 0)
        waiting[port] = samples.backlog_bytes.to_numpy()[last] > 0
        dropped[port] |= samples.drops_packets.iloc[-1] > samples.drops_packets.iloc[0]
    return full, waiting, dropped


def _paths(plan: TrafficPlan, ports: Sequence[Port], fabric: LeafSpine, spines: Ints) -> list[list[int]]:
    """Of every flow, the places of all ports that some of it crosses."""
    host_up = {port.host: place for place, port in enumerate(ports) if port.at_host}
    host_down = {port.host: place for place, port in enumerate(ports) if port.host is not None and not port.at_host}
    uplinks = {(port.leaf, port.spine): place for place, port in enumerate(ports) if port.spine is not None and port.up}
    downlinks = {
        (port.leaf, port.spine): place for place, port in enumerate(ports) if port.spine is not None and not port.up
    }
    crossed: list[set[int]] = [set() for _ in plan.schedule.flows]
    for piece in plan.pieces:
        connection = plan.connections[piece.connection]
        src, dst = fabric.leaf_of(connection.src_host), fabric.leaf_of(connection.dst_host)
        spine = int(spines[piece.connection])
        via = fabric.live_spines(src, dst) if spine == NO_SPINE else [spine]
        crossed[piece.flow] |= {host_up[connection.src_host], host_down[connection.dst_host]}
        if src != dst:
            crossed[piece.flow] |= {uplinks[src, each] for each in via} | {downlinks[dst, each] for each in via}
    return [sorted(places) for places in crossed]
