"""A run that never took place: what a healthy 2 x 2 x 2 fabric would have measured, by arithmetic alone.

Every host sends to the host in the same place of the other leaf. Every port is offered a quarter more than its rate, so
its queue grows and then drains, and it sends whole frames at exactly its rate. Tests plant one fault in it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emulator.meters.meters import COUNTERS, Samples
from emulator.ports import Port, shaping_for
from emulator.topology import IP_TCP_HEADER_BYTES, LeafSpine
from experiments.judge.evidence import Measured, ReplayEvidence
from experiments.theory.bound import bound_s
from traffic.outcome import ReplayResult
from traffic.plan import Connection, TrafficPlan, plan_traffic
from traffic.schedule import Flow, Schedule
from traffic.schemes import SCHEMES, scheme_of
from traffic.tcpinfo import ConnectionResult

FABRIC = LeafSpine(leaves=2, spines=2, hosts_per_leaf=2)
EVERY_SCHEME = (*(scheme.name for scheme in SCHEMES if not scheme.weighted), "subflow-4")
"""All that a fabric of equal links can have; `test_asymmetry` has the others."""

START_S = 1000.0
PERIOD_S = 0.05
CORES = 2
OFFERED = 1.25
"""What arrives at a port, in its rate."""

_FRAME_BYTES = FABRIC.mtu_bytes + 14
_SEGMENT_BYTES = FABRIC.mtu_bytes - IP_TCP_HEADER_BYTES
_ACK_BYTES = 66


def healthy_run(scheme: str = "ethereal", size_bytes: int = 5_000_000, channels: int = 3) -> ReplayEvidence:
    """Invariants hold, every one; with `size_bytes` a host it takes 1 % longer than the fullest port needs."""
    flows = [
        Flow(host * channels + channel, host, (host + 2) % FABRIC.hosts, size_bytes // channels, channel=channel)
        for host in range(FABRIC.hosts)
        for channel in range(channels)
    ]
    schedule = Schedule("permutation", "direct", FABRIC.hosts, channels, size_bytes, flows)
    hosts = range(FABRIC.hosts)
    plan = plan_traffic(schedule, FABRIC, hosts, scheme_of(scheme))
    ports = ports_of(FABRIC)
    packets, wire_bytes = _crossings(plan, ports)
    cct_s = 1.01 * max(wire_bytes) * 8 / FABRIC.host_rate_bps
    before, after = _counters(packets, wire_bytes)
    measured = Measured(
        "synthetic", _replay(plan, cct_s), before, after,
        Samples(_queues(ports, wire_bytes, cct_s), _cpu(sample_times(cct_s))),
        {port.name: port.shaping for port in ports},
    )  # fmt: skip
    bound = bound_s(schedule, FABRIC, hosts)
    return ReplayEvidence.of(measured, plan=plan, ports=ports, bound_s=bound, topology=FABRIC, seed=1)


def planted(run: ReplayEvidence, **changes: Any) -> ReplayEvidence:
    """`run` with other fields of what was measured."""
    return replace(run, measured=replace(run.measured, **changes))


def place(run: ReplayEvidence, name: str) -> int:
    """The number of the port called `name`."""
    return [port.name for port in run.ports].index(name)


def ports_of(fabric: LeafSpine) -> list[Port]:
    """Both ends of every link, host links first, as a built fabric lists them."""
    host = shaping_for(fabric.host_rate_bps, fabric)
    uplink = shaping_for(fabric.fabric_rate_bps, fabric)
    ports = []
    for number in range(fabric.hosts):
        leaf = fabric.leaf_of(number)
        name, leaf_name = fabric.host_name(number), fabric.leaf_name(leaf)
        near, far = f"{name}-eth0", f"{leaf_name}-eth{fabric.leaf_port_to_host(number)}"
        ports.append(Port(near, name, far, 100 + number, 2, host, leaf, None, number, up=True))
        ports.append(Port(far, leaf_name, near, 1, 10 + len(ports), host, leaf, None, number, up=False))
    for leaf, spine in fabric.links():
        leaf_name, spine_name = fabric.leaf_name(leaf), fabric.spine_name(spine)
        near = f"{leaf_name}-eth{fabric.leaf_port_to_spine(spine)}"
        far = f"{spine_name}-eth{fabric.spine_port_to_leaf(leaf)}"
        ports.append(Port(near, leaf_name, far, 1, 10 + len(ports), uplink, leaf, spine, None, up=True))
        ports.append(Port(far, spine_name, near, 1, 10 + len(ports), uplink, leaf, spine, None, up=False))
    return ports


def sample_times(cct_s: float) -> NDArray[np.float64]:
    """One sample a period, from just before the first send to just after the last byte."""
    return np.arange(START_S - 0.01, START_S + cct_s + 2 * PERIOD_S, PERIOD_S)


def sent_at_rate(time_s: NDArray[np.float64], port: Port, load_bytes: float, factor: float = 1.0) -> pd.DataFrame:
    """Queue samples of a port that sends `factor` times its rate for as long as anything waits."""
    passed = np.maximum(0.0, time_s - START_S) * port.shaping.rate_bps / 8
    arrived = np.minimum(load_bytes, OFFERED * passed) // _FRAME_BYTES * _FRAME_BYTES
    sent = np.minimum(arrived, factor * passed // _FRAME_BYTES * _FRAME_BYTES)
    return pd.DataFrame({"time_s": time_s, "sent_bytes": sent, "backlog_bytes": arrived - sent, "drops_packets": 0})


def _crossings(plan: TrafficPlan, ports: list[Port]) -> tuple[list[int], list[int]]:
    """Packets and bytes that every port sends: full segments one way, an acknowledgement for every second back."""
    carried: Counter[int] = Counter()
    for piece in plan.pieces:
        carried[piece.connection] += piece.size_bytes
    packets, wire_bytes = [0] * len(ports), [0] * len(ports)
    for connection in plan.connections:
        segments = -(-carried[connection.id] // _SEGMENT_BYTES)
        acks = segments // 2
        back = replace(connection, src_host=connection.dst_host, dst_host=connection.src_host)
        for way, number, size in ((connection, segments, carried[connection.id] + segments * _ACK_BYTES),
                                  (back, acks, acks * _ACK_BYTES)):  # fmt: skip
            for crossed in _crossed(way, ports):
                packets[crossed] += number
                wire_bytes[crossed] += size
    return packets, wire_bytes


def _crossed(connection: Connection, ports: list[Port]) -> list[int]:
    """The ports that send this subflow's packets on their way: host, leaf, spine, leaf."""
    spine = connection.path_tag - 1 if connection.path_tag else connection.id % FABRIC.spines
    source, destination = FABRIC.leaf_of(connection.src_host), FABRIC.leaf_of(connection.dst_host)
    wanted = [(source, None, connection.src_host, True), (source, spine, None, True),
              (destination, spine, None, False), (destination, None, connection.dst_host, False)]  # fmt: skip
    numbers = {(port.leaf, port.spine, port.host, port.up): number for number, port in enumerate(ports)}
    return [numbers[ends] for ends in wanted]


