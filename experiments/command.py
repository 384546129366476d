"""What the commands share: exit statuses, `--set`, the foot of a help page, becoming root, ending with a sentence."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from experiments.spec import Experiment

FAILED, BAD_INPUT, REFUSED, INTERRUPTED = 1, 2, 3, 130

set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of EXPERIMENT by its path, as in fabric.spines=8 or traffic.0.size=8MB; may be repeated",
)

within_option = click.option(
    "--within",
    metavar="SHARE",
    callback=lambda _context, _option, text: None if text is None else _read_within(text),
    help="A scheme is as good as spraying if its median time is at most so much longer, as in 10% or 0.1  [default: "
    "5%, or what DIR was run with]",
)

_COMMON_STATUSES = {"2": "bad input: nothing was built", "130": "interrupted"}


def foot(statuses: Mapping[str, str], files: Mapping[str, str] | None = None) -> str:
    """The end of a help page: the files a command writes, and what its exit statuses say."""
    blocks = [("Files", files or {}), ("Exit status", {**statuses, **_COMMON_STATUSES, **statuses})]
    return "\n\n".join(_block(title, entries) for title, entries in blocks if entries)


def _block(title: str, entries: Mapping[str, str]) -> str:
    width = max(map(len, entries))
    return "\n".join(["\b", f"{title}:", *(f"  {key:<{width}}  {text}" for key, text in entries.items())])


def read_experiment(name_or_path: str, overrides: Sequence[str]) -> Experiment:
    """As it is to be performed here: what is left to this machine is settled. Raises SpecError."""
    from experiments.calibration import with_rates
    from experiments.spec import load_experiment

    return with_rates(load_experiment(name_or_path, overrides))


def _read_within(text: str) -> float:
    """The share that --within names; ends with a sentence where it is none."""
    from experiments.verdict import parse_within

    try:
        return parse_within(text)
    except ValueError as error:
        end(f"--within: {error}", BAD_INPUT)


def become_root() -> None:
    """Start this same command again under sudo, unless it is root already."""
    if os.geteuid() == 0:
        return
    sudo = shutil.which("sudo")
    if sudo is None:
        end("building a fabric needs root, and there is no sudo here: start this as root", BAD_INPUT)
    command = [sys.executable, "-E", "-P", "-B", "-m", "experiments.cli", *sys.argv[1:]]
    os.execv(sudo, [sudo, "--", *command])


def end(message: str, status: int) -> NoReturn:
    click.echo(f"spraylab: {message}", err=True)
    sys.exit(status)
