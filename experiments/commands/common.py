"""What the commands share: exit statuses, the foot of a help page, reading an experiment, becoming root."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from experiments.commands.options import FILE, FOLDER, quiet_option, within_option
from experiments.commands.streams import BAD_INPUT, complain, end

if TYPE_CHECKING:
    from experiments.spec.experiment import Experiment

__all__ = ["BAD_INPUT", "complain", "end"]

FAILED, REFUSED = 1, 3


@dataclass(frozen=True)
class How:
    """What `run` and `exec` are asked about how to perform their runs; see the options' help."""

    out: Path | None
    resume: Path | None
    within: float | None
    fail_on: tuple[str, ...]
    dry_run: bool
    junit: Path | None = None
    on: str | None = None
    quiet: bool = False


def performs_runs(folder: str, dry_run: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that all have which perform runs; it gets what they say as `how`.

    `folder` is the results folder by default, and `dry_run` what a dry run prints.
    """
    options = (
        click.option(
            "--out", type=FOLDER, metavar="DIR", help=f"Results folder, new  [default: results/{folder}-TIME]"
        ),
        click.option(
            "--resume",
            type=FOLDER,
            metavar="DIR",
            help="Do what DIR still lacks of its runs; those that did not finish are tried again",
        ),
        within_option,
        click.option(
            "--fail-on",
            type=click.Choice(["fidelity", "spraying-pays"]),
            multiple=True,
            help="End with exit status 3 if a run fails fidelity, or if spraying pays or there is no verdict; may be "
            "repeated",
        ),
        click.option(
            "--junit",
            type=FILE,
            metavar="FILE",
            help="Write the runs and the verdict as JUnit's XML too, which CI systems show",
        ),
        click.option(
            "--on",
            metavar="SCHEDULER",
            help="Perform the runs on the machines of a Dask cluster: its address, as in tls://head:8786, or its file",
        ),
        click.option("--dry-run", is_flag=True, help=f"Print {dry_run}, and stop"),
        quiet_option,
    )

    def give(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def collected(**given: Any) -> None:
            how = How(**{field.name: given.pop(field.name) for field in fields(How)})
            command(**given, how=how)

        for option in reversed(options):
            collected = option(collected)
        return collected

    return give


_COMMON_STATUSES = {"2": "bad input: nothing was built", "130": "interrupted; by another signal, 128 + its number"}


class Worded(click.Command):
    """A command in whose help `words` stand for what is in braces: only help waits for the registries they are from."""

    def __init__(self, *args: Any, words: Callable[[], Mapping[str, str]], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._words = words

    def format_help(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help, with its words filled in."""
        words = self._words()
        self.help = (self.help or "").format(**words)
        for option in self.params:
            if isinstance(option, click.Option):
                option.help = (option.help or "").format(**words)
        super().format_help(context, formatter)


def foot(statuses: Mapping[str, str], files: Mapping[str, str] | None = None) -> str:
    """The end of a help page: the files a command writes, and what its exit statuses say."""
    blocks = [("Files", files or {}), ("Exit status", {**statuses, **_COMMON_STATUSES, **statuses})]
    return "\n\n".join(_block(title, entries) for title, entries in blocks if entries)


def _block(title: str, entries: Mapping[str, str]) -> str:
    width = max(map(len, entries))
    return "\n".join(["\b", f"{title}:", *(f"  {key:<{width}}  {text}" for key, text in entries.items())])


def read_experiment(name_or_path: str, overrides: Sequence[str]) -> Experiment:
    """As it is to be performed here: what is left to this machine is settled. Raises SpecError."""
    from experiments.machine.calibration import to_scale

    return to_scale(read_cluster(name_or_path, overrides))


def read_cluster(name_or_path: str, overrides: Sequence[str]) -> Experiment:
    """As it was asked for, whatever this machine can carry; rates of `auto` are settled. Raises SpecError."""
    from experiments.machine.calibration import with_rates
    from experiments.spec.experiment import load_experiment

    return with_rates(load_experiment(name_or_path, overrides))


def complete_experiments(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return what a shell completes where an experiment is named: names of the catalog, and files."""
    from experiments.spec.experiment import catalog_names

    names = [CompletionItem(name) for name in catalog_names() if incomplete and name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


def become_root() -> None:
    """Start this same command again under sudo, unless it is root already."""
    if os.geteuid() == 0:
        return
    sudo = shutil.which("sudo")
    if sudo is None:
        end("building a fabric needs root, and there is no sudo here: start this as root", BAD_INPUT)
    command = [sys.executable, "-I", "-B", "-m", "experiments.cli", *sys.argv[1:]]
    os.execv(sudo, [sudo, "--", *command])
