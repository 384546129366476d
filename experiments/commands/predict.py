"""`spraylab predict`: what theory expects, without emulating it."""

from __future__ import annotations

from pathlib import Path

import click

from experiments.commands.common import Share, complete_experiments, foot, read_experiment, set_option


@click.command(epilog=foot({"0": "done", "2": "bad input, or FILE cannot be written"}))
@click.argument("experiment", shell_complete=complete_experiments)
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
    """Say what theory expects of an experiment, emulating nothing.

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
    from experiments.runs.loads.sweeps import replay_work
    from experiments.runs.predict import beside_results, prediction_table, predictions

    to_pipe = str(csv) == "-"
    console = Console(stderr=to_pipe)
    loaded = read_experiment(experiment, overrides)
    runs = ResultsFolder.open(results).runs() if results else None
    rows = track(
        predictions(loaded, jitter), "predicting", total=len(replay_work(loaded).runs), console=console, transient=True
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
