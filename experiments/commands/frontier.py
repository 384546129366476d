"""`spraylab frontier`: where a single path with splitting stops being enough."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from experiments.commands.common import (
    BAD_INPUT,
    become_root,
    complete_experiments,
    end,
    foot,
    read_experiment,
)
from experiments.commands.options import FILE, FOLDER, Share, count_option, quiet_option, set_option

if TYPE_CHECKING:
    from emulator.files import Folder
    from experiments.commands.output import Console
    from experiments.results.folder import ResultsFolder
    from experiments.runs.frontier import Axis, Frontier, Measure, Times
    from experiments.runs.loads.replays import Replays
    from experiments.spec.experiment import Experiment


def _within(number: int, span: tuple[int, int]) -> bool:
    return span[0] <= number <= span[1]


Series = Mapping[str, "Sequence[Frontier]"]
"""The frontiers of all traffic, by how they were found: predicted, emulated."""

Find = Callable[["Measure"], "Iterator[Frontier]"]
"""The search for all frontiers by a measure."""

_SEEDS, _HALVINGS = (11, 1000), (0, 20)
_WITH_RESUME = ("resume", "dry_run", "csv", "figures", "quiet")
_SETUP_S = 2.0  # of a fabric, anew for each question of the search


@dataclass(frozen=True)
class _Asked:
    """What to search, as the command has it and a manifest keeps it."""

    axis: str
    from_: str
    to: str
    within: float
    most_seeds: int
    halvings: int

    @classmethod
    def of(cls, folder: ResultsFolder) -> _Asked:
        """What a folder was begun with; ends the command where that is no frontier."""
        kept = folder.manifest().get("frontier")
        if kept is None:
            end(f"{folder.path} was not begun by frontier: go on with spraylab run --resume {folder.path}", BAD_INPUT)
        kinds = {"str": str, "int": int, "float": float | int}
        known = isinstance(kept, dict) and all(isinstance(kept.get(f.name), kinds[str(f.type)]) for f in fields(cls))
        asked = cls(**{field.name: kept[field.name] for field in fields(cls)}) if known else None
        if not asked or not (_within(asked.most_seeds, _SEEDS) and _within(asked.halvings, _HALVINGS)):
            end(f"{folder.path / 'manifest.json'}: frontier is not as spraylab writes it", BAD_INPUT)
        return asked


@click.command(
    epilog=foot(
        {"0": "done", "1": "the fabric could not be built", "2": "bad input, or a file cannot be written"},
        {
            "DIR/manifest.json": "the experiment, the search, machine and versions",
            "DIR/runs.csv": "a row a run, as run has it",
            "DIR/frontier.csv": "a row for every seed at every value that was tried",
            "DIR/figures/": "frontier-1.svg and so on, a figure a collective",
        },
    )
)
@click.argument("experiment", required=False, shell_complete=complete_experiments)
@set_option
@click.option("--axis", metavar="KEY", help="The key to search along, by its path, as in strain.jitter")
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
@count_option("--most-seeds", *_SEEDS, default=40, help="Seeds at one value after which it is left undecided")
@count_option(
    "--halvings",
    *_HALVINGS,
    default=6,
    help="How many values to try within the stretch of the grid that holds the crossing",
)
@click.option("--predict", is_flag=True, help="Ask the fluid model alone, and build nothing")
@click.option("--dry-run", is_flag=True, help="Print what is predicted and how long the emulation may take, and stop")
@click.option("--out", type=FOLDER, metavar="DIR", help="Results folder, new")
@click.option("--resume", type=FOLDER, metavar="DIR", help="Go on with the search of DIR, by the runs it has")
@click.option("--csv", type=FILE, metavar="FILE", help="Write a row for every seed at every value that was tried")
@click.option(
    "--figures",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Write frontier-1.svg and so on there, a figure a collective",
)
@quiet_option
def frontier(
    experiment: str | None,
    overrides: tuple[str, ...],
    axis: str | None,
    *,
    predict: bool,
    dry_run: bool,
    out: Path | None,
    resume: Path | None,
    csv: Path | None,
    figures: Path | None,
    quiet: bool,
    **numbers: str | float,
) -> None:
    """Find where splitting falls behind spraying.

    EXPERIMENT is a YAML file, or a name of the catalog. Of each collective, the values of one key are searched for the
    first from which on the median over seeds of ethereal's time over spray's is more than 5 % above 1: five values of a
    grid, upwards, then six more between the last that is not and the first that is. At each, seeds are added until the
    side is certain. The interval holds the crossing with 95 % confidence, if there is one between its ends.

    The fluid model is asked first. Without --predict, the same search is then made with emulated runs, of which only
    trusted ones count; it begins where the crossing is predicted. That asks sudo for root, as run does.

    \b
    Examples:
      spraylab frontier quick --predict --axis strain.sizes.spread --to 90%
      spraylab frontier quick --predict --axis strain.jitter.share --to 20%
      spraylab frontier quick --axis strain.jitter.share --to 20% --halvings 2
      spraylab frontier --resume results/quick-frontier-...
    """
    from emulator.files import Folder
    from experiments.commands.output import Console
    from experiments.runs.frontier import Axis

    folder, asked, searched = _begun_before(resume) if resume else _new(experiment, overrides, axis, numbers)
    console, along = Console(quiet=quiet), Axis.of(asked.axis, asked.from_, asked.to)
    find = _finder(searched, along, asked)
    if not predict:
        _check(searched, along)
        _become_root(console, dry_run=dry_run)
    series, find = _predicted(find, console)
    if dry_run and not predict:
        _say_how_long(find, console)
    elif not predict:
        folder = folder or _begun(out, searched, asked, experiment)
        series["emulated"] = _emulated(find, folder, console)
        _keep(series, folder, console)
    _write(series, csv, Folder(figures) if figures else None, console)


def _check_alone() -> None:
    """Raises UsageError for what DIR has of its own, or what would change the search that was begun there."""
    context = click.get_current_context()
    for option in context.command.params:
        name = str(option.name)
        if name not in _WITH_RESUME and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            given = option.opts[0] if isinstance(option, click.Option) else "an experiment"
            raise click.UsageError(f"--resume goes on with its folder's search as it was begun: leave out {given}")


def _new(
    experiment: str | None, overrides: tuple[str, ...], axis: str | None, numbers: Mapping[str, Any]
) -> tuple[None, _Asked, Experiment]:
    """What the command asks for, of which there is no folder yet."""
    if experiment is None:
        raise click.UsageError("name an experiment, such as: spraylab frontier quick --axis strain.jitter")
    if axis is None:
        raise click.UsageError("name the key to search along, such as --axis strain.jitter")
    return None, _Asked(axis=axis, **numbers), read_experiment(experiment, overrides)


def _begun_before(path: Path) -> tuple[ResultsFolder, _Asked, Experiment]:
    """The folder to go on with, and what it was begun with."""
    from experiments.results.folder import ResultsFolder
    from experiments.results.inputs import restored

    _check_alone()
    folder = ResultsFolder.open(path)
    return folder, _Asked.of(folder), restored(folder)


def _become_root(console: Console, *, dry_run: bool) -> None:
    if not dry_run:
        become_root()
        console.go_on("the search goes on without it")


def _finder(experiment: Experiment, along: Axis, asked: _Asked) -> functools.partial[Iterator[Frontier]]:
    """The search, which still takes a measure."""
    from experiments.runs.frontier import frontiers

    return functools.partial(
        frontiers, experiment, along, asked.within, most_seeds=asked.most_seeds, halvings=asked.halvings
    )


def _check(experiment: Experiment, along: Axis) -> None:
    """Raises SpecError for what cannot be emulated at either end of the axis."""
    from experiments.runs.loads.replays import Replays

    for number in (along.low, along.high):
        work = Replays(along.point(experiment.model_copy(update={"sweep": None}), number).experiment)
        work.check_emulable()
        work.check_kernel()


def _predicted(
    find: functools.partial[Iterator[Frontier]], console: Console
) -> tuple[dict[str, Sequence[Frontier]], functools.partial[Iterator[Frontier]]]:
    """What theory says, printed as it is found; and the search that begins where it says."""
    from experiments.runs.frontier import predicted

    with console.waiting(lambda: "asking theory"):
        found = _told("Predicted", find(predicted), console)
    return {"predicted": found}, functools.partial(find, expected=found)


def _told(how: str, found: Iterator[Frontier], console: Console) -> list[Frontier]:
    """Print each as it is found."""
    frontiers = []
    for each in found:
        console.say(f"{how}: {each}")
        frontiers.append(each)
    return frontiers


def _say_how_long(find: Find, console: Console) -> None:
    """What the emulation takes if its runs are as theory says."""
    from experiments.runs.frontier import predicted

    times_s: list[float] = []

    def asked(work: Replays) -> Times:
        times_s.append(work.total_estimate_s() + _SETUP_S)
        return predicted(work)

    list(find(asked))
    console.say(f"about {sum(times_s):.0f} s if runs are as predicted, longer where seeds differ; nothing was built")


def _begun(out: Path | None, experiment: Experiment, asked: _Asked, name: str | None) -> ResultsFolder:
    """A new folder, with a copy of the file that the experiment was read from, if `name` names one."""
    from experiments.results.folder import default_path
    from experiments.results.inputs import begun
    from experiments.results.manifest import manifest
    from experiments.runs.frontier import pair_of
    from experiments.spec.experiment import experiment_file

    file = experiment_file(name) if name else None
    compared = experiment.model_copy(update={"schemes": pair_of(experiment)})
    about = {**manifest(compared, asked.within), "frontier": asdict(asked)}
    return begun(out or default_path(f"{experiment.name}-frontier"), about, compared, file)


def _emulated(find: Find, folder: ResultsFolder, console: Console) -> list[Frontier]:
    """Search by runs: perform those of each question that `folder` lacks, and count what can be trusted."""
    from experiments.commands.performing import conduct
    from experiments.runs.frontier import measured

    def measure(work: Replays) -> Times:
        work.check_emulable()
        conduct(work, folder, console)
        return measured(work, folder.runs())

    try:
        return _told("Emulated", find(measure), console)
    except BaseException:
        console.say(f"go on with: spraylab frontier --resume {folder.path}")
        raise


def _keep(series: Series, folder: ResultsFolder, console: Console) -> None:
    """Say how theory and emulation compare, and write both into the folder."""
    from experiments.runs.frontier import compared

    for pair in zip(*series.values(), strict=True):
        console.say(compared(*pair), "bold")
    _write(series, folder.path / "frontier.csv", folder.inner("figures"), console)
    console.say(f"results: {folder.path}")


def _write(series: Series, csv: Path | None, figures: Folder | None, console: Console) -> None:
    import pandas as pd

    from experiments.results.cells import guarded
    from experiments.results.folder import write_file

    if csv:
        rows = [{"how": how, **row} for how, found in series.items() for each in found for row in each.rows]
        write_file(csv, guarded(pd.DataFrame(rows)).to_csv(index=False))
        console.say(f"written: {csv}")
    if figures:
        _draw(series, figures)
        console.say(f"figures: {figures.path}")


def _draw(series: Series, folder: Folder) -> None:
    from experiments.results import plots
    from experiments.results.curves import draw_frontier
    from experiments.results.folder import write_in
    from experiments.results.svg import as_file

    for number, of_one in enumerate(zip(*series.values(), strict=True), start=1):
        each = of_one[0]
        unit = f" ({each.axis.unit})" if each.axis.unit else ""
        searches = {how: one.found for how, one in zip(series, of_one, strict=True)}
        figure = draw_frontier(each.traffic, f"{each.axis.key}{unit}", 1 + each.within, searches)
        write_in(folder, f"frontier-{number}.svg", as_file(plots.to_svg(figure, f"frontier-{number}")))
