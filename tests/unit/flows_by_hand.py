"""Schedules whose flows are written down, and how a plan of them loads the fabric."""

from __future__ import annotations

from hypothesis import settings

from emulator.topology import LeafSpine
from experiments.theory.loads import choose_spines, congestion_ratio, link_bytes
from traffic.plan import TrafficPlan
from traffic.schedule import Flow, Schedule

quick = settings(max_examples=60, deadline=None, derandomize=True)


def schedule_of(flows: list[Flow], ranks: int) -> Schedule:
    return Schedule("by hand", "by hand", ranks, 1, sum(flow.size_bytes for flow in flows), flows)


def permutation(fabric: LeafSpine, channels: int, size_bytes: int, shift: int | None = None) -> Schedule:
    """Every host to the same place in the next leaf (or `shift` hosts further), `size_bytes` a channel."""
    shift = fabric.hosts_per_leaf if shift is None else shift
    flows = [
        Flow(host * channels + channel, host, (host + shift) % fabric.hosts, size_bytes, channel=channel)
        for host in range(fabric.hosts)
        for channel in range(channels)
    ]
    return schedule_of(flows, fabric.hosts)


def all_to_all(fabric: LeafSpine, size_bytes: int) -> Schedule:
    pairs = [(src, dst) for src in range(fabric.hosts) for dst in range(fabric.hosts) if src != dst]
    return schedule_of([Flow(id, *pair, size_bytes) for id, pair in enumerate(pairs)], fabric.hosts)


def ratio(plan: TrafficPlan, fabric: LeafSpine, seed: int = 0) -> float:
    loads = link_bytes(plan, fabric, choose_spines(plan, fabric, seed))
    return congestion_ratio(loads, plan.schedule, fabric, plan.hosts)
