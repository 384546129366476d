"""Unmodified programs on an experiment's fabric, under each of its schemes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulator.dataplane import Endpoints
from emulator.files import Folder
from emulator.forwarding import Forwarding
from emulator.nic import at_work
from emulator.order import FabricOrder
from emulator.proc import retransmitted_segments
from emulator.programs import Ended, Launch, run_program
from emulator.topology import LeafSpine
from experiments.judge.evidence import Measured, ProgramEvidence, ProgramResult
from experiments.judge.rows import Judged, judge_program
from experiments.runs.messages import Job, Playing, UnfitError
from experiments.runs.plan import RUN_OVERHEAD_S, Run, planned
from experiments.runs.work import Seen, Work, refuse
from experiments.spec.experiment import Experiment
from experiments.spec.faults import contradiction, without_bound
from experiments.spec.messages import SpecError
from experiments.spec.yamlfile import dotted
from traffic.schemes import Scheme, names_for_programs, scheme_of

if TYPE_CHECKING:
    from emulator.fabric import Fabric

_SILENCE_S = 60.0  # on top of the program's own time
_FIRST_MASTER_PORT = 29_500  # as torchrun's; a port a run, as the last run's may be held for a while


@dataclass(frozen=True)
class ProgramLoad:
    """A program on some hosts; their NICs do to its packets what `scheme` does. See `Load`."""

    scheme: Scheme
    launch: Launch
    hashed: Sequence[Endpoints] = ()

    @property
    def forwarding(self) -> Forwarding | None:
        return self.scheme.switch

    @contextmanager
    def ready(self, fabric: Fabric, seed: int) -> Iterator[Callable[[], Playing]]:
        with at_work(self.scheme.program_nic, fabric, seed):
            yield lambda: self._play(fabric)

    def _play(self, fabric: Fabric) -> Playing:
        before = _retransmitted_segments(fabric)
        for event in run_program(fabric.topology, self.launch):
            yield event
            if isinstance(event, Ended):
                ended = event
        if ended.status:
            raise UnfitError(ended.reason, ended.status)
        return ProgramResult(ended, _retransmitted_segments(fabric) - before)


def _retransmitted_segments(fabric: Fabric) -> int:
    """Of all hosts together, since they were made."""
    return sum(map(retransmitted_segments, fabric.host_pids))


@dataclass(frozen=True)
class Program:
    """What to run: `command` on `hosts`, rank by rank, ended after `timeout_s`."""

    command: tuple[str, ...]
    hosts: tuple[int, ...]
    timeout_s: float

    @property
    def name(self) -> str:
        """The program's own name, without its folder, and without what a file of text or a terminal cannot take."""
        return "".join(letter if letter.isprintable() else "?" for letter in Path(self.command[0]).name)

    def as_json(self) -> dict[str, Any]:
        """Return it as a manifest keeps it, for `restored`."""
        return {"command": list(self.command), "hosts": list(self.hosts), "timeout_s": self.timeout_s}

    @classmethod
    def restored(cls, content: object, source: str) -> Program:
        """Return what `as_json` gave. Raises SpecError; `source` names its file."""
        try:
            assert isinstance(content, dict)
            return cls(tuple(content["command"]), tuple(content["hosts"]), float(content["timeout_s"]))
        except (AssertionError, KeyError, TypeError, ValueError):
            raise SpecError(f"{source}: holds no program; `exec` goes on with what `exec` began") from None


class Programs(Work):
    """One program's runs: for every seed and scheme of an experiment but those `left_out`, which nobody could apply."""

    command = "exec"

    def __init__(self, experiment: Experiment, program: Program) -> None:
        """Raises SpecError where no scheme is left."""
        for key, value in (("sweep", experiment.sweep), ("strain", experiment.strains)):
            if value:
                raise SpecError(f"{key}: changes what is replayed, and programs send what they like; --set {key}=null")
        if experiment.repath():
            raise SpecError("reaction.hosts: programs open their own connections, which nobody moves; leave it out")
        self.take(experiment)
        self.program = program
        self.left_out = [scheme for scheme in experiment.schemes if not scheme_of(scheme).for_programs]
        self.schemes = tuple(scheme for scheme in experiment.schemes if scheme not in self.left_out)
        if not self.schemes:
            raise SpecError(
                f"schemes: {', '.join(self.left_out)} cannot apply to an unmodified program, which opens its own "
                f"connections; write {names_for_programs()}"
            )
        refuse(without_bound(experiment.faults), self.name)
        self.runs = planned([program.name], self.schemes, experiment.seeds)

    def order(self, userspace_limit_bps: int | None = None) -> FabricOrder:
        order = super().order(userspace_limit_bps)
        return replace(order, congestion_control=self.transport.congestion_control)

    @property
    def program_hosts(self) -> Sequence[int]:
        return self.program.hosts

    @property
    def silence_s(self) -> float:
        return self.program.timeout_s + _SILENCE_S

    def check_emulable(self) -> None:
        super().check_emulable()
        for problem in self.experiment.impossible_faults():
            refuse(problem.message, self.name, dotted(problem.path))
        refuse(contradiction(self.experiment.broken(0.0, seed=0), self.topology), self.name)

    def job(self, run: Run, captures: Folder) -> Job:
        port = _FIRST_MASTER_PORT + self.runs.index(run) % 1000
        launch = Launch(self.program.command, self.program.hosts, self.program.timeout_s, port, dict(os.environ))
        load = ProgramLoad(scheme_of(run.scheme), launch)
        faults = self.experiment.broken(0.0, run.seed)  # by seconds alone
        reaction = self.experiment.network_reaction()
        return Job(run.run_id, run.seed, load, self.captures, captures / run.run_id, faults, reaction)

    def judged(self, run: Run, measured: Measured[ProgramResult], seen: Seen) -> Judged:
        evidence = ProgramEvidence.of(
            measured,
            seen.built.ports,
            topology=self.topology,
            seed=run.seed,
            asked=self.captures,
            captured=seen.captured,
        )
        identity = {
            **self.named(run),
            "ranks": len(self.program.hosts),
            **self.fabric_columns(seen.built.dataplane),
            "seed": run.seed,
        }
        return judge_program(evidence, identity)

    def estimate_s(self, run: Run) -> float:
        """Guess, as nobody knows: a minute, or what the program may take at most."""
        return min(60.0, self.program.timeout_s) + RUN_OVERHEAD_S

    def columns(self, run: Run) -> dict[str, str]:
        return {"processes": str(len(self.program.hosts)), "at most": f"{self.program.timeout_s:g} s"}


def parse_hosts(text: str | None, fabric: LeafSpine) -> tuple[int, ...]:
    """Read 'h1,h5-h8' as hosts in the order of their ranks; None: all. Raises SpecError."""
    if text is None:
        return tuple(range(fabric.hosts))
    hosts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"h([0-9]+)(?:-h([0-9]+))?", part.strip())
        if match is None:
            raise SpecError(f"--hosts: {part.strip()!r} is no host; write h1, h5-h8 or several of them with commas")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= fabric.hosts:
            raise SpecError(f"--hosts: {part.strip()} is not in this fabric, whose hosts are h1 to h{fabric.hosts}")
        hosts += range(first - 1, last)
    if len(set(hosts)) < len(hosts):
        raise SpecError(f"--hosts: {text} names a host twice; each runs the program once")
    return tuple(hosts)
