"""What every link can carry while faults come and go, and how long a schedule then takes at least.

The bound is as simple as it can be and still hold: whatever the scheme, all bytes of a leaf cross its uplinks (or its
downlinks) together, and no more of them than these could carry by then. Faults only take from links, so the bound
without them (`experiments.theory.bound`) holds as well, and the larger of both is the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from controllers.hashing import live_links
from emulator.faults import Fault
from emulator.ports import shaping_for
from emulator.topology import LeafSpine
from experiments.theory.loads import Floats, leaf_bytes, link_capacities_bps
from traffic.schedule import Schedule


class Change(NamedTuple):
    """From `at_s` on, links carry `rates_bps`, numbered as `experiments.theory.loads.Routes` numbers them."""

    at_s: float
    rates_bps: Floats


def capacity_changes(fabric: LeafSpine, faults: Sequence[Fault]) -> list[Change]:
    """Return what links carry from every moment on at which that changes; nothing for no faults."""
    moments = sorted({time_s for fault in faults for time_s in (fault.at_s, fault.end_s) if time_s < np.inf})
    return [Change(moment, _rates_at(moment, fabric, faults)) for moment in moments]


def bound_under_s(
    schedule: Schedule,
    fabric: LeafSpine,
    hosts: Sequence[int],
    faults: Sequence[Fault],
    *,
    full_buckets: bool = False,
) -> float:
    """Return the least seconds in which the bytes of `schedule` can cross what `faults` leave of every leaf's links.

    It is infinite where that is never enough. With `full_buckets`, every link's token bucket is full at the beginning,
    which is what an emulation may be sooner by.
    """
    between = leaf_bytes(schedule, fabric, hosts)
    changes = [Change(0.0, link_capacities_bps(fabric)), *capacity_changes(fabric, faults)]
    live, shape = live_links(fabric), (fabric.leaves, fabric.spines)
    first_uplink, each_way = 2 * fabric.hosts, fabric.leaves * fabric.spines
    times_s = np.array([change.at_s for change in changes])
    gift_bits = 8 * shaping_for(fabric.slowest_bps, fabric).burst_bytes * live.sum(axis=1) * full_buckets
    longest_s = 0.0
    for first, wire_bytes in ((first_uplink, between.sum(axis=1)), (first_uplink + each_way, between.sum(axis=0))):
        rates = np.array([change.rates_bps[first : first + each_way].reshape(shape) for change in changes])
        for leaf, bits in enumerate(8 * wire_bytes - gift_bits):
            if bits > 0:
                longest_s = max(longest_s, _time_for(bits, times_s, (rates * live)[:, leaf].sum(axis=1)))
    return longest_s


def _time_for(bits: float, times_s: Floats, rates_bps: Floats) -> float:
    """When so many bits have been carried, at the rates that hold from `times_s` on."""
    lasts_s = np.diff(times_s, append=np.inf)
    for start_s, last_s, rate_bps in zip(times_s, lasts_s, rates_bps, strict=True):
        if rate_bps and bits <= rate_bps * last_s:
            return float(start_s + bits / rate_bps)
        bits -= rate_bps * last_s if rate_bps else 0.0
    return float("inf")


def _rates_at(moment_s: float, fabric: LeafSpine, faults: Sequence[Fault]) -> Floats:
    rates_bps = link_capacities_bps(fabric)
    first_uplink, each_way = 2 * fabric.hosts, fabric.leaves * fabric.spines
    for fault in faults:
        if not fault.at_s <= moment_s < fault.end_s:
            continue
        for leaf, spine in fault.links:
            uplink = first_uplink + leaf * fabric.spines + spine
            for way, link in (("up", uplink), ("down", uplink + each_way)):
                if fault.direction in ("both", way):
                    rates_bps[link] = min(rates_bps[link], fault.left_bps(fabric.spine_rate_bps(spine)))
    return rates_bps
