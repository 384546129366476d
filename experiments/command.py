"""What the commands share: exit statuses, `--set`, becoming root, ending with a sentence."""

from __future__ import annotations

import os
import shutil
import sys
from typing import NoReturn

import click

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

set_option = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a key by its path: fabric.spines=8"
)


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
