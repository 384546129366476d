"""The commands about this machine: `doctor`, `calibrate` and `bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.commands.common import FAILED, become_root, foot

if TYPE_CHECKING:
    from rich.table import Table

_BENCHMARKS = {
    **{"predict": False, "decode": False},
    **{"accuracy": True, "setup": True, "capacity": True, "captures": True, "bursts": True, "replay": True},
}
"""Modules of experiments/benchmarks, and whether each needs root."""


@click.command(epilog=foot({"0": "run can work here", "1": "run cannot work here"}))
@click.option("--json", "as_json", is_flag=True, help="Print works (true or false) and the findings as JSON")
def doctor(as_json: bool) -> None:
    """Check whether this machine can emulate, and what it lacks.

    Every line is ok, degraded (with what is lost) or missing (with the command that mends it). As root, what the kernel
    can do is tried inside a sandbox; without, it is read from what the kernel says of itself. Changes nothing.

    \b
    Examples:
      spraylab doctor
      spraylab doctor --json
    """
    import json

    from rich.console import Console

    from emulator.doctor import diagnose as examination

    findings = examination.diagnose()
    if as_json:
        click.echo(json.dumps(examination.as_json(findings), indent=2))
    else:
        Console().print(examination.render(findings))
    sys.exit(0 if examination.works(findings) else FAILED)


@click.command(
    epilog=foot(
        {"0": "done", "1": "a fabric could not be built"},
        {"~/.local/state/spraylab/calibration.json": "the rates, for this machine"},
    )
)
@click.option(
    "--hosts",
    type=click.Choice(["16", "32", "64", "128"]),
    multiple=True,
    default=["16"],
    show_default=True,
    help="Hosts of the fabric; may be repeated",
)
@click.option(
    "--dataplane",
    type=click.Choice(["ovs", "linux"]),
    multiple=True,
    help="What forwards packets; may be repeated  [default: all there are]",
)
@click.option(
    "--burst",
    type=click.IntRange(1, 7),
    default=1,
    show_default=True,
    help="How many frames of 9000 bytes travel as one, as in an experiment's fabric.burst",
)
def calibrate(hosts: tuple[str, ...], dataplane: tuple[str, ...], burst: int) -> None:
    """Find how fast links may be for this machine to be faithful.

    For every data plane and number of hosts: the highest link rate, to within 15 %, at which a permutation that keeps
    all links busy comes within 5 % of its bound with fidelity pass, twice. `run` then warns of experiments beyond it,
    and rates of auto follow it. Asks sudo for root. Takes minutes; leave the machine alone meanwhile.

    \b
    Examples:
      spraylab calibrate
      spraylab calibrate --hosts 16 --hosts 64 --dataplane linux
    """
    from rich.console import Console

    from experiments.machine import calibration
    from experiments.machine.calibrate import calibrate as measure
    from experiments.machine.calibrate import table

    become_root()
    found = measure([int(count) for count in hosts], list(dataplane) or None, burst, say=click.echo)
    Console().print(table(found))
    click.echo(f"kept in {calibration.save(found)}")


@click.command(epilog=foot({"0": "done", "1": "a fabric could not be built"}))
@click.argument("name", type=click.Choice(list(_BENCHMARKS)), metavar="NAME")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the rows as JSON as well",
)
def bench(name: str, json_file: Path | None) -> None:
    """Measure spraylab itself on this machine.

    Prints a table whose numbers are to be compared with each other, never with a limit. Takes minutes; all but predict
    and decode ask sudo for root. NAME is one of:

    \b
      accuracy  emulated times over predicted, for all kinds of traffic
      predict   how time and memory of predictions grow with hosts
      decode    packets decoded a second, beside tshark, dpkt and scapy
      setup     seconds until a fabric is up, beside plain Mininet's
      capacity  the most traffic that each data plane carries faithfully
      captures  completion times with packet captures and without
      bursts    what it costs in truth to have frames travel together
      replay    CPU seconds a gigabyte, and how they grow with hosts

    \b
    Examples:
      spraylab bench decode
      spraylab bench setup --json setup.json
    """
    import importlib
    import json
    from itertools import groupby

    from rich.console import Console

    from experiments.results.folder import write_file

    if _BENCHMARKS[name]:
        become_root()
    rows = importlib.import_module(f"experiments.machine.benchmarks.{name}").run()
    console = Console()
    for _, alike in groupby(rows, key=tuple):
        console.print(_table(name, list(alike)))
    for reason in filter(None, (row.get("reasons") for row in rows)):
        console.print(f"not trusted: {reason}", highlight=False)
    if json_file:
        write_file(json_file, json.dumps(rows, indent=2, default=str) + "\n")


def _table(name: str, rows: list[dict[str, Any]]) -> Table:
    """What is the same in all rows is said once, above."""
    from rich import box
    from rich.table import Table

    columns = [column for column in rows[0] if column != "reasons"]
    words = [[_in_words(row[column]) for column in columns] for row in rows]
    same = [len(rows) > 1 and len(set(column)) == 1 for column in zip(*words, strict=True)]
    said = ", ".join(f"{name} {word}" for name, word, alike in zip(columns, words[0], same, strict=True) if alike)
    shown = Table(title=f"bench {name}" + (f": {said}" if said else ""), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column, alike in zip(columns, same, strict=True):
        if not alike:
            shown.add_column(column.replace("_", " "), overflow="fold")
            shown.columns[-1].justify = "left" if isinstance(rows[0][column], str) else "right"
    for line in words:
        shown.add_row(*(word for word, alike in zip(line, same, strict=True) if not alike))
    return shown


def _in_words(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
