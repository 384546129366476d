"""A hook of MkDocs: a line `<!-- made: WHAT -->` of a page becomes a table made from a registry of the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from experiments.commands.list import KINDS
from experiments.judge.invariants import INVARIANTS
from experiments.results.columns import files
from experiments.spec.described import described_keys
from traffic.schemes import FAMILIES, SCHEMES


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs asks for a page's text as it is to be rendered."""
    return filled(markdown)


def filled(markdown: str) -> str:
    """Return a page with its tables made. Raises KeyError for one that there is not."""
    return re.sub(r"<!-- made: ([\w ]+) -->", lambda found: _made(found[1]), markdown)


def _made(what: str) -> str:
    if what in MADE:
        return MADE[what]()
    return table([KINDS[what].says, ""], ((f"`{name}`", says) for name, says in KINDS[what].entries()))


def table(heading: list[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of Markdown; what a cell says cannot end it."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _keys() -> str:
    rows = (
        (f"`{key.path}`", key.means, key.takes + (f"; default `{key.default}`" if key.default else ""))
        for key in described_keys()
    )
    return table(["key", "what it is for", "takes"], rows)


def _columns() -> str:
    parts = (
        f"## {file}\n\n" + table(["column", "what it is"], ((f"`{name}`", says) for name, says in columns.items()))
        for file, columns in files().items()
    )
    return "\n".join(parts)


def _invariants() -> str:
    slower = "half the rates"
    rows = ((f"**{each.name}**", each.says, each.broken, each.remedy.format(slower=slower)) for each in INVARIANTS)
    return table(["invariant", "what must hold", "if it does not, the report says", "what to try"], rows)


def _schemes() -> str:
    kinds = (*SCHEMES, *FAMILIES)
    rows = ((f"`{each.name}`", each.says, "yes" if each.for_programs else "no") for each in kinds)
    return table(["scheme", "how bytes meet paths", "for unmodified programs"], rows)


MADE: dict[str, Callable[[], str]] = {
    "keys": _keys,
    "columns": _columns,
    "invariants": _invariants,
    "schemes": _schemes,
}
