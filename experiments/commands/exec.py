"""`spraylab exec`: an unmodified program on an experiment's fabric."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.commands.common import (
    How,
    Worded,
    complete_experiments,
    foot,
    performs_runs,
    read_experiment,
)
from experiments.commands.options import set_option

if TYPE_CHECKING:
    from experiments.results.folder import ResultsFolder
    from experiments.runs.loads.programs import Program
    from experiments.spec.experiment import Experiment


def _named(context: click.Context, _parameter: click.Parameter, command: tuple[str, ...]) -> tuple[str, ...]:
    """The program, which only --resume can do without."""
    if not command and not context.params.get("resume"):
        raise click.UsageError("name an experiment and a program, such as: spraylab exec quick -- hostname")
    return command


def _words() -> dict[str, str]:
    from traffic.schemes import clauses_for_programs, names_not_for_programs

    return {"clauses": clauses_for_programs(), "others": names_not_for_programs()}


@click.command(
    "exec",
    cls=Worded,
    words=_words,
    epilog=foot(
        {
            "0": "it was 0 on all hosts, in every run, and --fail-on had nothing to say",
            "1": "the fabric could not be built",
            "3": "what --fail-on names came true",
            "2": "bad input, or DIR cannot be written",
            "124": "the program ran out of time",
            "other": "that of the first host whose program failed",
        },
        {
            "DIR/output/RUN/h1.log": "what h1 wrote, its first 10 MB; so for every host",
            "the rest of DIR": "as of run: runs.csv, verdict.json, report.html ...",
        },
    ),
)
@click.argument("experiment", required=False, shell_complete=complete_experiments)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...", callback=_named)
@set_option
@click.option(
    "--hosts", metavar="LIST", help="Where to start it, in order of rank, as in h1,h5-h8  [default: every host]"
)
@click.option(
    "--timeout",
    default="600s",
    metavar="TIME",
    show_default=True,
    help="End a run after this time, such as 90s or 500ms",
)
@performs_runs("NAME-exec", dry_run="the runs and how long they may take")
def exec_(
    experiment: str | None,
    command: tuple[str, ...],
    overrides: tuple[str, ...],
    hosts: str | None,
    timeout: str,
    how: How,
) -> None:
    """Run an unmodified program on an experiment's fabric.

    One process on every host, under each scheme and seed of EXPERIMENT, a YAML file or a name of the catalog. What
    follows -- is the program's. The experiment's traffic is left aside; its schemes are applied by the hosts' NICs and
    by switches: {clauses}. Only the program itself could do what {others} do: they are left out.

    A process finds its place in RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, all
    addresses by rank in SPRAYLAB_HOSTS, and its own in SPRAYLAB_HOST, SPRAYLAB_ADDRESS and SPRAYLAB_INTERFACE. Hosts
    know each other by name (h1, h2, ...), and mpirun on one host starts ranks on all. Asks sudo for root: programs run
    as root inside the sandbox, and see your files. If the program fails on one host, it is ended on all (SIGTERM, and
    2 s later SIGKILL), and no further run is started. At the end come medians and one sentence: whether the program
    needs spraying, by how long it kept the fabric loaded.

    \b
    Examples:
      spraylab exec quick -- hostname
      spraylab exec quick --hosts h1,h5 -- sh -c 'ping -c 3 $MASTER_ADDR'
      spraylab exec quick --hosts h1 -- mpirun ./mpi_allreduce 1000000
      spraylab exec quick -- python3 gloo_allreduce.py --size 1000000
      spraylab exec --resume results/quick-exec-20260101-120000
    """
    from experiments.commands.output import Console
    from experiments.commands.performing import perform
    from experiments.runs.loads.programs import Program, Programs, parse_hosts
    from experiments.spec.experiment import experiment_file

    folder, file = None, None
    if how.resume and (experiment or command or overrides or hosts or how.out):
        raise click.UsageError("--resume takes everything from its folder: give nothing else of the kind with it")
    if how.resume:
        folder, loaded, program = _begun_before(how.resume)
    else:
        loaded, file = read_experiment(str(experiment), overrides), experiment_file(str(experiment))
        program = Program(command, parse_hosts(hosts, loaded.fabric.topology()), _timeout_s(timeout))
    _check_is_there(program.command[0])
    work, console = Programs(loaded, program), Console(quiet=how.quiet)
    if work.left_out:
        console.note(f"left out: {', '.join(work.left_out)}, as a program's connections cannot be split")
    about = {**program.as_json(), "schemes": list(work.schemes)}
    perform(work, console, how, folder, file=file, about={"program": about}, kind="-exec")


def _check_is_there(program: str) -> None:
    from experiments.spec.messages import SpecError

    if shutil.which(program) is None:
        raise SpecError(f"{program}: no such program; name one on the PATH, or by its path")


def _begun_before(resumed: Path) -> tuple[ResultsFolder, Experiment, Program]:
    """The folder to go on with, and what it was begun with."""
    from experiments.results.folder import ResultsFolder
    from experiments.results.inputs import restored
    from experiments.runs.loads.programs import Program

    folder = ResultsFolder.open(resumed)
    program = Program.restored(folder.manifest().get("program"), str(resumed / "manifest.json"))
    return folder, restored(folder), program


def _timeout_s(text: str) -> float:
    from experiments.spec.messages import SpecError
    from experiments.spec.units import parse_time_s

    try:
        return parse_time_s(text)
    except ValueError as error:
        raise SpecError(f"--timeout: {error}") from error
