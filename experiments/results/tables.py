"""Tables for 80 columns in which no number is ever cut: only a collective's name gives way, and goes on below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_TERMINAL_WIDTH, _GAP, _SHORTEST_NAME = 80, 2, 12


def table_of_collectives(
    title: str,
    headings: Sequence[str],
    groups: Iterable[tuple[str, Sequence[Sequence[str]]]],
    caption: str | None = None,
) -> Table:
    """A section for every collective: its name, and beside it its rows of `headings`, the first of which is a scheme.

    Cells may have Rich's markup; names are taken as they are. A name that is too long goes on beside the next rows.
    """
    sections = [(name, list(rows)) for name, rows in groups]
    shown = [heading.split("\n") for heading in headings]
    for _, rows in sections:
        for row in rows:
            for column, cell in zip(shown, row, strict=True):
                column.append(Text.from_markup(cell).plain)
    widths = [max(map(cell_len, column)) for column in shown]
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("collective", no_wrap=True)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    name_width = max(_SHORTEST_NAME, _TERMINAL_WIDTH - sum(widths) - _GAP * len(widths))
    for name, rows in sections:
        if len(table.rows):
            table.add_section()
        for part, cells in zip_longest(textwrap.wrap(name, name_width), rows, fillvalue=None):
            table.add_row(escape(part or ""), *(cells or ()))
    return table
