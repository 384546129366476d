"""`spraylab bench`: spraylab itself, measured on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.commands.common import become_root, foot
from experiments.commands.options import FILE, quiet_option

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class _Benchmark:
    """A module of `experiments.machine.benchmarks` whose `run` returns rows."""

    says: str
    root: bool = True


BENCHMARKS = {
    "accuracy": _Benchmark("emulated times over predicted, for many kinds of traffic"),
    "predict": _Benchmark("how time and memory of predictions grow with hosts", root=False),
    "decode": _Benchmark("packets decoded a second, beside tshark, dpkt and scapy", root=False),
    "setup": _Benchmark("seconds until a fabric is up, beside plain Mininet's"),
    "capacity": _Benchmark("the most traffic that each data plane carries faithfully"),
    "captures": _Benchmark("completion times with packet captures and without"),
    "bursts": _Benchmark("what it costs in truth to have frames travel together"),
    "sweep": _Benchmark("what a run takes longer on the workers of a Dask cluster"),
    "replay": _Benchmark("CPU seconds a gigabyte, and how they grow with hosts"),
}
_BROKEN = {"predicted": "pre-\ndicted", "explained": "ex-\nplained", "emulated": "emu-\nlated"}
_LISTED = "\n".join(["\b", *(f"  {name:9} {benchmark.says}" for name, benchmark in BENCHMARKS.items())])
_ROOTLESS = " and ".join(name for name, benchmark in BENCHMARKS.items() if not benchmark.root)

_HELP = f"""Measure spraylab itself on this machine.

Prints a table whose numbers are to be compared with each other, never with a limit. Takes minutes; all but {_ROOTLESS}
ask sudo for root. NAME is one of:

{_LISTED}

\b
Examples:
  spraylab bench decode
  spraylab bench setup --json setup.json
"""


@click.command(help=_HELP, epilog=foot({"0": "done", "1": "a fabric could not be built"}))
@click.argument("name", type=click.Choice(list(BENCHMARKS)), metavar="NAME")
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write the rows as JSON as well")
@quiet_option
def bench(name: str, json_file: Path | None, *, quiet: bool) -> None:
    import importlib
    import json
    from itertools import groupby

    from experiments.commands.output import Console, to_stderr
    from experiments.results.folder import write_file

    if BENCHMARKS[name].root:
        become_root()
    with to_stderr(quiet=quiet).waiting(lambda: f"bench {name}: measuring"):
        rows = importlib.import_module(f"experiments.machine.benchmarks.{name}").run()
    console = Console()
    for _, alike in groupby(rows, key=lambda row: (tuple(row), row.get("case"))):
        console.show(_table(name, list(alike)))
    for reason in filter(None, (row.get("reasons") for row in rows)):
        console.say(f"not trusted: {reason}")
    if json_file:
        write_file(json_file, json.dumps(rows, indent=2, default=str) + "\n")


def _table(name: str, rows: list[dict[str, Any]]) -> Table:
    """What is the same in all rows is said once, above."""
    from experiments.results.tables import table_of_rows

    columns = [column for column in rows[0] if column != "reasons"]
    words = [[_in_words(row[column]) for column in columns] for row in rows]
    same = [len(rows) > 1 and len(set(column)) == 1 for column in zip(*words, strict=True)]
    said = ", ".join(f"{name} {word}" for name, word, alike in zip(columns, words[0], same, strict=True) if alike)
    shown = [column for column, alike in zip(columns, same, strict=True) if not alike] or columns[:1]
    lines = [[_in_words(row[column]) for column in shown] for row in rows]
    left = [column for column in shown if isinstance(rows[0][column], str)] or shown[:1]
    widest = max(left, key=lambda column: max(len(_in_words(row[column])) for row in rows))
    return table_of_rows(
        f"bench {name}" + (f": {said}" if said else ""),
        [_heading(column) for column in shown],
        lines,
        left=[_heading(column) for column in left],
        gives_way=shown.index(widest),
    )


def _heading(column: str) -> str:
    """A word a line, so that numbers may stand close; a long one is broken."""
    words = column.replace("_over_", "_/_").split("_")
    return "\n".join(_BROKEN.get(word, word) for word in words).replace("\n/", " /")


def _in_words(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
