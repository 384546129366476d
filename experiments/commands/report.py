"""`spraylab report`: one page to hand to a colleague."""

from __future__ import annotations

from pathlib import Path

import click

from experiments.commands.common import foot
from experiments.commands.options import FILE, FOLDER, within_option
from experiments.commands.streams import echo


@click.command(
    epilog=foot(
        {"0": "done", "2": "bad input, or FILE cannot be written"},
        {
            "DIR/report.html": "the page of one folder; replaced if it is there",
            "DIR/figures/*.svg": "the figures of one folder",
            "DIR/verdict.json": "the outcome that the page of one folder has",
            "A-vs-B.html": "the page of several folders, in the current one",
        },
    )
)
@click.argument("folders", nargs=-1, required=True, type=FOLDER, metavar="DIR...")
@click.option("--out", type=FILE, metavar="FILE", help="The page  [default: see Files]")
@within_option
def report(folders: tuple[Path, ...], out: Path | None, within: float | None) -> None:
    """Write one page to hand to a colleague.

    From one results folder, or from several side by side: verdict, table, figures, settings, and how to repeat the run.
    Of several, the table says by how much times differ from the first one's. The page is one file that needs no other.
    Needs no root; `run` writes one as it ends.

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
    echo(f"report: {page}")
