"""`spraylab predict`: what theory expects, without emulating it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.commands.common import complete_experiments, foot, read_cluster
from experiments.commands.options import FOLDER, Share, quiet_option, set_option

if TYPE_CHECKING:
    import pandas as pd

    from experiments.commands.output import Console
    from experiments.spec.experiment import Experiment


@click.command(epilog=foot({"0": "done", "2": "bad input, or FILE cannot be written"}))
@click.argument("experiment", shell_complete=complete_experiments)
@set_option
@click.option(
    "--results",
    type=FOLDER,
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
@quiet_option
def predict(
    experiment: str,
    overrides: tuple[str, ...],
    results: Path | None,
    jitter: float | None,
    csv: Path | None,
    *,
    quiet: bool,
) -> None:
    """Say what theory expects of an experiment, emulating nothing.

    EXPERIMENT is a YAML file, or a name of the catalog. For every collective and scheme: the collective completion time
    (CCT) under ideal fair sharing, its ratio to the bound (the least time that any scheme could take), and the
    congestion ratio (the fullest link over the same under ideal spraying). Traffic too large for that has the
    congestion ratio alone. At the end comes one sentence, as `run` has it. Needs no root.

    Rates, sizes and times are the cluster's own, as the file has them, whatever its fabric.scale.

    Flows that wait for each other may keep in step by their equal sizes alone. So each run is repeated 10 times with
    every flow's size varied at random, the same for the same seed, and sent packet by packet where its packets are not
    too many; a ratio that this changes is shown as a range.

    \b
    Examples:
      spraylab predict quick
      spraylab predict quick --jitter 1% --csv -
      spraylab predict scale-16x16 --csv predicted.csv
      spraylab predict quick --results results/quick-20250101-120000
    """
    import pandas as pd

    from experiments.commands.output import Console, to_stderr
    from experiments.results.folder import ResultsFolder
    from experiments.runs.loads.sweeps import replay_work
    from experiments.runs.predict import beside_results, prediction_table, predictions

    console = to_stderr() if str(csv) == "-" else Console()
    folder = ResultsFolder.open(results) if results else None
    runs = folder.runs() if folder else None
    loaded = read_cluster(experiment, overrides).at_scale(folder.scale() if folder else 1)
    rows = to_stderr(quiet=quiet).counted(predictions(loaded, jitter), "predicting", len(replay_work(loaded).runs))
    frame = pd.DataFrame(sorted(rows, key=lambda row: str(row["run_id"])))
    if runs is not None:
        frame = beside_results(frame, runs, str(results))
    console.show(prediction_table(frame))
    for line in _told(loaded, frame):
        console.say(line)
    if csv:
        _write(frame, csv, console)


def _write(frame: pd.DataFrame, csv: Path, console: Console) -> None:
    """Write a row a run; to standard output, where that is a hyphen."""
    from experiments.results.cells import guarded
    from experiments.results.folder import write_file

    text = guarded(frame).to_csv(index=False)
    if str(csv) == "-":
        click.echo(text, nl=False)
    else:
        write_file(csv, text)
        console.say(f"written: {csv}")


def _told(experiment: Experiment, frame: pd.DataFrame) -> Iterator[str]:
    """The sentence, and what it and the table are of."""
    from experiments.results.sentences import expectation
    from experiments.runs.predict import predicted_verdict
    from experiments.runs.work import uneven_links
    from experiments.spec.scale import oversubscription
    from experiments.spec.units import format_rate_bps

    yield expectation(predicted_verdict(frame))
    fabric, scale = experiment.fabric.topology(), experiment.fabric.slower
    rates = " and ".join(map(format_rate_bps, (fabric.host_rate_bps, fabric.fabric_rate_bps)))
    slower = f", emulated at {scale}, as are the times" if scale.factor > 1 else ""
    over = oversubscription(fabric)
    uneven = f" but {words}" if (words := uneven_links(fabric)) else ""
    links = f"links of {rates} (hosts, fabric){uneven}{slower}"
    yield f"{fabric.hosts} hosts, {links}; a leaf is oversubscribed {over:.3g}:1"
    if frame.predicted_cct_s.isna().any():
        yield "without a CCT, flows were counted, not listed, or theory cannot tell it: compared is congestion"
