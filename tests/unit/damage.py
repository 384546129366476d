"""Spoils results folders, or any files of JSON and CSV: what a crash, an editor, another program or malice may leave.

`spoilt_json` and `spoilt_csv` are hypothesis strategies of a file's bytes, from those of a good one.
"""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

ODD_TEXT = (
    *("", "x", "[/red]", "[bold]", "../x", "/etc/shadow", "a/b", "..", ".x", "\x1b[2J", "a\nb", "\0", "\ud800"),
    *("ü", "١"),
    *("=1+1", "x" * 5000, "nan", "inf", "1e400", "-1", "1_0", " 1", "0x10", "9" * 40, "true", "null", "pass", "spray"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, 2**63, 10**40, 1e300, float("nan"), float("inf"), [], {}, [[]], {"": None}),
    *([None], [1], ["x"], [{}], {"x": 1}, {"/": {"": []}}, [1, 1], *ODD_TEXT),
)
CUT = st.floats(0, 1)


def places(content: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where a value is in JSON, from the outermost to the innermost."""
    yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


def with_value(content: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of JSON with another value at `path`; `...` takes away what is there."""
    if not path:
        return {} if value is ... else value
    changed = copy.deepcopy(content)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


@st.composite
def spoilt_json(draw: st.DrawFn, good: bytes) -> bytes:
    """A JSON file in which a few values are missing or odd, or whose bytes are cut or overwritten."""
    content = json.loads(good)
    for _ in range(draw(st.integers(0, 2))):
        content = with_value(
            content, draw(st.sampled_from(list(places(content)))), draw(st.sampled_from([*ODD_VALUES, ...]))
        )
    return draw(spoilt_bytes(json.dumps(content).encode()))


@st.composite
def spoilt_csv(draw: st.DrawFn, good: bytes) -> bytes:
    """A CSV file with odd cells, missing, doubled or renamed columns and rows, or with bytes cut or overwritten."""
    rows = list(csv.reader(io.StringIO(good.decode(), newline="")))
    for _ in range(draw(st.integers(0, 3))):
        row, column = draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, len(rows[0]) - 1))
        match draw(st.sampled_from(["cell", "cell", "cell", "drop column", "drop cell", "double row", "drop row"])):
            case "cell":
                rows[row] = [*rows[row][:column], draw(st.sampled_from(ODD_TEXT)), *rows[row][column + 1 :]]
            case "drop column":
                rows = [[*each[:column], *each[column + 1 :]] for each in rows]
            case "drop cell":
                rows[row] = [*rows[row][:column], *rows[row][column + 1 :]]
            case "double row":
                rows.insert(row, rows[row])
            case "drop row":
                del rows[row]
        if not rows or not rows[0]:
            return b""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return draw(spoilt_bytes(text.getvalue().encode("utf-8", "surrogatepass")))


@st.composite
def spoilt_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes as they are, or cut short, or with some overwritten."""
    match draw(st.sampled_from(["whole", "whole", "whole", "cut", "overwritten"])):
        case "cut":
            return content[: int(draw(CUT) * len(content))]
        case "overwritten":
            start = int(draw(CUT) * len(content))
            return content[:start] + draw(st.binary(max_size=4)) + content[start + draw(st.integers(0, 4)) :]
    return content
