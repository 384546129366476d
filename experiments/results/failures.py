"""Runs that failed, by what did not hold: how many, what to try, and the runs' own reasons to unfold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import pandas as pd

from experiments.judge.invariants import INVARIANTS
from experiments.judge.rows import PASS
from experiments.spec.units import format_rate_bps, parse_rate_bps

_NAMED = re.compile(rf"(?:^|; )(?=({'|'.join(re.escape(each.name) for each in INVARIANTS)}): )")
_NO_REASON = "no reason was recorded"


class Failure(NamedTuple):
    """One thing that did not hold: in how many runs, in a few words, what to try, and the runs of each reason."""

    runs: int
    broken: str
    remedy: str
    reasons: dict[str, list[str]]


def failures_of(runs: pd.DataFrame, manifest: Mapping[str, Any]) -> list[Failure]:
    """Return what did not hold in `runs`, the most frequent first; a run counts for each thing it failed."""
    failed: dict[str, dict[str, list[str]]] = {}
    for row in runs[runs.fidelity != PASS].itertuples() if len(runs) else ():
        for name, reason in _reasons(str(row.fidelity_reasons or "")):
            failed.setdefault(name, {}).setdefault(reason, []).append(str(row.run_id))
    known = {each.name: each for each in INVARIANTS}
    found = []
    for name, reasons in failed.items():
        broken, remedy = (known[name].broken, known[name].remedy) if name in known else (name, "")
        ids = {run_id for each in reasons.values() for run_id in each}
        found.append(Failure(len(ids), broken, remedy.format(slower=_slower(manifest)), reasons))
    return sorted(found, key=lambda each: -each.runs)


def _reasons(text: str) -> Iterator[tuple[str, str]]:
    """'machine: busy; length: short' -> what failed, and the reason with its name before it."""
    starts = [(match.end(), match[1]) for match in _NAMED.finditer(text)]
    if not starts or starts[0][0]:  # another version's invariant, or none
        yield _NO_REASON if not text else "for a reason of another version", text or _NO_REASON
        return
    for (start, name), (end, _) in zip(starts, [*starts[1:], (len(text) + 2, "")], strict=True):
        yield name, text[start:end].removesuffix("; ")


def _slower(manifest: Mapping[str, Any]) -> str:
    """The keys of an experiment that make its fabric half as fast."""
    fabric = manifest.get("experiment", {}).get("fabric", {})
    scale = fabric.get("scale")
    if isinstance(scale, int) and scale > 1:
        return f"scale: {2 * scale}"
    keys = []
    for key in ("host_rate", "fabric_rate"):
        with suppress(ValueError, TypeError):
            keys.append(f"{key}: {format_rate_bps(parse_rate_bps(fabric.get(key)) // 2)}")
    return ", ".join(keys) or "a lower host_rate and fabric_rate"
