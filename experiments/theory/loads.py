"""Which links a plan's bytes cross, and how far the fullest is from ideal packet spraying.

The congestion ratio is how long the most loaded fabric link is at work, over the same under ideal spraying, which loads
paths in proportion of their rates; 1.00 is optimal, but where leaves have lost different links: spraying is by pairs of
leaves, and what knows of other pairs could do better. Where all links are of one rate, it is a ratio of bytes.
Bytes are of the wire throughout (`LeafSpine.wire_bytes`), so measured and modelled loads compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.hashing import hashed_spines, live_links
from emulator.topology import LeafSpine
from traffic.plan import LISTEN_PORT, UNTAGGED, TrafficPlan
from traffic.schedule import Schedule

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

NO_SPINE = -1


class LinkBytes(NamedTuple):
    """Wire bytes of every fabric link: `up[leaf, spine]` and `down[leaf, spine]`."""

    up: Floats
    down: Floats


class Routes(NamedTuple):
    """What each subflow crosses: of `links[i, j]`, the share `weights[i, j]` of the bytes of subflow i.

    Links are numbered: every host's sending side, every host's receiving side, uplinks, downlinks (both by leaf, then
    spine). The number after the last is no link at all and fills the rows of subflows that cross fewer.
    """

    links: Ints
    weights: Floats


def link_capacities_bps(fabric: LeafSpine) -> Floats:
    """The rate of every link as `Routes` numbers them; the last one, which is none, is infinitely fast."""
    hosts = np.full(2 * fabric.hosts, fabric.host_rate_bps, dtype=float)
    return np.concatenate([hosts, np.tile(spine_rates_bps(fabric), 2 * fabric.leaves), [np.inf]])


def spine_rates_bps(fabric: LeafSpine) -> Floats:
    """The rate of every spine's links, failed or not."""
    return np.array([fabric.spine_rate_bps(spine) for spine in range(fabric.spines)], dtype=float)


def live_rates_bps(fabric: LeafSpine) -> Floats:
    """The rate of every fabric link, at [leaf, spine]; 0 where it has failed."""
    return live_links(fabric) * spine_rates_bps(fabric)


def choose_spines(plan: TrafficPlan, fabric: LeafSpine, seed: int) -> Ints:
    """The spine of every subflow: its tag's, else the live one that the leaf's hash picks with `seed` as its basis.

    NO_SPINE for subflows that have none of their own, those within a leaf and those of a scheme that spreads, and where
    nobody can tell.
    """
    count = len(plan.connections)
    tags = np.fromiter((connection.path_tag for connection in plan.connections), dtype=np.intp, count=count)
    ports = np.fromiter((connection.src_port for connection in plan.connections), dtype=np.intp, count=count)
    src, dst = _ends(plan)
    src_leaf, dst_leaf = src // fabric.hosts_per_leaf, dst // fabric.hosts_per_leaf
    hashed = hashed_spines(fabric, src, dst, ports, np.full_like(ports, LISTEN_PORT), seed)
    spines = np.where(tags == UNTAGGED, hashed, tags - 1)
    spread = plan.scheme.spreads & (tags == UNTAGGED)
    spines[(src_leaf == dst_leaf) | spread | bool(plan.scheme.unpredicted)] = NO_SPINE
    return spines


def routes(plan: TrafficPlan, fabric: LeafSpine, spines: Ints) -> Routes:
    """The links of every subflow whose spine is given; of others, if the scheme spreads, its shares of all live ones.

    These are equal, or in proportion of the links' rates if the scheme is weighted.
    `spines` is as `choose_spines` returns it, or what was seen on a real fabric.
    """
    src, dst = _ends(plan)
    src_leaf, dst_leaf = src // fabric.hosts_per_leaf, dst // fabric.hosts_per_leaf
    first_uplink, first_downlink = 2 * fabric.hosts, 2 * fabric.hosts + fabric.leaves * fabric.spines
    no_link = first_downlink + fabric.leaves * fabric.spines
    if plan.scheme.spreads:
        live = live_links(fabric)
        usable = live[src_leaf] & live[dst_leaf] & (src_leaf != dst_leaf)[:, None]
        pinned = spines != NO_SPINE
        usable[pinned] = np.eye(fabric.spines, dtype=bool)[spines[pinned]]
        weighed = usable * (spine_rates_bps(fabric) if plan.scheme.weighted else 1.0)
        share = weighed / np.maximum(weighed.sum(axis=1, keepdims=True), 1.0)
        via = np.broadcast_to(np.arange(fabric.spines), usable.shape)
    else:
        usable = (spines != NO_SPINE)[:, None]
        share = usable.astype(float)
        via = spines[:, None]
    up = np.where(usable, first_uplink + src_leaf[:, None] * fabric.spines + via, no_link)
    down = np.where(usable, first_downlink + dst_leaf[:, None] * fabric.spines + via, no_link)
    wired = (src != dst)[:, None]  # ranks that share a host need no link
    ends = np.where(wired, np.column_stack([src, fabric.hosts + dst]), no_link)
    links = np.concatenate([ends, up, down], axis=1)
    weights = np.concatenate([np.broadcast_to(wired, ends.shape), share, share], axis=1, dtype=float)
    return Routes(links, weights)


