"""The commands that put people and their programs on the fabric: `exec` and `shell`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from experiments.commands.common import INTERRUPTED, become_root, foot, in_help, read_experiment, set_option
from traffic.schemes import FAMILIES, clauses_for_programs, names_for_programs, names_of_role


@click.command(
    "exec",
    epilog=foot(
        {
            "0": "it was 0 on all hosts, in every run",
            "1": "the fabric could not be built",
            "2": "bad input, or DIR cannot be written",
            "124": "the program ran out of time",
            "other": "that of the first host whose program failed",
        },
        {
            "DIR/programs.csv": "a row a run; columns in _s are seconds",
            "DIR/output/RUN/h1.log": "what h1 wrote, its first 10 MB; so for every host",
            "DIR/manifest.json": "the experiment, command, machine and versions",
            "DIR/run.log": "what the emulation and its daemons said",
        },
    ),
)
@click.argument("experiment")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True, metavar="-- COMMAND...")
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
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Results folder, new  [default: results/NAME-exec-TIME]",
)
@in_help(clauses=clauses_for_programs(), families=" and ".join(family.name for family in FAMILIES))
def exec_(
    experiment: str,
    command: tuple[str, ...],
    overrides: tuple[str, ...],
    hosts: str | None,
    timeout: str,
    out: Path | None,
) -> None:
    """Run an unmodified program on an experiment's fabric.

    One process on every host, under each scheme and seed of EXPERIMENT, a YAML file or a name of the catalog. What
    follows -- is the program's. The experiment's traffic is left aside; its schemes are applied by the hosts' NICs:
    {clauses}. What {families} does only the program itself could do: it is left out.

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
    """
    from rich.console import Console
    from rich.markup import escape

    from experiments.results.folder import ResultsFolder, default_path
    from experiments.runs.outside import manifest
    from experiments.runs.programs import conclusion, conduct_programs, parse_hosts, plan_programs, table
    from experiments.spec.experiment import SpecError
    from experiments.spec.units import parse_time_s

    console = Console()
    loaded = read_experiment(experiment, overrides)
    try:
        timeout_s = parse_time_s(timeout)
    except ValueError as error:
        raise SpecError(f"--timeout: {error}") from error
    where = parse_hosts(hosts, loaded.fabric.topology())
    if shutil.which(command[0]) is None:
        raise SpecError(f"{command[0]}: no such program; name one on the PATH, or by its path")
    jobs, left_out = plan_programs(loaded, command, where, timeout_s)
    become_root()
    if left_out:
        console.print(
            f"left out: {', '.join(left_out)}, as an unmodified program's connections cannot be split", highlight=False
        )
    about = {**manifest(loaded), "program": {"command": list(command), "hosts": where, "timeout_s": timeout_s}}
    folder = ResultsFolder.create(out or default_path(f"{loaded.name}-exec"), about)
    rows: list[dict[str, Any]] = []
    interrupted = False
    try:
        conduct_programs(loaded, jobs, folder, console, rows)
    except KeyboardInterrupt:
        interrupted = True
    if rows:
        console.print(table(rows))
    for row in rows:
        if row["fidelity_reasons"]:
            reasons = row["fidelity_reasons"]
            console.print(f"[red]{row['run_id']}: fidelity fail:[/red] {reasons}", highlight=False, soft_wrap=True)
    console.print(escape(conclusion(rows, jobs)), style="bold", highlight=False)
    console.print(f"results: {folder.path}", highlight=False, soft_wrap=True)
    if interrupted:
        click.echo("spraylab: interrupted; everything started is gone again", err=True)
        sys.exit(INTERRUPTED)
    if rows[-1]["exit_status"]:
        not_run = f"; {len(jobs) - len(rows)} runs were not started" if len(rows) < len(jobs) else ""
        click.echo(f"spraylab: {rows[-1]['run_id']}: {rows[-1]['failure']}{not_run}", err=True)
        sys.exit(rows[-1]["exit_status"])


@click.command(epilog=foot({"0": "done", "1": "the fabric could not be built"}))
@click.argument("experiment")
@set_option
@click.option(
    "--scheme",
    default=names_of_role("plain")[0],
    show_default=True,
    metavar="NAME",
    help=f"What hosts' NICs do to each packet or connection: {names_for_programs()}",
)
def shell(experiment: str, overrides: tuple[str, ...], scheme: str) -> None:
    """Talk to a running fabric: Mininet's command line.

    On the fabric of EXPERIMENT, a YAML file or a name of the catalog, with its first seed. As in Mininet,
    `h1 ping -c1 h5` runs a command on a host; `links`, `queues` and `paths h1 h9` show the fabric, and `help` lists all
    commands. They may also come from a pipe, one a line. Asks sudo for root. `exit` or Ctrl-D ends it, and the fabric
    with it; nothing is written.

    \b
    Examples:
      spraylab shell quick
      spraylab shell --scheme spray quick
      echo 'h1 ping -c1 h5' | spraylab shell quick
    """
    from experiments.shell.terminal import converse

    loaded = read_experiment(experiment, overrides)
    become_root()
    converse(loaded, scheme)
