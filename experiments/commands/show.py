"""`spraylab show`: what came of a results folder, or what is in a file of the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.commands.common import BAD_INPUT, complete_experiments, end, foot
from experiments.commands.options import within_option
from experiments.commands.streams import echo

if TYPE_CHECKING:
    import pandas as pd


@click.command(epilog=foot({"0": "done", "2": "WHAT is neither a results folder nor a name of the catalog"}))
@click.argument("what", shell_complete=complete_experiments)
@within_option
@click.option(
    "--table",
    "form",
    type=click.Choice(["nccl", "nccl-json"]),
    help="Print collectives as nccl-tests does, or as it writes them with -J, and nothing else",
)
def show(what: str, within: float | None, form: str | None) -> None:
    """Show the answer of a results folder again.

    WHAT is a results folder: its table, what cannot be trusted or did not finish, and its sentences, as `run` printed
    them at its end. Or WHAT is a name of the catalog: its file. Writes nothing, and needs no root.

    \b
    Examples:
      spraylab show results/mine
      spraylab show results/mine --within 10%
      spraylab show results/mine --table nccl
      spraylab show quick
    """
    from emulator.caller import as_caller
    from experiments.spec.experiment import CATALOG, catalog_names
    from experiments.spec.messages import meant

    if what in catalog_names():
        for option, given, what_of in (("--within", within, "verdict"), ("--table", form, "results")):
            if given is not None:
                whose = f"{option}: {what} is an experiment of the catalog, which has no {what_of}"
                end(f"{whose}; name a results folder", BAD_INPUT)
        click.echo((CATALOG / f"{what}.yaml").read_text(), nl=False)
        return
    with as_caller():
        there = Path(what).is_dir()
    if not there:
        names = catalog_names()
        end(
            f"{what}: neither a results folder nor a name of the catalog ({', '.join(names)}){meant(what, names)}",
            BAD_INPUT,
        )
    from experiments.commands.output import Console
    from experiments.commands.performing import tell
    from experiments.results.folder import ResultsFolder

    folder = ResultsFolder.open(Path(what))
    if form:
        _print_nccl(folder.runs(), folder.manifest(), form)
    else:
        tell(folder, Console(), within)


def _print_nccl(runs: pd.DataFrame, manifest: Mapping[str, Any], form: str) -> None:
    import json

    from experiments.results.nccl import as_json, as_table

    echo(as_table(runs) if form == "nccl" else json.dumps(as_json(runs, manifest), indent=1))
