"""What an experiment's runs are to whoever performs, records and shows them, whatever their load."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from emulator.doctor.kernel import without_congestion_control
from emulator.faults import ControllerDown
from emulator.files import Folder
from emulator.forwarding import Scheduling
from emulator.meters.capture import Which
from emulator.order import FabricOrder
from emulator.topology import MAX_EMULATED_HOSTS, MAX_EMULATED_LEAVES, LeafSpine
from experiments.captures.summary import CaptureSummary
from experiments.judge.evidence import Built, Measured
from experiments.judge.rows import Judged
from experiments.runs.messages import Job
from experiments.runs.plan import Run
from experiments.spec.experiment import Experiment
from experiments.spec.messages import SpecError
from experiments.spec.units import format_rate_bps
from traffic.schemes import scheme_of
from traffic.transport import Transport

_SILENCE_S = 60.0  # on top of the time after which a load ends itself


@dataclass(frozen=True)
class Seen:
    """What a run is judged by besides its own measurement: the fabric, and what its captures tell."""

    built: Built
    captured: CaptureSummary | None = None


class Work(ABC):
    """The runs of one experiment, in order, on one fabric."""

    experiment: Experiment
    name: str
    topology: LeafSpine
    transport: Transport
    dataplane: str
    runs: Sequence[Run]
    command = "run"
    """The command that performs them."""

    captures: Which = "none"
    verify: bool = False

    def take(self, experiment: Experiment) -> None:
        """Have everything but the runs from `experiment`."""
        self.experiment, self.name = experiment, experiment.name
        self.topology, self.transport = experiment.fabric.topology(), experiment.tcp()
        self.dataplane, self.captures = experiment.fabric.dataplane, experiment.captures

    def order(self, userspace_limit_bps: int | None = None) -> FabricOrder:
        """Return the fabric that the runs need."""
        return self.transport.order(self.topology, self.dataplane, userspace_limit_bps)

    @property
    def parts(self) -> Sequence[Work]:
        """Return what its runs are performed by, one after the other: each on a fabric of its own."""
        return [self]

    @property
    def program_hosts(self) -> Sequence[int]:
        """The hosts on which a run starts programs, whose output is kept."""
        return ()

    @property
    def silence_s(self) -> float:
        """After so many seconds without a word from the sandbox, something is wrong."""
        return self.transport.stall_timeout_s + _SILENCE_S

    def prepare(self, run: Run) -> None:  # noqa: B027 - most have nothing to find
        """Find what takes long before anything is emulated, which it would disturb."""

    @abstractmethod
    def job(self, run: Run, captures: Folder) -> Job:
        """Return `run` as the sandbox performs it; its captures go to a folder of its own in `captures`."""

    @abstractmethod
    def judged(self, run: Run, measured: Measured[Any], seen: Seen) -> Judged:
        """Return the row of a run that was measured, and the frames behind it."""

    @abstractmethod
    def estimate_s(self, run: Run) -> float:
        """Return roughly how long `run` takes."""

    @abstractmethod
    def columns(self, run: Run) -> dict[str, str]:
        """Return what a dry run says of `run`, by heading."""

    def too_short(self) -> dict[str, str]:
        """Return why runs cannot be judged, and what size could, by the traffic's label; nothing where all can."""
        return {}

    def lacking(self) -> dict[str, str]:
        """Return why schemes cannot be had here, by their names: their runs will not finish."""
        names = dict.fromkeys(run.scheme for run in self.runs)
        return {name: reason for name in names if (reason := scheme_of(name).lacking(self.dataplane))}

    def total_estimate_s(self) -> float:
        """Return roughly how long all runs take; building the fabric comes on top."""
        return sum(self.estimate_s(run) for run in self.runs)

    def named(self, run: Run) -> dict[str, Any]:
        """Return the columns of a row that say which run it is."""
        return {"run_id": run.run_id, "experiment": self.name, "scheme": run.scheme, "traffic": run.label}

    def fabric_columns(self, dataplane: str) -> dict[str, Any]:
        """Return the columns of a row that say on what it ran."""
        fabric = self.topology
        return {
            "leaves": fabric.leaves,
            "spines": fabric.spines,
            "hosts_per_leaf": fabric.hosts_per_leaf,
            "host_rate_bps": fabric.host_rate_bps,
            "fabric_rate_bps": fabric.fabric_rate_bps,
            "uneven": uneven_links(fabric),
            "mtu_bytes": fabric.mtu_bytes,
            "burst_frames": fabric.burst_frames,
            "dataplane": dataplane,
        }

    @property
    def congestion_controls(self) -> Collection[str]:
        """Return the kernel's names of all that the hosts' TCP is to use."""
        return {self.transport.congestion_control}

    def check_emulable(self) -> None:
        """Raises SpecError for a fabric that only a model can hold."""
        if self.topology.hosts > MAX_EMULATED_HOSTS:
            raise SpecError(
                f"{self.name}: {self.topology.hosts} hosts are more than a machine emulates "
                f"(at most {MAX_EMULATED_HOSTS}); predict takes them"
            )
        if self.topology.leaves > MAX_EMULATED_LEAVES:
            raise SpecError(
                f"{self.name}: {self.topology.leaves} leaves are more than can be emulated "
                f"(at most {MAX_EMULATED_LEAVES}); predict takes them"
            )
        refuse(self._without_controller(), self.name)

    def check_kernel(self) -> None:
        """Raises SpecError for what the kernel lacks where this is called."""
        for name in sorted(self.congestion_controls):
            if lacking := without_congestion_control(name):
                refuse(f"{lacking}; write one of those, such as cubic", self.name, "transport.congestion_control")

    def _without_controller(self) -> str | None:
        """Why no controller can be lost here, where one is to be."""
        numbers = [number for number, each in enumerate(self.experiment.faults) if each.kind == ControllerDown.kind]
        forwarding = (scheme_of(name).switch for name in self.experiment.schemes)
        scheduled = any(isinstance(each, Scheduling) for each in forwarding)
        reaction = self.experiment.reaction
        told = reaction is not None and reaction.network == "controller"
        if not numbers or self.dataplane != "linux" or scheduled or told:
            return None
        return (
            f"faults.{numbers[0]}: Linux routers have no controller to lose; write reaction: {{network: controller}}, "
            "a scheme such as hedera-100ms, or fabric.dataplane: ovs"
        )


def uneven_links(fabric: LeafSpine) -> str:
    """Return how links between leaves and spines differ, in words; nothing where all are up and of one rate."""
    rates = {spine: fabric.spine_rate_bps(spine) for spine in range(fabric.spines)}
    words = [
        f"{fabric.spine_name(spine)} {format_rate_bps(rate_bps)}"
        for spine, rate_bps in rates.items()
        if rate_bps != fabric.fabric_rate_bps
    ]
    failed = [f"{fabric.leaf_name(leaf)}-{fabric.spine_name(spine)}" for leaf, spine in sorted(fabric.failed)]
    return ", ".join([*words, *(f"{link} failed" for link in failed)])


def refuse(too_much: str | None, *where: str) -> None:
    """Raise SpecError with `too_much`, if there is any, after where it was found."""
    if too_much:
        raise SpecError(": ".join(filter(None, (*where, too_much))))
