"""Heat maps of fabric links over ideal sharing: 1.00 is blank, more is coloured, on light pages and dark ones alike.

They are small shapes written as SVG: matplotlib would take minutes for a page of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emulator.topology import MAX_LEAVES, MAX_SPINES
from experiments.theory.loads import LinkBytes
from experiments.theory.loads import over_ideal as over_each_ideal

Cells = NDArray[np.float64]

NOTHING: tuple[Cells, Cells] = (np.zeros((1, 1)), np.zeros((1, 1)))
"""A run of which no link is known."""

BLANK = 1.005
"""Below it a cell is blank: it is 1.00 to every digit that is shown."""

_COLOUR = "#D55E00"
_LEVELS = 16  # shades beyond blank
_WIDTH, _GAP, _HEAD = 106.0, 4.0, 16.0  # of a map, in pixels at its usual size
_LONGEST_NAME = 12  # letters
_MOST_LEAVES = 64  # rows; more are drawn several to a row, the fullest of them
_OPEN = '<svg xmlns="http://www.w3.org/2000/svg" role="img"'


def over_ideal(links: pd.DataFrame) -> tuple[Cells, Cells]:
    """How long one run's fabric links worked, leaf x spine, up and down; over the fullest's if leaves spread theirs.

    NaN where there is no link, or it has failed. The most of all cells is the run's congestion ratio.
    """
    fabric = links[links.spine.between(0, MAX_SPINES - 1) & links.leaf.between(0, MAX_LEAVES - 1)]
    if fabric.empty:
        return NOTHING
    leaves, spines = (range(int(fabric[key].max()) + 1) for key in ("leaf", "spine"))
    if "rate_bps" not in fabric or not pd.api.types.is_numeric_dtype(fabric.rate_bps):
        fabric = fabric.assign(rate_bps=1)

    def cells(direction: str, values: str) -> Cells:
        table = fabric[fabric.direction == direction].pivot_table(index="leaf", columns="spine", values=values)
        return np.nan_to_num(table.reindex(index=leaves, columns=spines).to_numpy(float))

    up, down = over_each_ideal(LinkBytes(cells("up", "tx_bytes"), cells("down", "tx_bytes")), cells("up", "rate_bps"))
    return up, down


def heat_map(up: Cells, down: Cells, scheme: str, about: str, most: float) -> str:
    """One run as an <svg> element: left on the way up, right on the way down; a row a leaf, a column a spine.

    Cells are coloured from 1, blank, to `most`; the scheme and the largest cell are above.
    """
    rows, columns = up.shape
    each = (_WIDTH - _GAP) / 2
    height = each * min(1.6, max(0.4, rows / columns))
    worst = np.nan_to_num([up, down]).max()
    name = scheme if len(scheme) <= _LONGEST_NAME else f"{scheme[: _LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
    body = [
        f'<text x="0" y="11" font-size="10">{escape(name)}</text>',
        f'<text x="{_WIDTH:g}" y="11" font-size="10" text-anchor="end" font-weight="600">{worst:.2f}</text>',
    ]
    for left, cells in ((0.0, up), (each + _GAP, down)):
        merged = _merged(cells)
        wide, high = each / columns, height / len(merged)
        place = f'transform="translate({left:.2f} {_HEAD:g}) scale({wide:.4f} {high:.4f})"'
        body.append(f"<g {place}>{''.join(_shapes(merged, most))}</g>")
        frame = f'x="{left + 0.5:.2f}" y="{_HEAD + 0.5:g}" width="{each - 1:.2f}" height="{height - 1:.2f}"'
        body.append(f'<rect {frame} fill="none" stroke="currentColor" stroke-opacity=".35"/>')
    box = f'viewBox="0 0 {_WIDTH:g} {_HEAD + height + 1:.2f}"'
    return f'{_OPEN} aria-label="{escape(about, {chr(34): "&quot;"})}" {box} fill="currentColor">{"".join(body)}</svg>'


def scale_of(most: float) -> str:
    """The colours from 1.00 to `most`, as an <svg> element."""
    wide = 120 / (_LEVELS + 1)
    shades = "".join(
        f'<rect x="{30 + wide * level:.2f}" y="2" width="{wide + 0.2:.2f}" height="10" fill="{_COLOUR}" '
        f'fill-opacity="{_opacity(level)}"/>'
        for level in range(1, _LEVELS + 1)
    )
    frame = '<rect x="30" y="2" width="120" height="10" fill="none" stroke="currentColor" stroke-opacity=".35"/>'
    ends = f'<text x="0" y="11" font-size="11">1.00</text><text x="156" y="11" font-size="11">{most:.2f}</text>'
    return f'{_OPEN} aria-label="scale" viewBox="0 0 190 14" fill="currentColor">{shades}{frame}{ends}</svg>'


def _merged(cells: Cells) -> Cells:
    together = -(-len(cells) // _MOST_LEAVES)
    if together == 1:
        return cells
    starts = np.arange(0, len(cells), together)
    return np.asarray(np.fmax.reduceat(cells, starts, axis=0))


def _shapes(cells: Cells, most: float) -> Iterator[str]:
    """One path a shade; where there is no link, a stroke."""
    over = np.nan_to_num((cells - 1) / max(most - 1, 1e-9))
    levels = np.clip(np.ceil(np.round(over * _LEVELS, 6)), 0, _LEVELS).astype(int)
    levels[np.nan_to_num(cells) < BLANK] = 0
    for level in range(1, _LEVELS + 1):
        places = np.argwhere(levels == level)
        if len(places):
            path = "".join(f"M{column} {row}h1v1h-1z" for row, column in places)
            yield f'<path d="{path}" fill="{_COLOUR}" fill-opacity="{_opacity(level)}"/>'
    missing = "".join(f"M{column} {row}l1 1" for row, column in np.argwhere(np.isnan(cells)))
    if missing:
        yield f'<path d="{missing}" stroke="currentColor" stroke-opacity=".6" vector-effect="non-scaling-stroke"/>'


def _opacity(level: int) -> str:
    return f"{0.1 + 0.9 * level / _LEVELS:.2f}"
