"""Congestion by counting: how many flows each host sends to each leaf, and not one object a flow.

Where every rank sends equal flows over the same connections round after round, nothing else decides the load of a link:
ethereal assigns by those counts, and hashing draws a spine for each of so many connections between two leaves, which is
one multinomial draw. An all-to-all of 65,536 hosts, four thousand million flows, takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emulator.topology import LeafSpine
from experiments.theory.loads import Floats, LinkBytes, ideal_link_bytes, ratio_to_ideal
from traffic.collectives import Outline
from traffic.schemes import check_scheme, ethereal_assignment


@dataclass(frozen=True)
class CountedTraffic:
    """In each of `rounds` rounds, `flows[host, leaf]` flows of `flow_bytes` payload go from a host to a leaf.

    All rounds use the same connections. Every host receives as much as it sends.
    """

    fabric: LeafSpine
    flows: NDArray[np.int32] = field(repr=False)
    flow_bytes: float
    rounds: int

    @property
    def total_flows(self) -> int:
        return int(self.flows.sum(dtype=np.int64)) * self.rounds

    def subflows(self, scheme: str) -> int:
        """Connections that `scheme` opens."""
        whole = int(self.flows.sum(dtype=np.int64))
        if scheme == "ethereal":
            return whole + self._over_senders(lambda paths: sum(len(path) - 1 for path in paths))
        return whole * _connections_per_flow(scheme)

    def cut_flows(self, scheme: str) -> int:
        """Flows that `scheme` carries in more than one piece."""
        if scheme == "ethereal":
            return self.rounds * self._over_senders(lambda paths: sum(len(path) > 1 for path in paths))
        return self.total_flows if _connections_per_flow(scheme) > 1 else 0

    def link_bytes(self, scheme: str, seed: int) -> LinkBytes:
        """Wire bytes of every fabric link; hashed connections meet spines as `seed` draws them."""
        check_scheme(scheme)
        if scheme.startswith("spray"):
            return self.ideal_link_bytes()
        fabric = self.fabric
        up, down = np.zeros((fabric.leaves, fabric.spines)), np.zeros((fabric.leaves, fabric.spines))
        if scheme == "ethereal":
            for count, senders in self._senders_by_count():
                spread = _ethereal_load(count, fabric.spines)
                up += np.outer(senders.sum(axis=1), spread)
                down += np.outer(senders.sum(axis=0), spread)
            each = 1.0
        else:
            connections = _connections_per_flow(scheme)
            drawn = np.random.default_rng(seed).multinomial(
                self._between() * connections, np.full(fabric.spines, 1 / fabric.spines)
            )
            up += drawn.sum(axis=1)
            down += drawn.sum(axis=0)
            each = 1 / connections
        scale = each * self._wire_bytes_per_connection()
        return LinkBytes(up * scale, down * scale)

    def ideal_link_bytes(self) -> LinkBytes:
        return ideal_link_bytes(self._between().astype(float) * self._wire_bytes_per_connection(), self.fabric)

    def congestion_ratio(self, scheme: str, seed: int) -> float:
        """See `experiments.theory.loads`."""
        return ratio_to_ideal(self.link_bytes(scheme, seed), self.ideal_link_bytes())

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

    def _over_senders(self, number: Callable[[list[list[int]]], int]) -> int:
        """The sum, over senders and the leaves they send to in a round, of a number of ethereal's assignment."""
        return sum(
            int(senders.sum()) * number(ethereal_assignment(count, range(self.fabric.spines)))
            for count, senders in self._senders_by_count()
        )

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


def _connections_per_flow(scheme: str) -> int:
    return int(scheme.removeprefix("subflow-")) if scheme.startswith("subflow-") else 1


def _ethereal_load(flows: int, spines: int) -> Floats:
    """Flows' worth of bytes on every spine, from one sender of so many equal flows to one leaf."""
    load = np.zeros(spines)
    for path in ethereal_assignment(flows, range(spines)):
        np.add.at(load, path, 1 / len(path))
    return load
