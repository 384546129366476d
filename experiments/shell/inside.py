"""The command line's side of `spraylab shell` that is inside the sandbox."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from emulator import vigil
from emulator.faults import Reaction
from emulator.meters.meters import Sampler
from emulator.nic import at_work
from emulator.order import FabricOrder
from experiments.judge.evidence import Built
from experiments.runs.inside import described, fabric_of
from experiments.shell.commandline import run_shell
from traffic.schemes import scheme_of


def perform_shell(
    order: FabricOrder,
    seed: int,
    scheme: str,
    reaction: Reaction | None,
    surroundings: Mapping[str, str],
    terminal: int,
    lines: Sequence[str] | None,
) -> Iterator[Built | None]:
    """Runs in the sandbox; see `run_shell`. Raises EmulatorError.

    `surroundings` are the environment variables of what the user types.
    """
    applied = scheme_of(scheme)
    with vigil.kept():
        fabric = fabric_of(order, seed)
        protected = reaction is not None and reaction.local
        fabric.program(seed, forwarding=applied.switch, protected=protected)
        sampler = Sampler(fabric, sys.stderr)

    with at_work(applied.program_nic, fabric, seed):
        yield described(fabric)
        os.environ.update(surroundings)  # the hosts' shells inherit them; what we start, `emulator.inherited`
        with vigil.kept():
            run_shell(fabric, sampler, reaction, seed, terminal, lines)
    yield None
