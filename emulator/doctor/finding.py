"""What a check of the machine found, and how findings are shown to people and to programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

Status = Literal["ok", "degraded", "missing"]
_COLOURS: dict[Status, str] = {"ok": "green", "degraded": "yellow", "missing": "red"}


@dataclass(frozen=True)
class Finding:
    """What one check found. `status`: "degraded" loses what `detail` says; "missing" means that `run` cannot work.

    `remedy` is what puts it right, a command for Debian and Ubuntu where there is one, and "" where nothing has to be.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def works(findings: Sequence[Finding]) -> bool:
    """Return whether `run` can work."""
    return all(finding.status != "missing" for finding in findings)


def render(findings: Sequence[Finding]) -> Table:
    """Make a table that fits 80 columns; under a line that is not ok, what puts it right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), caption_justify="left")
    table.caption = Text(_in_all(findings), style="bold")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        detail = Text(finding.detail)
        if finding.remedy:
            detail.append("\n> ").append(finding.remedy, style="bold")
        table.add_row(Text(finding.status, style=_COLOURS[finding.status]), finding.name, detail)
    return table


def lines(findings: Sequence[Finding]) -> list[str]:
    """Say the same in lines that are as long as they must be, for whoever searches them."""
    width = max((len(finding.name) for finding in findings), default=0)
    told = []
    for finding in findings:
        told.append(f"{finding.status:<8}  {finding.name:<{width}}  {finding.detail}")
        if finding.remedy:
            told.append(f"{'':{width + 10}}  > {finding.remedy}")
    return [*told, _in_all(findings)]


def _in_all(findings: Sequence[Finding]) -> str:
    counts = {status: sum(finding.status == status for finding in findings) for status in _COLOURS}
    can = "can" if works(findings) else "cannot"
    return f"run {can} work here: " + ", ".join(f"{count} {status}" for status, count in counts.items())


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what json.dumps takes: `works`, and `findings` as objects with the fields of Finding."""
    return {"works": works(findings), "findings": [asdict(finding) for finding in findings]}


def is_root() -> bool:
    """Return whether this process is root's."""
    return os.geteuid() == 0


def as_root(command: str) -> str:
    """Return the command as this user would type it: with sudo, if not root."""
    return command if is_root() else f"sudo {command}"


def install(package: str) -> str:
    """Return the command that installs a Debian or Ubuntu package."""
    return as_root(f"apt-get install {package}")
