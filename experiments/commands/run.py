"""`spraylab run`: an experiment, replayed and answered."""

from __future__ import annotations

import click

from experiments.commands.common import BAD_INPUT, How, end, foot, performs_runs, read_experiment, set_option


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
@click.argument("experiment", required=False)
@set_option
@performs_runs("NAME", dry_run="the runs, with bounds and likely durations in seconds")
def run(experiment: str | None, overrides: tuple[str, ...], how: How) -> None:
    """Run an experiment and say what came of it.

    EXPERIMENT is a YAML file, or a name of the catalog such as quick. Every collective in it is replayed under every
    scheme with every seed; each run is measured, and has fidelity pass only if its numbers can be trusted. At the end
    come the medians of those that can, and one sentence: ECMP is enough, or splitting is, or spraying pays. That
    takes trust in two thirds of all runs, and per collective and scheme in two seeds (in the one, if there is one).

    Asks sudo for root. Everything privileged happens in private namespaces that are gone when the command ends, however
    it ends. Results are written after every run, and are yours.

    \b
    Examples:
      spraylab run quick
      spraylab run quick --set fabric.spines=8 --set 'seeds=[1]'
      spraylab run my.yaml --out results/mine
      spraylab run --resume results/mine
      spraylab run quick --within 10% --fail-on spraying-pays
    """
    from experiments.commands.output import Console
    from experiments.commands.performing import perform
    from experiments.results.folder import ResultsFolder
    from experiments.runs.loads.replays import Replays
    from experiments.spec.experiment import restore_experiment

    folder = None
    if how.resume:
        if experiment or overrides or how.out:
            raise click.UsageError(
                "--resume takes everything from its folder: give no experiment, --set or --out with it"
            )
        folder = ResultsFolder.open(how.resume)
        if "program" in folder.manifest():
            end(f"{how.resume} was begun by exec: go on with spraylab exec --resume {how.resume}", BAD_INPUT)
        work = Replays(restore_experiment(folder.manifest()["experiment"], str(how.resume / "manifest.json")))
    elif experiment:
        work = Replays(read_experiment(experiment, overrides))
    else:
        raise click.UsageError("name an experiment, such as: spraylab run quick")
    perform(work, Console(), how, folder)
