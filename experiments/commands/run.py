"""`spraylab run`: an experiment, replayed and answered."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.commands.common import (
    BAD_INPUT,
    How,
    complete_experiments,
    end,
    foot,
    performs_runs,
    read_experiment,
)
from experiments.commands.options import set_option

if TYPE_CHECKING:
    from experiments.results.folder import ResultsFolder
    from experiments.runs.work import Work


@click.command(
    epilog=foot(
        {
            "0": "every run finished, and --fail-on had nothing to say",
            "1": "a run did not finish, or the fabric could not be built",
            "2": "bad input, or DIR cannot be read or written",
            "3": "every run finished, and what --fail-on names came true",
        },
        {
            "DIR/manifest.json": "the experiment, command, machine and versions",
            "DIR/inputs/": "EXPERIMENT and the files it names, as they were",
            "DIR/runs.csv": "a row a run; columns in _s are seconds, _bps bits/s",
            "DIR/verdict.json": "the outcome, overall and by collective, for programs",
            "DIR/failed_runs.csv": "runs that did not finish, if any, and why",
            "DIR/*.parquet/": "flows, links, queues ...: a file a run in each",
            "DIR/captures/": "packet headers, where EXPERIMENT has captures",
            "DIR/report.html": "the answer on a page; its figures in figures/",
            "DIR/run.log": "what the emulation and its daemons said",
        },
    )
)
@click.argument("experiments", nargs=-1, metavar="EXPERIMENT...", shell_complete=complete_experiments)
@set_option
@click.option("--watch", is_flag=True, help="Show links, queues and flows of the run that is under way, on a terminal")
@performs_runs("NAME", dry_run="the runs, with bounds and likely durations in seconds")
def run(experiments: tuple[str, ...], overrides: tuple[str, ...], how: How, *, watch: bool) -> None:
    """Run an experiment and say what came of it.

    EXPERIMENT is a YAML file, or a name of the catalog such as quick. Every collective in it is replayed under every
    scheme with every seed; each run is measured, and has fidelity pass only if its numbers can be trusted. At the end
    come the medians of those that can, and one sentence: ECMP is enough, or splitting is, or spraying pays. That
    takes trust in two thirds of all runs, and per collective and scheme in two seeds (in the one, if there is one).
    Several experiments are run one after another, each into a folder of its own.

    Asks sudo for root. Everything privileged happens in private namespaces that are gone when the command ends, however
    it ends. Results are written after every run, and are yours.

    \b
    Examples:
      spraylab run quick
      spraylab run quick --watch
      spraylab run quick --set fabric.spines=8 --set 'seeds=[1]'
      spraylab run my.yaml --out results/mine
      spraylab run --resume results/mine
      spraylab run one.yaml other.yaml
      spraylab run quick --within 10% --fail-on spraying-pays --junit junit.xml
    """
    from experiments.commands.output import Console
    from experiments.commands.performing import one_after_another, perform

    if watch and how.on:
        raise click.UsageError("--watch shows the fabric of this machine: give it without --on")
    folder, works = _begun_before(how.resume, experiments, overrides, how) if how.resume else (None, [])
    works = works or _new(experiments, overrides, how)
    console = Console(quiet=how.quiet)
    one_after_another(
        [functools.partial(perform, work, console, how, folder, file=file, watch=watch) for work, file in works]
    )


def _begun_before(
    resumed: Path, experiments: Sequence[str], overrides: Sequence[str], how: How
) -> tuple[ResultsFolder, list[tuple[Work, Path | None]]]:
    """The folder to go on with, and what it was begun with."""
    from experiments.results.folder import ResultsFolder
    from experiments.results.inputs import restored
    from experiments.runs.loads.sweeps import replay_work

    if experiments or overrides or how.out:
        raise click.UsageError("--resume takes everything from its folder: give no experiment, --set or --out with it")
    folder = ResultsFolder.open(resumed)
    for key, command in (("program", "exec"), ("frontier", "frontier")):
        if key in folder.manifest():
            end(f"{resumed} was begun by {command}: go on with spraylab {command} --resume {resumed}", BAD_INPUT)
    return folder, [(replay_work(restored(folder)), None)]


def _new(experiments: Sequence[str], overrides: Sequence[str], how: How) -> list[tuple[Work, Path | None]]:
    """What is to be performed, each with the file it is from: checked as far as it can be before the first begins."""
    from experiments.runs.loads.sweeps import replay_work
    from experiments.spec.experiment import experiment_file

    if not experiments:
        raise click.UsageError("name an experiment, such as: spraylab run quick")
    works: list[tuple[Work, Path | None]] = [
        (replay_work(read_experiment(name, overrides)), experiment_file(name)) for name in experiments
    ]
    for option, given, what in (("--out", how.out, "folder"), ("--junit", how.junit, "file")):
        if given and len(works) > 1:
            raise click.UsageError(f"{option} names one {what}: give it with one experiment, or none with several")
    for work, _ in works[1:]:
        work.check_emulable()  # nobody wants to hear of the last one's mistake when the first are done
        if not how.on:
            work.check_kernel()
    return works