def _counters(packets: list[int], wire_bytes: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    before = pd.DataFrame(np.random.default_rng(1).integers(0, 1000, (len(packets), 6)), columns=COUNTERS)
    after = before.copy()
    after["tx_packets"] += packets
    after["tx_bytes"] += wire_bytes
    peers = [number ^ 1 for number in range(len(packets))]  # a link's two ends are listed together
    after["rx_packets"] += [packets[peer] for peer in peers]
    after["rx_bytes"] += [wire_bytes[peer] for peer in peers]
    return before, after


def _queues(ports: list[Port], wire_bytes: list[int], cct_s: float) -> pd.DataFrame:
    frames = [
        sent_at_rate(sample_times(cct_s), port, wire_bytes[number]).assign(port=number)
        for number, port in enumerate(ports)
    ]
    return pd.concat(frames).sort_values(["time_s", "port"], ignore_index=True)


def _cpu(time_s: NDArray[np.float64]) -> pd.DataFrame:
    """A machine just over half busy, a switch that uses 40 % of a core, a sampler on time."""
    passed = time_s - time_s[0]
    return pd.DataFrame(
        {
            "time_s": time_s,
            "late_s": np.full(len(time_s), 0.0005),
            "idle_s": 5000 + 0.45 * CORES * passed,
            "busy_s": 3000 + 0.55 * CORES * passed,
            "process_s": 70 + 0.4 * passed,
        }
    )


def _replay(plan: TrafficPlan, cct_s: float) -> ReplayResult:
    flows = len(plan.schedule.flows)
    carried: Counter[int] = Counter()
    for piece in plan.pieces:
        carried[piece.connection] += piece.size_bytes
    return ReplayResult(
        started_s=[START_S] * flows,
        finished_s=[START_S + cct_s * (0.9 + 0.1 * (flow + 1) / flows) for flow in range(flows)],
        connections=[
            ConnectionResult(
                retransmitted_segments=connection.id % 2,
                timeouts=0,
                retransmitted_bytes=connection.id % 2 * _SEGMENT_BYTES,
                reordering_seen=0,
                out_of_order_segments=3,
                received_bytes=carried[connection.id],
                min_rtt_s=0.001,
            )
            for connection in plan.connections
        ],
    )


def with_samples(run: ReplayEvidence, **frames: pd.DataFrame) -> ReplayEvidence:
    return planted(run, samples=replace(run.measured.samples, **frames))
