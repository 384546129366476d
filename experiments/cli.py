"""The command line. Every error ends with one sentence; exit status 2: the command was wrong, nothing was built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.commands.captures import captures
from experiments.commands.common import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    REFUSED,
    Share,
    become_root,
    end,
    foot,
    read_experiment,
    set_option,
    within_option,
)
from experiments.commands.machine import bench, calibrate, doctor
from experiments.commands.programs import exec_, shell

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.runs.planner import Planner


class _Sentences(click.Group):
    """Turns the errors meant for people into sentences, and Ctrl-C into a status."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)  # as a newcomer meets them, not by the alphabet

    def invoke(self, context: click.Context) -> object:
        from emulator.errors import EmulatorError
        from experiments.results.folder import ResultsError
        from experiments.spec.experiment import SpecError

        try:
            return super().invoke(context)
        except (SpecError, ResultsError) as error:
            end(str(error), BAD_INPUT)
        except EmulatorError as error:
            end(str(error), FAILED)
        except KeyboardInterrupt:
            end("interrupted", INTERRUPTED)


@click.group(
    cls=_Sentences,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=foot({"0": "done", "1": "failed, or could not be built"}),
)
@click.version_option(package_name="spraylab", message="%(prog)s %(version)s", help="Show the version and exit.")
def main() -> None:
    """Does a training cluster need packet spraying?

    Emulates a leaf-spine fabric on this machine's own network stack, replays collectives over it under several
    load-balancing schemes, and says how close each came to the best that any could do, and which numbers can be
    trusted. What builds a fabric needs root, and asks sudo for it.

    \b
    Examples:
      spraylab doctor                 # can this machine do it?
      spraylab run quick              # the answer, in under three minutes
      spraylab run --help             # all about one command
    """


@main.command(
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
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Results folder, new  [default: results/NAME-TIME]"
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Do what DIR still lacks of its experiment; runs that did not finish are tried again",
)
@within_option
@click.option(
    "--fail-on",
    type=click.Choice(["fidelity", "spraying-pays"]),
    multiple=True,
    help="End with exit status 3 if a run fails fidelity, or if spraying pays or there is no verdict; may be repeated",
)
@click.option("--dry-run", is_flag=True, help="Print the runs, with bounds and likely durations in seconds, and stop")
def run(
    experiment: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: Path | None,
    within: float | None,
    fail_on: tuple[str, ...],
    dry_run: bool,
) -> None:
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
    from rich.console import Console

    from emulator.errors import EmulatorError
    from experiments.machine import calibration
    from experiments.results.folder import ResultsFolder, default_path
    from experiments.results.verdict import DEFAULT_WITHIN
    from experiments.runs.outside import answer, conduct, manifest, refusal
    from experiments.runs.planner import Planner
    from experiments.spec.experiment import restore_experiment

    console = Console()
    if resume:
        if experiment or overrides or out:
            raise click.UsageError(
                "--resume takes everything from its folder: give no experiment, --set or --out with it"
            )
        folder = ResultsFolder.open(resume)
        planner = Planner(restore_experiment(folder.manifest()["experiment"], str(resume / "manifest.json")))
    elif experiment:
        planner = Planner(read_experiment(experiment, overrides))
    else:
        raise click.UsageError("name an experiment, such as: spraylab run quick")
    planner.check_emulable()
    if warning := calibration.warning(planner.experiment):
        console.print(f"[yellow]warning:[/yellow] {warning}", highlight=False)
    if dry_run:
        _print_plan(planner, console)
        return
    become_root()
    if not resume:
        about = manifest(planner.experiment, DEFAULT_WITHIN if within is None else within)
        folder = ResultsFolder.create(out or default_path(planner.experiment.name), about)
    elif within is not None:
        folder.write_manifest({**folder.manifest(), "within": within})
    try:
        finished = conduct(planner, folder, console)
    except KeyboardInterrupt:
        answer(folder, planner, console)
        end("interrupted; everything built is gone again", INTERRUPTED)
    except EmulatorError:
        answer(folder, planner, console)
        raise
    verdict = answer(folder, planner, console)
    if not finished:
        sys.exit(FAILED)
    if refused := refusal(verdict, fail_on):
        end(refused, REFUSED)


