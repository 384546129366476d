"""Schedules replayed over sockets: the runs of an experiment's traffic."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from emulator.dataplane import Endpoints
from emulator.faults import Fault, Reaction
from emulator.files import Folder
from emulator.forwarding import Forwarding
from emulator.nic import at_work
from experiments.judge.evidence import Measured, ReplayEvidence
from experiments.judge.floor import too_short
from experiments.judge.rows import Judged, judge_replay
from experiments.runs.messages import Job, Playing
from experiments.runs.plan import RUN_OVERHEAD_S, Run, estimate_s, plan_runs
from experiments.runs.work import Seen, Work, refuse
from experiments.spec.budget import (
    fewest_connections,
    too_long,
    too_many_connections,
    too_many_flows,
    too_many_in_all,
    too_many_pieces,
    too_many_runs,
)
from experiments.spec.experiment import Experiment, Point
from experiments.spec.faults import contradiction
from experiments.spec.yamlfile import dotted
from experiments.theory.bound import bound_s
from experiments.theory.capacity import bound_under_s
from experiments.theory.prediction import Predicted, predict_run
from traffic.abreast import DEFAULT_PROCESSES, Abreast, Processes, most_processes
from traffic.connections import NamespaceSockets, Sockets
from traffic.multipath import MultipathSockets
from traffic.outcome import ReplayResult
from traffic.payload import Anything, RealData
from traffic.plan import LISTEN_PORT, UNTAGGED, TrafficPlan, plan_traffic
from traffic.repath import Repath
from traffic.replay import Replay
from traffic.schedule import Schedule
from traffic.schemes import scheme_of
from traffic.transport import Transport

if TYPE_CHECKING:
    from emulator.fabric import Fabric


@dataclass(frozen=True)
class ReplayLoad:
    """A plan to be replayed; with `verify` it carries numbers whose sums are checked. See `Load`.

    By `repath`, hosts move connections that bring nothing any more. `processes` replay it; "auto": one a core where
    hosts and routers are all that there is, and one beside Open vSwitch. Where connections are moved, or are MPTCP's,
    it is one whatever is asked.
    """

    plan: TrafficPlan
    transport: Transport
    verify: bool = False
    repath: Repath | None = None
    processes: Processes = DEFAULT_PROCESSES

    @property
    def hashed(self) -> Sequence[Endpoints]:
        if self.plan.scheme.spreads or (self.forwarding and not self.forwarding.hashes):
            return []
        return [
            Endpoints(connection.src_host, connection.dst_host, connection.src_port, LISTEN_PORT)
            for connection in self.plan.connections
            if connection.path_tag == UNTAGGED
        ]

    @property
    def forwarding(self) -> Forwarding | None:
        return self.plan.scheme.switch

    @contextmanager
    def ready(self, fabric: Fabric, seed: int) -> Iterator[Callable[[], Playing]]:
        payload = RealData(self.plan, seed) if self.verify else Anything()
        if self.plan.scheme.kernel_subflows:
            with self._multipath(fabric, payload, seed) as replay:
                yield replay.run
            return
        sockets = NamespaceSockets(fabric.topology, fabric.host_pids)
        with at_work(self.plan.scheme.nic, fabric, seed), self._played_by(fabric, sockets, payload) as replay:
            yield replay.run

    @contextmanager
    def _multipath(self, fabric: Fabric, payload: Anything, seed: int) -> Iterator[Replay]:
        scheme = self.plan.scheme
        sockets = MultipathSockets(fabric.topology, fabric.host_pids, scheme.kernel_subflows)
        with (
            sockets.managed(),
            at_work(scheme.nic, fabric, seed),
            self._replay(fabric, sockets, payload) as replay,
        ):
            sockets.join(replay.connections)
            yield replay

    def _played_by(self, fabric: Fabric, sockets: Sockets, payload: Anything) -> Replay | Abreast:
        # A switch that is a process has a core to itself, and is what limits a replay.
        fitting = 1 if fabric.plane.watched_pids else len(os.sched_getaffinity(0))
        processes = most_processes(fitting if self.processes == "auto" else self.processes, self.plan)
        if processes == 1 or self.repath:
            return self._replay(fabric, sockets, payload)
        return Abreast(self.plan, fabric.topology, sockets, self.transport, payload, processes)

    def _replay(self, fabric: Fabric, sockets: Sockets, payload: Anything) -> Replay:
        return Replay(self.plan, fabric.topology, sockets, self.transport, payload, self.repath)


@dataclass(frozen=True)
class _Prepared:
    """What is found of a run once, and needed when it is performed and judged."""

    plan: TrafficPlan
    bound_s: float
    predicted: Predicted | None


class ReplayWork(Work):
    """Runs that replay schedules: what each sends, where it goes, what is possible, what is to be expected.

    A run is prepared before its job is asked for. Without `predicts`, theory is not asked what it should take.
    """

    predicts = True
    processes: Processes = DEFAULT_PROCESSES
    """How many processes replay a run."""

    repath: Repath | None = None
    """When hosts move connections that bring nothing any more, if they do."""

    reaction: Reaction | None = None
    """How the network reacts to links that are down, if it does."""

    def __init__(self) -> None:
        self._prepared: dict[str, _Prepared] = {}
        self._plans: dict[tuple[int, str, int], TrafficPlan] = {}

    @abstractmethod
    def ideal(self, run: Run) -> tuple[Schedule, Sequence[int], float]:
        """Return the schedule of `run`, the host of each rank, and the bound in seconds."""

    def drawn(self, run: Run) -> int:
        """Return the seed that what `run` sends hangs on; one for all runs of traffic on which no seed tells."""
        return run.seed

    def identity(self, run: Run, plan: TrafficPlan, dataplane: str) -> dict[str, Any]:
        """What a row of runs.csv says of a run before it ran."""
        schedule = plan.schedule
        return {
            **self.named(run),
            "collective": schedule.collective,
            "algorithm": schedule.algorithm,
            "channels": schedule.channels,
            "ranks": schedule.ranks,
            **self.fabric_columns(dataplane),
            "size_bytes": schedule.size_bytes,
            "seed": run.seed,
        }

    def plan(self, run: Run) -> TrafficPlan:
        """Return what the sockets are to do."""
        schedule, hosts, _ = self.ideal(run)
        scheme = scheme_of(run.scheme)
        refuse(too_many_pieces(schedule, self.topology, hosts, scheme), self.name, run.label)
        return plan_traffic(schedule, self.topology, hosts, scheme)

    def bound_s(self, run: Run) -> float:
        """Return the least time that any scheme could take."""
        return self.ideal(run)[2]

    def faults(self, run: Run) -> Sequence[Fault]:
        """Return what breaks in `run`, which its bound knows of."""
        return ()

    def prepare(self, run: Run) -> None:
        key = run.traffic, run.scheme, self.drawn(run)
        if key not in self._plans:
            self._plans[key] = self.plan(run)
        plan = self._plans[key]
        asked = plan, self.topology, run.seed, self.faults(run), self.transport
        predicted = predict_run(*asked) if self.predicts else None
        self._prepared[run.run_id] = _Prepared(plan, self.bound_s(run), predicted)

    def job(self, run: Run, captures: Folder) -> Job:
        load = ReplayLoad(self._prepared[run.run_id].plan, self.transport, self.verify, self.repath, self.processes)
        return Job(run.run_id, run.seed, load, self.captures, captures / run.run_id, self.faults(run), self.reaction)

    def judged(self, run: Run, measured: Measured[ReplayResult], seen: Seen) -> Judged:
        prepared = self._prepared[run.run_id]
        evidence = ReplayEvidence.of(
            measured,
            ports=seen.built.ports,
            topology=self.topology,
            seed=run.seed,
            asked=self.captures,
            captured=seen.captured,
            plan=prepared.plan,
            bound_s=prepared.bound_s,
        )
        return judge_replay(evidence, self.identity(run, prepared.plan, seen.built.dataplane), prepared.predicted)

    def too_short(self) -> dict[str, str]:
        found = {}
        for run in {(run.traffic, self.drawn(run)): run for run in self.runs}.values():  # schemes send the same
            schedule, hosts, bound = self.ideal(run)
            if reason := too_short(schedule, self.topology, hosts, bound, self.faults(run)):
                found[run.label] = reason
        return found


class Replays(ReplayWork):
    """An experiment's traffic. Schedules and bounds are found once for each traffic and seed, for all schemes."""

    def __init__(self, experiment: Experiment, point: Point | None = None) -> None:
        """At `point` of a sweep, rows have a column for each of its values. Raises SpecError for too many runs."""
        super().__init__()
        self._setting = {"point": point.label, **point.setting} if point else {}
        self.take(experiment)
        self.processes = experiment.replay.processes
        self.verify, self.repath, self.reaction = experiment.verify, experiment.repath(), experiment.network_reaction()
        refuse(too_many_runs(len(experiment.traffic), len(experiment.schemes), len(experiment.seeds)), self.name)
        self.runs = plan_runs(experiment, point.label if point else "")
        self._ideal = lru_cache(maxsize=None)(self._found)
        self._last_s = lru_cache(maxsize=None)(self._found_last_s)
        self._senders: dict[tuple[int, str, int], Counter[int]] = {}

    def ideal(self, run: Run) -> tuple[Schedule, Sequence[int], float]:
        return self._ideal(run.traffic, self.drawn(run))[:3]

    def drawn(self, run: Run) -> int:
        seeded = self.seeded(run.traffic) or self.experiment.faults
        return run.seed if seeded else self.experiment.seeds[0]

    def seeded(self, traffic: int) -> bool:
        """Whether what an entry sends from which host to which hangs on the seed."""
        experiment = self.experiment
        return bool(experiment.traffic[traffic].seeded or experiment.placement == "random" or experiment.strains)

    def senders(self, run: Run) -> Counter[int]:
        """Return how many connections leave each host: of a plan that is made for that, and not kept."""
        key = run.traffic, run.scheme, self.drawn(run)
        if key not in self._senders:
            self._senders[key] = Counter(connection.src_host for connection in self.plan(run).connections)
        return self._senders[key]

    def faults(self, run: Run) -> Sequence[Fault]:
        return self._ideal(run.traffic, self.drawn(run))[3]

    def _found(self, traffic: int, seed: int) -> tuple[Schedule, list[int], float, list[Fault]]:
        """The schedule, the hosts, the bound under what breaks, and what breaks when, by the bound without it."""
        schedule = self.experiment.schedule(traffic, seed)
        hosts = self.experiment.hosts(schedule, seed)
        whole_s = bound_s(schedule, self.topology, hosts)
        if self.experiment.strains:
            schedule = self.experiment.strained(schedule, whole_s, seed)
            whole_s = bound_s(schedule.own, self.topology, hosts)
        faults = self.experiment.broken(whole_s, seed)
        under_s = bound_under_s(schedule.own, self.topology, hosts, faults) if faults else 0.0
        return schedule, hosts, max(whole_s, under_s), faults

    def _found_last_s(self, traffic: int, seed: int) -> float:
        """When the last of the flows starts that have a time to start at."""
        return max((flow.start_s for flow in self._ideal(traffic, seed)[0].flows), default=0.0)

    def identity(self, run: Run, plan: TrafficPlan, dataplane: str) -> dict[str, Any]:
        strained = bool(self.experiment.strains)
        strain = {"strain": str(self.experiment.strain) if strained else ""} if strained or self._setting else {}
        return {**super().identity(run, plan, dataplane), **self._setting, **strain}

    def estimate_s(self, run: Run) -> float:
        last_s = self._last_s(run.traffic, self.drawn(run))
        return max(estimate_s(self.experiment, run, self.bound_s(run)), last_s + RUN_OVERHEAD_S)

    def columns(self, run: Run) -> dict[str, str]:
        faults = self.faults(run)
        return {
            "flows": str(len(self.ideal(run)[0].flows)),
            "connections": str(self.senders(run).total()),
            "bound": f"{self.bound_s(run):.2f} s",
        } | ({"faults": "\n".join(fault.words(self.topology) for fault in faults)} if faults else {})

    def check_emulable(self) -> None:
        super().check_emulable()
        first = [run for run in self.runs if run.seed == self.experiment.seeds[0]]
        for run in first:
            self.check_listable(run)
        refuse(too_many_in_all(self.pieces_in_all(), len(self.runs)), self.name)
        for run in first:
            schedule, hosts, bound = self.ideal(run)
            fewest = fewest_connections(schedule, hosts, scheme_of(run.scheme))
            refuse(too_many_connections(scheme_of(run.scheme), fewest, self.topology), self.name, run.label)
            refuse(too_many_connections(scheme_of(run.scheme), self.senders(run), self.topology), self.name, run.label)
            refuse(too_long(self.experiment.fabric.slower, schedule, bound), self.name, run.label)
        self._check_faults()

    def _check_faults(self) -> None:
        """Raises SpecError for what cannot break, or breaks twice, or too late to matter, or leaves nothing."""
        if not self.experiment.faults:
            return
        for problem in self.experiment.impossible_faults():
            refuse(problem.message, self.name, dotted(problem.path))
        for run in self.runs:
            refuse(contradiction(self.faults(run), self.topology), self.name)
            if not isfinite(self.bound_s(run)):
                refuse("faults: they leave some leaf without a link for good; end one, or keep one", self.name)
            ends_s = self.estimate_s(run) - RUN_OVERHEAD_S
            if late := [fault for fault in self.faults(run) if fault.at_s >= ends_s and not fault.again]:
                refuse(
                    f"faults: {late[0].words(self.topology)} is after the end of {run.run_id}, which takes about "
                    f"{ends_s:.2g} s; write a time before that, or a part of the bound such as 30%",
                    self.name,
                )

    def pieces_in_all(self) -> int:
        """Return how many pieces all plans have at least, as far as that can be told without listing them."""
        flows = [entry.flow_count(self.topology) for entry in self.experiment.traffic]
        plans = {(run.traffic, run.scheme, self.drawn(run)) for run in self.runs}
        return sum(flows[traffic] * scheme_of(scheme).connections_per_flow for traffic, scheme, _ in plans)

    def check_listable(self, run: Run) -> None:
        """Raises SpecError for traffic of more flows than can be listed."""
        if flows := self.experiment.traffic[run.traffic].flow_count(self.topology):
            refuse(too_many_flows(flows), self.name, run.label)
