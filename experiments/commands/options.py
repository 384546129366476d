"""Options that several commands have, and the kinds of value that options take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from experiments.commands.streams import BAD_INPUT, end

FOLDER = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)


class Share(click.ParamType[float]):
    """A share below 1, as in 5% or 0.05."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> float:
        from experiments.spec.units import parse_share

        try:
            return parse_share(str(value))
        except ValueError as error:
            end(f"{param.opts[0] if param else 'share'}: {error}", BAD_INPUT)


def count_option(name: str, least: int, most: int, default: int, help: str) -> Callable[[Any], Any]:
    """Return an option that takes a whole number from `least` to `most`, and shows its default."""
    return click.option(name, type=click.IntRange(least, most), default=default, show_default=True, help=help)


set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of EXPERIMENT by its path, as in fabric.spines=8 or traffic.0.size=8MB; may be repeated",
)

within_option = click.option(
    "--within",
    type=Share(),
    metavar="SHARE",
    help="A scheme is as good as spraying if its median time is at most so much longer, as in 10% or 0.1  [default: "
    "5%, or what DIR was run with]",
)


quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Print the answer and warnings alone, and nothing of how it is found"
)
