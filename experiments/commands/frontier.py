"""`spraylab frontier`: where a single path with splitting stops being enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.commands.common import Share, complete_experiments, foot, read_experiment, set_option

if TYPE_CHECKING:
    from experiments.runs.frontier import Frontier


@click.command(epilog=foot({"0": "done", "2": "bad input, or a file cannot be written"}))
@click.argument("experiment", shell_complete=complete_experiments)
@set_option
@click.option("--axis", required=True, metavar="KEY", help="The key to search along, by its path, as in strain.jitter")
@click.option("--from", "from_", default="0", show_default=True, metavar="VALUE", help="The least value to try")
@click.option("--to", default="100%", show_default=True, metavar="VALUE", help="The largest, in the unit of them all")
@click.option(
    "--within",
    type=Share(),
    default="5%",
    show_default=True,
    metavar="SHARE",
    help="How much longer splitting may take and not be behind",
)
@click.option(
    "--most-seeds",
    type=click.IntRange(11, 1000),
    default=40,
    show_default=True,
    help="Seeds at one value after which it is left undecided",
)
@click.option("--predict", is_flag=True, help="Ask the fluid model; the only way so far")
@click.option(
    "--csv",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a row for every seed at every value that was tried",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Write frontier-1.svg and so on there, a figure a collective",
)
def frontier(
    experiment: str,
    overrides: tuple[str, ...],
    axis: str,
    from_: str,
    to: str,
    within: float,
    most_seeds: int,
    *,
    predict: bool,
    csv: Path | None,
    figures: Path | None,
) -> None:
    """Find where splitting falls behind spraying.

    EXPERIMENT is a YAML file, or a name of the catalog. Of each collective, the values of one key are searched for the
    first from which on the median over seeds of ethereal's time over spray's is more than 5 % above 1: five values of a
    grid, upwards, then six more between the last that is not and the first that is. At each, seeds are added until the
    side is certain. The interval holds the crossing with 95 % confidence, if there is one between its ends.

    \b
    Examples:
      spraylab frontier quick --predict --axis strain.sizes.spread --to 90%
      spraylab frontier quick --predict --axis strain.jitter.share --to 20%
    """
    import pandas as pd
    from rich.console import Console

    from experiments.results.folder import write_file
    from experiments.runs import frontier as search

    if not predict:
        raise click.UsageError("give --predict: frontiers are found by theory")
    console = Console()
    along = search.Axis.of(axis, from_, to)
    found = []
    with console.status("searching"):
        asked = search.frontiers(
            read_experiment(experiment, overrides), along, within, search.predicted, most_seeds=most_seeds
        )
        for each in asked:
            found.append(each)
            console.print(f"Predicted: {each}", highlight=False, markup=False)
    if csv:
        write_file(csv, pd.DataFrame([row for each in found for row in each.rows]).to_csv(index=False))
        console.print(f"written: {csv}", highlight=False, soft_wrap=True)
    if figures:
        _draw(found, figures)
        console.print(f"figures: {figures}", highlight=False, soft_wrap=True)


def _draw(found: Sequence[Frontier], folder: Path) -> None:
    from experiments.results import plots
    from experiments.results.curves import draw_frontier
    from experiments.results.folder import write_file

    for number, each in enumerate(found, start=1):
        unit = f" ({each.axis.unit})" if each.axis.unit else ""
        figure = draw_frontier(each.traffic, f"{each.axis.key}{unit}", 1 + each.within, {"predicted": each.found})
        write_file(folder / f"frontier-{number}.svg", plots.as_file(plots.to_svg(figure, f"frontier-{number}")))
