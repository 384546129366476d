"""Congestion by counting: how many flows each host sends to each leaf, and not one object a flow.

Where every rank sends equal flows over the same connections round after round, nothing else decides the load of a link:
path tags are dealt by those counts, and hashing draws a spine for each of so many connections between two leaves, which
is one multinomial draw. An all-to-all of 65,536 hosts, four thousand million flows, takes seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emulator.topology import LeafSpine
from experiments.theory.loads import Floats, LinkBytes, ideal_link_bytes, ratio_to_ideal
from traffic.collectives import Outline
from traffic.plan import UNTAGGED
from traffic.schemes import Scheme


@dataclass(frozen=True)
class CountedTraffic:
    """In each of `rounds` rounds, `flows[host, leaf]` flows of `flow_bytes` payload go from a host to a leaf.

    All rounds use the same connections, and all links are alike. Every host receives as much as it sends.
    """

    fabric: LeafSpine
    flows: NDArray[np.int32] = field(repr=False)
    flow_bytes: float
    rounds: int

    @property
    def total_flows(self) -> int:
        return int(self.flows.sum(dtype=np.int64)) * self.rounds

    def connections(self, scheme: Scheme) -> int:
        """Connections that `scheme` opens."""
        return self._over_senders(scheme, lambda tags: sum(map(len, tags)))

    def cut_flows(self, scheme: Scheme) -> int:
        """Flows that `scheme` carries in more than one piece."""
        return self.rounds * self._over_senders(scheme, lambda tags: sum(len(each) > 1 for each in tags))

    def link_bytes(self, scheme: Scheme, seed: int) -> LinkBytes:
        """Wire bytes of every fabric link; hashed connections meet spines as `seed` draws them."""
        if scheme.spreads:
            return self.ideal_link_bytes()
        fabric, draw = self.fabric, np.random.default_rng(seed)
        up, down = np.zeros((fabric.leaves, fabric.spines)), np.zeros((fabric.leaves, fabric.spines))
        hashed: dict[int, NDArray[np.int64]] = {}  # connections between leaves, by how many share a flow
        for count, senders in self._senders_by_count():
            pinned, unpinned = _load(scheme.tags(count, range(fabric.spines)), fabric.spines)
            up += np.outer(senders.sum(axis=1), pinned)
            down += np.outer(senders.sum(axis=0), pinned)
            for parts, connections in unpinned.items():
                hashed[parts] = hashed.get(parts, 0) + senders * connections
        for parts, between in sorted(hashed.items()):
            drawn = draw.multinomial(between, np.full(fabric.spines, 1 / fabric.spines))
            up += drawn.sum(axis=1) / parts
            down += drawn.sum(axis=0) / parts
        scale = self._wire_bytes_per_connection()
        return LinkBytes(up * scale, down * scale)

    def ideal_link_bytes(self) -> LinkBytes:
        return ideal_link_bytes(self._between().astype(float) * self._wire_bytes_per_connection(), self.fabric)

    def congestion_ratio(self, scheme: Scheme, seed: int) -> float:
        """See `experiments.theory.loads`."""
        return ratio_to_ideal(self.link_bytes(scheme, seed), self.ideal_link_bytes(), self.fabric)

    def bound_s(self) -> float:
        """The bound of such traffic: its rounds keep the same links busy, so their sum is what counts."""
        most_per_host = int(self.flows.sum(axis=1, dtype=np.int64).max()) * self._wire_bytes_per_connection()
        ideal = self.ideal_link_bytes()
        return 8 * max(
            most_per_host / self.fabric.host_rate_bps,
            max(ideal.up.max(), ideal.down.max()) / self.fabric.fabric_rate_bps,
        )

    def _wire_bytes_per_connection(self) -> float:
        return self.fabric.wire_bytes(self.flow_bytes) * self.rounds

    def _between(self) -> NDArray[np.int64]:
        """Flows of a round by (source leaf, destination leaf); none within a leaf."""
        between = self._by_leaf(self.flows)
        np.fill_diagonal(between, 0)
        return between

    def _by_leaf(self, of_hosts: NDArray[np.int32] | NDArray[np.bool_]) -> NDArray[np.int64]:
        fabric = self.fabric
        return of_hosts.reshape(fabric.leaves, fabric.hosts_per_leaf, fabric.leaves).sum(axis=1, dtype=np.int64)

    def _over_senders(self, scheme: Scheme, number: Callable[[list[list[int]]], int]) -> int:
        """The sum, over senders and the leaves they send to in a round, of a number of their flows' path tags."""
        crossing = sum(
            int(senders.sum()) * number(scheme.tags(count, range(self.fabric.spines)))
            for count, senders in self._senders_by_count()
        )
        inside = int(self.flows.sum(dtype=np.int64)) - int(self._between().sum())
        return crossing + inside * number([[UNTAGGED] * scheme.connections_per_flow])

    def _senders_by_count(self) -> list[tuple[int, NDArray[np.int64]]]:
        """For every count of flows: how many hosts of a leaf send that many to another leaf."""
        found = []
        for count in np.flatnonzero(np.bincount(self.flows.ravel())).tolist():
            senders = self._by_leaf(self.flows == count)
            np.fill_diagonal(senders, 0)
            if count and senders.any():
                found.append((count, senders))
        return found


def count_traffic(outline: Outline, fabric: LeafSpine, hosts: Sequence[int]) -> CountedTraffic:
    """The counts of what `outline` stands for; `hosts[r]` is the host of rank r.

    Pieces of a message are taken as equal, though real ones differ by up to an element.
    """
    schedule, pattern = outline
    host = np.asarray(hosts, dtype=np.intp)
    leaf = host // fabric.hosts_per_leaf
    flows = np.zeros((fabric.hosts, fabric.leaves), dtype=np.int32)
    if pattern.to is None:
        flows[host] = np.bincount(leaf, minlength=fabric.leaves) * schedule.channels
        flows[host, leaf] -= schedule.channels  # none to itself
    else:
        flows[host, np.roll(leaf, -pattern.to)] = schedule.channels
    return CountedTraffic(fabric, flows, schedule.size_bytes / pattern.pieces / schedule.channels, pattern.rounds)


def _load(tags: Sequence[Sequence[int]], spines: int) -> tuple[Floats, Counter[int]]:
    """Flows' worth of bytes that tags put on every spine; and the hashed connections, by how many share a flow."""
    pinned, unpinned = np.zeros(spines), Counter[int]()
    for each in tags:
        np.add.at(pinned, np.array([tag - 1 for tag in each if tag != UNTAGGED], dtype=np.intp), 1 / len(each))
        unpinned[len(each)] += each.count(UNTAGGED)
    return pinned, +unpinned
