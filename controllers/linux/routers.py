"""Leaves and spines as Linux routers, each in a network namespace of its own: a data plane."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from mininet.node import Switch

from controllers.linux import rules as router
from controllers.linux.rules import Neighbour, Route
from controllers.linux.scheduler import Scheduler
from controllers.tables import leaf_table, spine_table
from emulator import netlink
from emulator.dataplane import Endpoints
from emulator.forwarding import Forwarding, Scheduling
from emulator.namespaces import inside, set_sysctls
from emulator.netlink import Netlink
from emulator.nft import load
from emulator.nic import LATE_IS_VALID
from emulator.nodes import Shellless
from emulator.topology import LeafSpine, Link

if TYPE_CHECKING:
    from emulator.fabric import Fabric

_FIRST_PRIORITY = 100  # of the rules for marks: before the main table
_STEERED_CORES = 32  # more would have to be written in groups


class FabricRouter(Shellless, Switch):
    """A Linux router: forwarding is its kernel's, and nothing has to be started."""

    controlIntf = None

    def start(self, controllers: Sequence[Any]) -> None:
        pass


class Routers:
    """Linux routers as the data plane of a fabric: see `emulator.dataplane.Dataplane`."""

    name = "linux"
    version = None
    switch = FabricRouter
    switch_options: dict[str, str] = {}  # noqa: RUF012
    sysctls = router.SYSCTLS
    watched_pids: Sequence[int] = ()
    whole_frames = False
    hashes_as_predicted = False

    def __init__(self, topology: LeafSpine, why: str, log: TextIO) -> None:
        self._topology, self.why, self._log = topology, why, log
        leaves = {topology.leaf_name(leaf): topology.gateway_mac(leaf) for leaf in range(topology.leaves)}
        self.macs = leaves | {topology.spine_name(spine): router.spine_mac(spine) for spine in range(topology.spines)}
        self._routes: dict[str, set[Route]] = {name: set() for name in self.macs}
        self._usual: dict[str, set[Route]] = {}  # where no leaf has noticed anything
        self._dead: dict[str, set[int]] = {}  # the spines whose uplinks each leaf has noticed to be down
        self._rulesets: dict[int, str] = {}
        self._netlink: dict[str, Netlink] = {}  # our own: who reprograms does so beside what else is asked of a switch
        self._in_force: object = None
        self._scheduler: Scheduler | None = None
        self._lost = False  # what was scheduled has nobody to schedule it

    def start(self, fabric: Fabric) -> None:
        self._fabric, topology = fabric, self._topology
        self._index = {port.name: port.index for port in fabric.ports}
        for name in self._routes:
            with inside(fabric.pids[name]):
                self._netlink[name] = Netlink()
        # What has no mark first: half of the packets, and rules are tried one by one.
        rules = [netlink.mark_rule(_FIRST_PRIORITY, 0, netlink.MAIN_TABLE)]
        for spine in range(topology.spines):
            mark = router.mark_of(spine)
            rules.append(netlink.mark_rule(_FIRST_PRIORITY + mark, mark, mark))
        for leaf in range(topology.leaves):
            name = topology.leaf_name(leaf)
            self._netlink[name].send(rules + self._known(name, router.leaf_neighbours(topology, leaf)))
        for spine in range(topology.spines):
            name = topology.spine_name(spine)
            self._netlink[name].send(self._known(name, router.spine_neighbours(topology)))
        self._spread()

    def _spread(self) -> None:
        """Have each leaf forward what its hosts send on any core, by connection (receive packet steering).

        Left alone, a packet is forwarded all the way on the core of whoever sent it, and one sending thread fills one
        core while the others idle. Once is enough: where a leaf has taken a packet to, the next hops follow.
        """
        cores = min(os.cpu_count() or 1, _STEERED_CORES)
        for port in self._fabric.ports:
            if port.host is not None and not port.at_host:
                setting = f"/proc/{port.pid}/root/sys/class/net/{port.name}/queues/rx-0/rps_cpus"
                with contextlib.suppress(OSError), open(setting, "w") as file:  # noqa: PTH123 - it is only speed
                    file.write(f"{(1 << cores) - 1:x}")

    def program(
        self,
        topology: LeafSpine,
        seed: int,
        connections: Sequence[Endpoints],
        forwarding: Forwarding | None,
        *,
        protected: bool,
    ) -> None:
        wanted = (topology, seed, tuple(connections), forwarding)  # a router needs no more to be protected
        lost, self._lost = self._lost, False
        if self._in_force == wanted and isinstance(forwarding, Scheduling) and lost:
            self._schedule(topology, forwarding)
            return
        if self._in_force == wanted and not isinstance(forwarding, Scheduling):  # which begins anew with every run
            return
        self._in_force = None
        if self._scheduler and not lost:
            self._scheduler.rest()
        marks = router.connection_marks(topology, connections, seed)
        wanted_routes, rulesets = {}, {}
        for leaf in range(topology.leaves):
            name, rules = topology.leaf_name(leaf), leaf_table(topology, leaf, forwarding)
            wanted_routes[name] = router.routes(topology, rules)
            rulesets[self._fabric.pids[name]] = router.ruleset(rules, seed, marks[leaf])
        for spine in range(topology.spines):
            wanted_routes[topology.spine_name(spine)] = router.routes(topology, spine_table(topology))
        # In this order, no packet meets a mark whose route is not there.
        for name, routes in wanted_routes.items():
            self._set_routes(name, self._routes[name] | routes)
        if isinstance(forwarding, Scheduling):
            self._rulesets.clear()  # what was counted and placed goes with the ruleset
        self._load(rulesets)
        for name, routes in wanted_routes.items():
            self._set_routes(name, routes)
        self._usual = wanted_routes
        for pid in rulesets if forwarding and not forwarding.hashes else ():
            with inside(pid):
                set_sysctls(LATE_IS_VALID)
        if isinstance(forwarding, Scheduling):
            self._schedule(topology, forwarding)
        self._in_force = wanted

    def _schedule(self, topology: LeafSpine, scheduling: Scheduling) -> None:
        self._scheduler = self._scheduler or Scheduler(self._log)
        leaves = [self._fabric.pids[topology.leaf_name(leaf)] for leaf in range(topology.leaves)]
        self._scheduler.schedule(topology, leaves, scheduling.period_s)

    def notice(self, links: Collection[Link]) -> None:
        for leaf in range(self._topology.leaves):
            name, dead = self._topology.leaf_name(leaf), {spine for each, spine in links if each == leaf}
            if self._dead.get(name, set()) != dead:
                self._set_routes(name, router.detoured(self._topology, self._usual[name], dead))
                self._dead[name] = dead

    def lose_controller(self) -> None:
        if self._scheduler:
            self._scheduler.stop()
            self._scheduler, self._lost = None, True

    def restore_controller(self) -> None:
        if self._lost:
            self._scheduler = Scheduler(self._log)

    def _load(self, rulesets: Mapping[int, str]) -> None:
        """Load those that are not there yet, each as one transaction."""
        changed = {pid: ruleset for pid, ruleset in rulesets.items() if self._rulesets.get(pid) != ruleset}
        self._rulesets = {pid: ruleset for pid, ruleset in self._rulesets.items() if pid not in changed}
        load(changed)
        self._rulesets |= changed

    def warmed_up(self) -> None:
        return None

    def _set_routes(self, name: str, wanted: set[Route]) -> None:
        """One to the same prefix is replaced: no packet meets a gap."""
        there = self._routes[name]
        old, new = ({(route.table, route.prefix) for route in routes} for routes in (there, wanted))
        gone = [route for route in there if (route.table, route.prefix) not in new]
        requests = [self._request(name, route, delete=True) for route in gone]
        requests += [self._request(name, route, replace=(route.table, route.prefix) in old) for route in wanted - there]
        self._netlink[name].send(requests)
        self._routes[name] = wanted

    def _request(self, name: str, route: Route, *, delete: bool = False, replace: bool = False) -> netlink.Request:
        index = None if route.port is None else self._index[f"{name}-eth{route.port}"]
        return netlink.route(route.prefix, index, route.via, route.table, delete=delete, replace=replace)

    def _known(self, name: str, neighbours: Sequence[Neighbour]) -> list[netlink.Request]:
        return [netlink.neighbour(self._index[f"{name}-eth{each.port}"], each.ip, each.mac) for each in neighbours]
