"""The command line's side of `spraylab shell` that is inside the sandbox."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from emulator.meters.meters import Sampler
from emulator.nic import at_work
from emulator.order import FabricOrder
from experiments.judge.evidence import Built
from experiments.runs.inside import described, fabric_of
from experiments.shell.commandline import run_shell
from traffic.schemes import scheme_of


def perform_shell(
    order: FabricOrder, seed: int, scheme: str, terminal: int, lines: Sequence[str] | None
) -> Iterator[Built | None]:
    """Runs in the sandbox; see `run_shell`. Raises EmulatorError."""
    fabric = fabric_of(order, seed)
    applied = scheme_of(scheme)
    fabric.program(seed, forwarding=applied.switch)
    sampler = Sampler(fabric, sys.stderr)
    with at_work(applied.program_nic, fabric, seed):
        yield described(fabric)
        run_shell(fabric, sampler, seed, terminal, lines)
    yield None
