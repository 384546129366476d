"""Tables for 80 columns in which no number is ever cut: only a name gives way, and goes on below.

What cells say is data: nothing in it is markup, and nothing moves a cursor.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from emulator.inputs import plain

WIDTH = 80
_SHORTEST_NAME = 12
_ENDLESS = 10_000  # columns

Cell = str | Text


def table_of_collectives(
    title: str,
    headings: Sequence[str],
    groups: Iterable[tuple[str, Sequence[Sequence[Cell]]]],
    caption: str | None = None,
) -> Table:
    """Make a section a collective: its name, and beside it its rows of `headings`, the first of which is a scheme.

    A name that is too long goes on beside the next rows.
    """
    shown = ["collective", *headings]
    rows = [[Text(plain(name)), *map(_stacked, zip(*cells, strict=True))] for name, cells in groups]
    return _table(title, shown, rows, caption, left=shown[:2], gives_way=0, apart=True)


def table_of_rows(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    left: Collection[str] = (),
    gives_way: int = 0,
) -> Table:
    """Make a table of a line for every row; the column `gives_way`, a name, goes on below where it is too long.

    It and the headings `left` are words, all others numbers.
    """
    lines = [[_stacked([cell]) for cell in row] for row in rows]
    return _table(title, headings, lines, None, left={*left, headings[gives_way]}, gives_way=gives_way)


class _Whole(Table):
    """A table that is wider than the terminal rather than without a digit."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = Measurement.get(console, options.update(width=_ENDLESS), self).minimum
        return super().__rich_console__(console, options.update(width=max(needed, min(options.max_width, WIDTH))))


def _table(
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[Text]],
    caption: str | None,
    *,
    left: Collection[str],
    gives_way: int,
    apart: bool = False,
) -> Table:
    """A table in which the column `gives_way` goes on below, where it must; with `apart`, an empty line after each row.

    Where space is tight, columns are a space apart instead of two.
    """
    widths = [
        max(cell_len(line) for text in (heading, *(row[place].plain for row in rows)) for line in text.split("\n"))
        for place, heading in enumerate(headings)
    ]
    others = sum(widths) - widths[gives_way]
    gap = 2 if others + 2 * (len(headings) - 1) + min(_SHORTEST_NAME, widths[gives_way]) <= WIDTH else 1
    room = max(_SHORTEST_NAME, cell_len(headings[gives_way]), WIDTH - others - gap * (len(headings) - 1))
    widths[gives_way] = min(widths[gives_way], room)
    table = _Whole(
        title=Text(plain(title)),
        caption=caption and Text(plain(caption)),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap - 1, 0, 0),
    )
    for place, heading in enumerate(headings):
        table.add_column(
            Text(heading),
            justify="left" if heading in left else "right",
            no_wrap=place != gives_way,
            overflow="fold",
            min_width=widths[place],
            max_width=widths[place],
        )
    for row in rows:
        name = textwrap.wrap(row[gives_way].plain, widths[gives_way])  # between words and at hyphens first
        table.add_row(*row[:gives_way], Text("\n".join(name)), *row[gives_way + 1 :], end_section=apart)
    return table


def _stacked(cells: Iterable[Cell]) -> Text:
    """One below the other."""
    return Text("\n").join(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in cells)