def link_bytes(plan: TrafficPlan, fabric: LeafSpine, spines: Ints) -> LinkBytes:
    """Wire bytes of every fabric link once all of `plan` has been sent."""
    connections = np.fromiter((piece.connection for piece in plan.pieces), dtype=np.intp, count=len(plan.pieces))
    sizes = np.fromiter((piece.size_bytes for piece in plan.pieces), dtype=float, count=len(plan.pieces))
    carried = total(connections, sizes, len(plan.connections))
    return sum_over_links(routes(plan, fabric, spines), carried * fabric.wire_bytes(1), fabric)


def sum_over_links(crossed: Routes, wire_bytes: Floats, fabric: LeafSpine) -> LinkBytes:
    """Bytes of every fabric link, given those of every subflow."""
    first_uplink, each_way = 2 * fabric.hosts, fabric.leaves * fabric.spines
    loads = total(crossed.links, crossed.weights * wire_bytes[:, None], first_uplink + 2 * each_way + 1)
    loads = loads[first_uplink:-1]
    shape = fabric.leaves, fabric.spines
    return LinkBytes(loads[:each_way].reshape(shape), loads[each_way:].reshape(shape))


def total(links: Ints, amounts: Floats, count: int) -> Floats:
    """The sum of `amounts` for every link number below `count`."""
    return np.bincount(links.ravel(), amounts.ravel(), minlength=count).astype(float, copy=False)


def leaf_bytes(schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]) -> Floats:
    """`bytes[source leaf, destination leaf]` of the wire that `schedule` sends; none within a leaf."""
    leaf = np.asarray(hosts, dtype=np.intp) // fabric.hosts_per_leaf
    flows, count = schedule.flows, len(schedule.flows)
    src = leaf[np.fromiter((flow.src for flow in flows), dtype=np.intp, count=count)]
    dst = leaf[np.fromiter((flow.dst for flow in flows), dtype=np.intp, count=count)]
    sizes = np.fromiter((flow.size_bytes for flow in flows), dtype=float, count=count)
    between = total(src * fabric.leaves + dst, fabric.wire_bytes(1) * sizes, fabric.leaves**2)
    between = between.reshape(fabric.leaves, fabric.leaves)
    np.fill_diagonal(between, 0.0)
    return between


def ideal_link_bytes(between: Floats, fabric: LeafSpine) -> LinkBytes:
    """Loads under ideal spraying: `between[source leaf, destination leaf]` over live spines, in proportion of rates."""
    live, rates_bps = live_links(fabric), live_rates_bps(fabric)
    usable_bps = rates_bps @ live.T
    each_s = np.divide(between, usable_bps, out=np.zeros_like(between), where=usable_bps > 0)
    # sum over the other leaf of each[src, dst] where both links are up
    return LinkBytes(rates_bps * (each_s @ live), rates_bps * (each_s.T @ live))


def congestion_ratio(loads: LinkBytes, schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int]) -> float:
    """How long the fullest fabric link is at work / that under ideal spraying; 1.0 where no flow leaves its leaf."""
    return ratio_to_ideal(loads, ideal_link_bytes(leaf_bytes(schedule, fabric, hosts), fabric), fabric)


def ratio_to_ideal(loads: LinkBytes, ideal: LinkBytes, fabric: LeafSpine) -> float:
    """How long the fullest link is at work under `loads` / under `ideal`; 1.0 where nothing is to cross."""
    rates_bps = spine_rates_bps(fabric)
    full, least = (max((up / rates_bps).max(), (down / rates_bps).max()) for up, down in (loads, ideal))
    return float(full / least) if least else 1.0


def over_ideal(loads: LinkBytes, rates_bps: Floats) -> LinkBytes:
    """How long every link was at work, over the fullest link's time had each leaf spread what it sent and received.

    A leaf would spread it by `rates_bps`, which is 0 where there is no link, over the spines that lead to another leaf.
    NaN where there is no link; the most of all cells is the congestion ratio by counters.
    """
    live = rates_bps > 0
    leads_bps = rates_bps * (live.sum(axis=0) > 1)
    could_bps = leads_bps.sum(axis=1)
    ideal_s = max(
        np.divide(load.sum(axis=1), could_bps, out=np.zeros(len(could_bps)), where=could_bps > 0).max()
        for load in loads
    )
    up, down = (np.divide(load, rates_bps, out=np.full(load.shape, np.nan), where=live) for load in loads)
    return LinkBytes(up / ideal_s, down / ideal_s) if ideal_s else LinkBytes(up * 0, down * 0)


def _ends(plan: TrafficPlan) -> tuple[Ints, Ints]:
    """Source and destination host of every subflow."""
    count = len(plan.connections)
    return (
        np.fromiter((connection.src_host for connection in plan.connections), dtype=np.intp, count=count),
        np.fromiter((connection.dst_host for connection in plan.connections), dtype=np.intp, count=count),
    )