@main.command(epilog=foot({"0": "done", "2": "bad input, or FILE cannot be written"}))
@click.argument("experiment")
@set_option
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Beside the predictions, show what the trusted runs of this results folder took",
)
@click.option(
    "--jitter",
    type=Share(),
    metavar="SHARE",
    help="Vary the flows' sizes by so much, such as 5% or 0.05, to find a range; 0 for none  [default: 5%, of traffic "
    "up to 5,000 flows or pieces of them]",
)
@click.option(
    "--csv",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write a row a run, in the columns of runs.csv; - is standard output, and the table goes to standard error",
)
def predict(
    experiment: str, overrides: tuple[str, ...], results: Path | None, jitter: float | None, csv: Path | None
) -> None:
    """Say what theory expects of an experiment, without emulating it.

    EXPERIMENT is a YAML file, or a name of the catalog. For every collective and scheme: the collective completion time
    (CCT) under ideal fair sharing, its ratio to the bound (the least time that any scheme could take), and the
    congestion ratio (the fullest link over the same under ideal spraying). Traffic too large for that has the
    congestion ratio alone. Needs no root.

    Flows that wait for each other may keep in step by their equal sizes alone. So each run is repeated 10 times with
    every flow's size varied at random, the same for the same seed, and a ratio that this changes is shown as a range.

    \b
    Examples:
      spraylab predict quick
      spraylab predict quick --jitter 1% --csv -
      spraylab predict scale-16x16 --csv predicted.csv
      spraylab predict quick --results results/quick-20250101-120000
    """
    import pandas as pd
    from rich.console import Console
    from rich.progress import track

    from experiments.results.folder import ResultsFolder, write_file
    from experiments.runs.planner import Planner
    from experiments.runs.predict import beside_results, prediction_table, predictions

    to_pipe = str(csv) == "-"
    console = Console(stderr=to_pipe)
    loaded = read_experiment(experiment, overrides)
    runs = ResultsFolder.open(results).runs() if results else None
    rows = track(
        predictions(loaded, jitter), "predicting", total=len(Planner(loaded).runs), console=console, transient=True
    )
    frame = pd.DataFrame(sorted(rows, key=lambda row: str(row["run_id"])))
    if runs is not None:
        frame = beside_results(frame, runs, str(results))
    console.print(prediction_table(frame))
    if to_pipe:
        click.echo(frame.to_csv(index=False), nl=False)
    elif csv:
        write_file(csv, frame.to_csv(index=False))
        console.print(f"written: {csv}", highlight=False, soft_wrap=True)


@main.command(
    epilog=foot(
        {"0": "done", "2": "bad input, or FILE cannot be written"},
        {
            "DIR/report.html": "the page of one folder; replaced if it is there",
            "DIR/figures/*.svg": "the figures of one folder",
            "DIR/verdict.json": "the outcome that the page of one folder has",
            "A-vs-B.html": "the page of two folders, in the current one",
        },
    )
)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR [DIR]")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The page  [default: see Files]"
)
@within_option
def report(folders: tuple[Path, ...], out: Path | None, within: float | None) -> None:
    """Write one page to hand to a colleague.

    From one results folder, or from two side by side: verdict, table, figures, settings, and how to repeat the run. The
    page is one file that needs no other. Needs no root; `run` writes one as it ends.

    \b
    Examples:
      spraylab report results/mine
      spraylab report results/before results/after --out compared.html
    """
    from experiments.results.folder import ResultsFolder
    from experiments.results.report import report_path, write_report

    opened = [ResultsFolder.open(folder) for folder in folders]
    page = out or report_path(opened)
    write_report(opened, page, within)
    click.echo(f"report: {page}")


for command in (exec_, shell, captures, doctor, calibrate, bench):
    main.add_command(command)


@main.command(
    context_settings={"ignore_unknown_options": True},
    epilog=foot({"0": "all passed", "1": "something failed", "2": "no test was run"}),
)
@click.option("--smoke", is_flag=True, help="Run the short privileged check alone")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def test(smoke: bool, pytest_arguments: tuple[str, ...]) -> None:
    """Run spraylab's own tests.

    Static checks; unit tests, which need no root; system tests, which need it and leave nothing behind. A failure does
    not stop the rest. PYTEST_ARGUMENTS go to pytest: options, and files or folders of tests/ to run no others.

    \b
    Examples:
      spraylab test
      spraylab test --smoke
      spraylab test tests/unit/test_bound.py -k ring
    """
    from experiments.commands import selftest

    sys.exit(selftest.main(list(pytest_arguments), smoke=smoke))


def _print_plan(planner: Planner, console: Console) -> None:
    from rich.table import Table

    table = Table(title=f"{planner.experiment.name}: {len(planner.runs)} runs")
    for name in ("run", "flows", "connections", "bound", "estimate"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for planned in planner.runs:
        plan = planner.plan(planned)
        table.add_row(
            planned.run_id,
            str(len(plan.schedule.flows)),
            str(len(plan.subflows)),
            f"{planner.bound_s(planned):.2f} s",
            f"{planner.estimate_s(planned):.1f} s",
        )
    console.print(table)
    for label, reason in planner.too_short().items():
        console.print(f"[yellow]warning:[/yellow] {label} will fail fidelity: {reason}", highlight=False)
    console.print(f"about {planner.total_estimate_s():.0f} s in all; nothing was built", highlight=False)


if __name__ == "__main__":
    main(prog_name="spraylab")
