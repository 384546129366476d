"""`spraylab import`: what is in a file of another tool, and an experiment that replays it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from experiments.commands.common import BAD_INPUT, Worded, end, foot
from experiments.commands.streams import echo


def _words() -> dict[str, str]:
    from traffic.formats import FORMATS

    return {"formats": ", ".join(f"{form.key} ({form.says})" for form in FORMATS.values())}


@click.command(
    "import",
    cls=Worded,
    words=_words,
    epilog=foot(
        {"0": "done", "2": "FILE is of no format that is known, or OUT is there already"}, {"OUT": "an experiment"}
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "key", metavar="KEY", help="The format of FILE  [default: the first that can read it]")
@click.option("--ranks", type=click.IntRange(2), metavar="N", help="Of a job that any number can run  [default: 16]")
@click.option(
    "--set", "options", metavar="KEY=VALUE", multiple=True, help="A key of the entry, as in unit=us; may be repeated"
)
@click.option(
    "--network", default="400gbit", show_default=True, metavar="RATE", help="The rate of the hosts that the job is from"
)
@click.option("--out", type=click.Path(path_type=Path), metavar="OUT", help="Write here  [default: FILE's name .yaml]")
def import_(
    file: Path, key: str | None, ranks: int | None, options: tuple[str, ...], network: str, out: Path | None
) -> None:
    """Make an experiment of another tool's file.

    FILE lists flows, or is a training job. Shown are collectives and their groups, bytes, computing, the longest chain
    of computing, and what was wrong with the file and could be mended. The experiment has a fabric with as many hosts
    as there are ranks, and a job is scaled so that a run takes about 20 seconds at 50 Mb/s, its computing with its
    bytes. Needs no root.

    Formats: {formats}.

    \b
    Examples:
      spraylab import resnet50.txt --ranks 16 --set unit=us
      spraylab import tree.goal --out tree.yaml
    """
    from emulator.caller import as_caller
    from experiments.results.folder import write_file
    from experiments.runs.imported import NotImported, as_yaml, imported
    from experiments.theory.told import told

    target = out or Path(f"{file.stem}.yaml")
    with as_caller():
        there = os.path.lexists(target)
    if there:
        end(f"{target}: is there already; name another file with --out", BAD_INPUT)
    try:
        found = imported(file, key, ranks, dict(_pair(option) for option in options), network)
    except NotImported as error:
        end(str(error), BAD_INPUT)
    echo(f"{file}: {found.says}")
    for about, said in {**told(found.schedule), **found.scaling()}.items():
        echo(f"  {about + ':':<14} {said}")
    write_file(target, as_yaml(found))
    echo(f"written: {target}")


def _pair(option: str) -> tuple[str, Any]:
    from experiments.spec.yamlfile import YamlFileError, assigned

    try:
        _, keys, value = assigned(option, "unit=us")
    except YamlFileError as error:
        end(str(error), BAD_INPUT)
    return ".".join(keys), value
