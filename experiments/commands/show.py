"""`spraylab show`: what came of a results folder, or what is in a file of the catalog."""

from __future__ import annotations

from pathlib import Path

import click

from experiments.commands.common import BAD_INPUT, complete_experiments, end, foot, within_option


@click.command(epilog=foot({"0": "done", "2": "WHAT is neither a results folder nor a name of the catalog"}))
@click.argument("what", shell_complete=complete_experiments)
@within_option
def show(what: str, within: float | None) -> None:
    """Show the answer of a results folder again.

    WHAT is a results folder: its table, what cannot be trusted or did not finish, and its sentences, as `run` printed
    them at its end. Or WHAT is a name of the catalog: its file. Writes nothing, and needs no root.

    \b
    Examples:
      spraylab show results/mine
      spraylab show results/mine --within 10%
      spraylab show quick
    """
    from experiments.spec.experiment import CATALOG, catalog_names
    from experiments.spec.messages import meant

    if what in catalog_names():
        if within is not None:
            end(
                f"--within: {what} is an experiment of the catalog, which has no verdict; name a results folder",
                BAD_INPUT,
            )
        click.echo((CATALOG / f"{what}.yaml").read_text(), nl=False)
        return
    if not Path(what).is_dir():
        names = catalog_names()
        end(
            f"{what}: neither a results folder nor a name of the catalog ({', '.join(names)}){meant(what, names)}",
            BAD_INPUT,
        )
    from experiments.commands.output import Console
    from experiments.commands.performing import tell
    from experiments.results.folder import ResultsFolder

    tell(ResultsFolder.open(Path(what)), Console(), within)
