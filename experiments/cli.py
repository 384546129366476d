"""The command line. Every error ends with one sentence; exit status 2: the command was wrong, nothing was built."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from emulator.dataplane import Asked
from experiments.command import BAD_INPUT, FAILED, INTERRUPTED, become_root, end, set_option
from experiments.commands_programs import exec_, shell

_BENCHMARKS = {"predict": False, "decode": False, "setup": True, "capacity": True, "replay": True, "captures": True}
"""Modules of experiments/benchmarks, and whether each needs root."""


class _Sentences(click.Group):
    """Turns the errors meant for people into sentences, and Ctrl-C into a status."""

    def invoke(self, context: click.Context) -> object:
        from emulator.sandbox import EmulatorError
        from experiments.results import ResultsError
        from experiments.spec import SpecError

        try:
            return super().invoke(context)
        except (SpecError, ResultsError) as error:
            end(str(error), BAD_INPUT)
        except EmulatorError as error:
            end(str(error), FAILED)
        except KeyboardInterrupt:
            end("interrupted", INTERRUPTED)


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spraylab", message="%(prog)s %(version)s")
def main() -> None:
    """Does a training cluster need packet spraying? Emulates a leaf-spine fabric on this machine's own network stack,
    replays collectives over it under several load-balancing schemes, and says which numbers can be trusted.

    Start with: spraylab run quick
    """


@main.command()
@click.argument("experiment", required=False)
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a key by its path: fabric.spines=8"
)
@click.option("--out", type=click.Path(path_type=Path), help="Results folder [default: results/NAME-TIME]")
@click.option("--resume", type=click.Path(path_type=Path), metavar="DIR", help="Go on with the runs this folder lacks")
@click.option("--dry-run", is_flag=True, help="Print the runs and how long they would take; builds nothing")
def run(
    experiment: str | None, overrides: tuple[str, ...], out: Path | None, resume: Path | None, dry_run: bool
) -> None:
    """Run EXPERIMENT, a file or a name of the catalog, and say what came of it.

    Needs root for the emulation, and asks sudo for it. Everything privileged happens in private namespaces that are
    gone when the command ends, however it ends. Results are written after every run.

    \b
    Examples:
      spraylab run quick
      spraylab run quick --set fabric.spines=8 --set seeds=[1]
      spraylab run my.yaml --out results/mine
      spraylab run --resume results/mine
    """
    from rich.console import Console

    from experiments.calibrate import warn_beyond_calibration
    from experiments.conduct import answer, conduct, manifest
    from experiments.planner import Planner
    from experiments.results import ResultsFolder, default_path
    from experiments.spec import load_experiment, restore_experiment

    console = Console()
    if resume:
        if experiment or overrides or out:
            raise click.UsageError(
                "--resume takes everything from its folder: give no experiment, --set or --out with it"
            )
        folder = ResultsFolder.open(resume)
        planner = Planner(restore_experiment(folder.manifest()["experiment"], str(resume / "manifest.json")))
    elif experiment:
        planner = Planner(load_experiment(experiment, overrides))
    else:
        raise click.UsageError("name an experiment, such as: spraylab run quick")
    planner.check_emulable()
    warn_beyond_calibration(planner, console)
    if dry_run:
        _print_plan(planner, console)
        return
    become_root()
    if not resume:
        folder = ResultsFolder.create(out or default_path(planner.experiment.name), manifest(planner.experiment))
    try:
        finished = conduct(planner, folder, console)
    except KeyboardInterrupt:
        answer(folder, planner, console)
        end("interrupted; everything built is gone again", INTERRUPTED)
    answer(folder, planner, console)
    if not finished:
        sys.exit(FAILED)


@main.command()
@click.argument("experiment")
@set_option
@click.option("--results", type=click.Path(path_type=Path), metavar="DIR", help="Put the emulated numbers beside")
@click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write one row a run")
def predict(experiment: str, overrides: tuple[str, ...], results: Path | None, csv: Path | None) -> None:
    """Say what theory expects of EXPERIMENT: bound, congestion ratio and CCT of every run, without emulating it.

    \b
    Examples:
      spraylab predict quick
      spraylab predict scale-16x16 --csv predicted.csv
      spraylab predict quick --results results/quick-20250101-120000
    """
    import pandas as pd
    from rich.console import Console
    from rich.progress import track

    from experiments.planner import Planner
    from experiments.predict import beside_results, prediction_table, predictions
    from experiments.results import ResultsFolder, write_file
    from experiments.spec import load_experiment

    console = Console()
    loaded = load_experiment(experiment, overrides)
    runs = ResultsFolder.open(results).runs() if results else None
    rows = track(
        predictions(loaded), "predicting", total=len(Planner(loaded).runs), console=console, transient=True
    )
    frame = pd.DataFrame(sorted(rows, key=lambda row: str(row["run_id"])))
    if runs is not None:
        frame = beside_results(frame, runs)
    console.print(prediction_table(frame))
    if csv:
        write_file(csv, frame.to_csv(index=False))
        console.print(f"written: {csv}", highlight=False, soft_wrap=True)


@main.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The page [default: DIR/report.html]")
def report(folders: tuple[Path, ...], out: Path | None) -> None:
    """Write one page to hand to a colleague, from one results folder or from two side by side.

    \b
    Examples:
      spraylab report results/mine
      spraylab report results/before results/after --out compared.html
    """
    from experiments.report import report_path, write_report
    from experiments.results import ResultsFolder

    opened = [ResultsFolder.open(folder) for folder in folders]
    page = out or report_path(opened)
    write_report(opened, page)
    click.echo(f"report: {page}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For machines")
def doctor(as_json: bool) -> None:
    """Check whether this machine can emulate, and what it lacks.

    Every line is ok, degraded (with what is lost) or missing (with the command that mends it). As root, what the kernel
    can do is tried inside a sandbox; without, it is read from what the kernel says of itself. Exit status 0: `run` can
    work here; 1: it cannot.
    """
    import json

    from rich.console import Console

    from emulator import doctor as examination

    findings = examination.diagnose()
    if as_json:
        click.echo(json.dumps(examination.as_json(findings), indent=2))
    else:
        Console().print(examination.render(findings))
    sys.exit(0 if examination.works(findings) else FAILED)


@main.command()
@click.option("--hosts", type=click.Choice(["16", "32", "64", "128"]), multiple=True, default=["16"], show_default=True)
@click.option("--dataplane", type=click.Choice(["ovs", "linux"]), multiple=True, help="[default: all there are]")
def calibrate(hosts: tuple[str, ...], dataplane: tuple[Asked, ...]) -> None:
    """Find how fast the links may be for this machine to be faithful, on each data plane.

    A permutation that keeps every link busy must come within 5 % of its bound with fidelity pass, twice. Takes minutes;
    leave the machine alone meanwhile. What is found is kept, and `run` warns of experiments beyond it.
    """
    from rich.console import Console

    from experiments import calibrate as calibration

    become_root()
    found = calibration.calibrate([int(count) for count in hosts], list(dataplane) or None, say=click.echo)
    Console().print(calibration.table(found))
    click.echo(f"kept in {calibration.save(found)}")


@main.command()
@click.argument("name", type=click.Choice(list(_BENCHMARKS)))
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="The rows, for machines")
def bench(name: str, json_file: Path | None) -> None:
    """Measure spraylab itself on this machine; numbers of one run are compared with each other, never with a limit.

    \b
      predict   how time and memory of predictions grow with hosts
      decode    packets decoded a second, beside tshark, dpkt and scapy
      setup     seconds until a fabric is up, beside plain Mininet's for the same fabric
      capacity  the most traffic that each data plane carries faithfully
      captures  completion times with packet captures, beside those without
      replay    CPU seconds a gigabyte, and how they grow with hosts
    """
    import importlib
    import json

    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from experiments.results import write_file

    if _BENCHMARKS[name]:
        become_root()
    rows = importlib.import_module(f"experiments.benchmarks.{name}").run()
    frame = pd.DataFrame(rows)
    table = Table(title=f"bench {name}")
    for column in frame.columns:
        table.add_column(column, justify="left" if frame[column].dtype == object else "right", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    Console().print(table)
    if json_file:
        write_file(json_file, json.dumps(rows, indent=2, default=str) + "\n")


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def test(pytest_arguments: tuple[str, ...]) -> None:
    """Run all tests: static checks, unit tests (no root), system tests (root, in private namespaces).

    PYTEST_ARGUMENTS are passed on to pytest; --smoke runs the short privileged check alone.
    """
    from experiments import selftest

    arguments = [argument for argument in pytest_arguments if argument != "--smoke"]
    sys.exit(selftest.main(arguments, smoke="--smoke" in pytest_arguments))


def _print_plan(planner, console) -> None:  # type: ignore[no-untyped-def]
    from rich.table import Table

    table = Table(title=f"{planner.experiment.name}: {len(planner.runs)} runs")
    for name in ("run", "flows", "subflows", "bound", "estimate"):
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
    console.print(f"about {planner.total_estimate_s():.0f} s in all; nothing was built", highlight=False)


main.add_command(exec_)
main.add_command(shell)

if __name__ == "__main__":
    main(prog_name="spraylab")
