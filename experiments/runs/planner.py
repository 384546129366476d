"""The pure part of every run of an experiment: its traffic, where it goes, its bound, what it will take."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from emulator.doctor.kernel import without_congestion_control
from emulator.topology import MAX_EMULATED_HOSTS, MAX_EMULATED_LEAVES
from experiments.judge.floor import too_short
from experiments.runs.plan import Run, estimate_s, plan_runs
from experiments.spec.budget import too_many_connections, too_many_flows, too_many_pieces, too_many_runs
from experiments.spec.experiment import Experiment, SpecError
from experiments.theory.bound import bound_s
from traffic.plan import TrafficPlan, plan_traffic
from traffic.schedule import Schedule
from traffic.schemes import scheme_of


class Planner:
    """Schedules and bounds are worked out once for each traffic and seed, however many schemes share them."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.fabric = experiment.fabric.topology()
        self._refuse(too_many_runs(len(experiment.traffic), len(experiment.schemes), len(experiment.seeds)))
        self.runs = plan_runs(experiment)
        self._ideal = lru_cache(maxsize=None)(self._schedule_hosts_bound)

    def _schedule_hosts_bound(self, traffic: int, seed: int) -> tuple[Schedule, list[int], float]:
        schedule = self.experiment.schedule(traffic, seed)
        hosts = self.experiment.hosts(schedule, seed)
        return schedule, hosts, bound_s(schedule, self.fabric, hosts)

    def plan(self, run: Run) -> TrafficPlan:
        schedule, hosts, _ = self._ideal(run.traffic, run.seed)
        scheme = scheme_of(run.scheme)
        self._refuse(too_many_pieces(schedule, self.fabric, hosts, scheme), run.label)
        return plan_traffic(schedule, self.fabric, hosts, scheme)

    def bound_s(self, run: Run) -> float:
        return self._ideal(run.traffic, run.seed)[2]

    def estimate_s(self, run: Run) -> float:
        return estimate_s(self.experiment, run, self.bound_s(run))

    def too_short(self) -> dict[str, str]:
        """Why runs cannot be judged, and what size could, by the traffic's label; nothing where all can."""
        found = {}
        for run in self.runs:
            schedule, hosts, bound = self._ideal(run.traffic, run.seed)
            if reason := too_short(schedule, self.fabric, hosts, bound):
                found[run.label] = reason
        return found

    def identity(self, run: Run, plan: TrafficPlan, dataplane: str) -> dict[str, Any]:
        """What a row of runs.csv says of a run before it ran."""
        fabric, schedule = self.fabric, plan.schedule
        return {
            "run_id": run.run_id,
            "experiment": self.experiment.name,
            "scheme": run.scheme,
            "traffic": run.label,
            "collective": schedule.collective,
            "algorithm": schedule.algorithm,
            "channels": schedule.channels,
            "ranks": schedule.ranks,
            "leaves": fabric.leaves,
            "spines": fabric.spines,
            "hosts_per_leaf": fabric.hosts_per_leaf,
            "host_rate_bps": fabric.host_rate_bps,
            "fabric_rate_bps": fabric.fabric_rate_bps,
            "mtu_bytes": fabric.mtu_bytes,
            "burst_frames": fabric.burst_frames,
            "dataplane": dataplane,
            "size_bytes": schedule.size_bytes,
            "seed": run.seed,
        }

    def check_emulable(self) -> None:
        """Raises SpecError for a fabric that only a model can hold, and for what this kernel lacks."""
        if self.fabric.hosts > MAX_EMULATED_HOSTS:
            raise SpecError(
                f"{self.experiment.name}: {self.fabric.hosts} hosts are more than a machine emulates "
                f"(at most {MAX_EMULATED_HOSTS}); predict takes them"
            )
        if self.fabric.leaves > MAX_EMULATED_LEAVES:
            raise SpecError(
                f"{self.experiment.name}: {self.fabric.leaves} leaves are more than can be emulated "
                f"(at most {MAX_EMULATED_LEAVES}); predict takes them"
            )

        if lacking := without_congestion_control(self.experiment.transport.congestion_control):
            self._refuse(f"{lacking}; write one of those, such as cubic", "transport.congestion_control")
        first = [run for run in self.runs if run.seed == self.experiment.seeds[0]]
        for run in first:
            self.check_listable(run)
        for run in first:
            self._refuse(too_many_connections(self.plan(run), self.fabric), run.label)

    def check_listable(self, run: Run) -> None:
        """Raises SpecError for traffic of more flows than can be listed."""
        if flows := self.experiment.traffic[run.traffic].flow_count(self.fabric):
            self._refuse(too_many_flows(flows), run.label)

    def _refuse(self, too_much: str | None, what: str = "") -> None:
        if too_much:
            raise SpecError(": ".join(filter(None, (self.experiment.name, what, too_much))))

    def total_estimate_s(self) -> float:
        return sum(self.estimate_s(run) for run in self.runs)
