"""What the commands share: exit statuses, `--set`, the foot of a help page, becoming root, ending with a sentence."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from experiments.spec.experiment import Experiment

Command = TypeVar("Command", bound=Callable[..., Any])

FAILED, BAD_INPUT, REFUSED, INTERRUPTED = 1, 2, 3, 130

set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of EXPERIMENT by its path, as in fabric.spines=8 or traffic.0.size=8MB; may be repeated",
)


class Share(click.ParamType[float]):
    """A share below 1, as in 5% or 0.05."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> float:
        from experiments.spec.units import parse_share

        try:
            return parse_share(str(value))
        except ValueError as error:
            end(f"{param.opts[0] if param else 'share'}: {error}", BAD_INPUT)


within_option = click.option(
    "--within",
    type=Share(),
    metavar="SHARE",
    help="A scheme is as good as spraying if its median time is at most so much longer, as in 10% or 0.1  [default: "
    "5%, or what DIR was run with]",
)

fail_on_option = click.option(
    "--fail-on",
    type=click.Choice(["fidelity", "spraying-pays"]),
    multiple=True,
    help="End with exit status 3 if a run fails fidelity, or if spraying pays or there is no verdict; may be repeated",
)

_COMMON_STATUSES = {"2": "bad input: nothing was built", "130": "interrupted"}


def in_help(**words: str) -> Callable[[Command], Command]:
    """Put `words` into a command's help, where its docstring names them in braces."""

    def fill(command: Command) -> Command:
        command.__doc__ = (command.__doc__ or "").format(**words)
        return command

    return fill


def foot(statuses: Mapping[str, str], files: Mapping[str, str] | None = None) -> str:
    """The end of a help page: the files a command writes, and what its exit statuses say."""
    blocks = [("Files", files or {}), ("Exit status", {**statuses, **_COMMON_STATUSES, **statuses})]
    return "\n\n".join(_block(title, entries) for title, entries in blocks if entries)


def _block(title: str, entries: Mapping[str, str]) -> str:
    width = max(map(len, entries))
    return "\n".join(["\b", f"{title}:", *(f"  {key:<{width}}  {text}" for key, text in entries.items())])


def read_experiment(name_or_path: str, overrides: Sequence[str]) -> Experiment:
    """As it is to be performed here: what is left to this machine is settled. Raises SpecError."""
    from experiments.machine.calibration import with_rates
    from experiments.spec.experiment import load_experiment

    return with_rates(load_experiment(name_or_path, overrides))


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
