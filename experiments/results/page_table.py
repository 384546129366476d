"""The table of a page: per collective a line a scheme and folder, predicted beside measured, and how folders differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments.judge.rows import PASS
from experiments.results.neighbours import beside
from experiments.results.overview import PAGE, Column, shown, summary
from experiments.results.plots import css_colour
from experiments.results.sections import Results, of_part, parts_of
from experiments.results.why import why
from experiments.spec.units import format_size_bytes


def page_table(everyone: Sequence[Results], marks: Sequence[str]) -> dict[str, Any]:
    """Return the titles and, by traffic, the lines as the template takes them; nothing where nothing has run.

    What cannot be trusted at all is there with its own numbers, and marked as such. With several folders a line says by
    how much its time differs from that of the first one.
    """
    summaries = [_summary(each.runs) if len(each.runs) else pd.DataFrame() for each in everyone]
    if not any(map(len, summaries)):
        return {}
    columns = shown(pd.concat(summaries), PAGE)
    traffics: dict[str, dict[str, Any]] = {}
    for part in parts_of(everyone, each_scheme=True):
        group = traffics.setdefault(part.traffic, {"lines": [], "about": "", "why": []})
        sides = zip(marks, summaries, strict=True)
        rows = [(mark, row) for mark, each in sides for row in of_part(each, part).itertuples()]
        first = next((row for mark, row in rows if mark == marks[0]), None)
        group["lines"] += [
            {"mark": mark, **_line(row, columns), "difference": _difference(row, first)} for mark, row in rows
        ]
        group["about"] = group["about"] or next((_about(row) for _, row in rows), "")
    for traffic, group in traffics.items():
        for each, mark in zip(summaries, marks, strict=True):
            lines = each[each.traffic == traffic] if len(each) else each
            group["why"] += [(mark, sentence) for sentence in why(lines[lines.really > 0] if len(lines) else lines)]
    for results, mark in zip(everyone, marks, strict=True):
        for job in beside(results.runs):
            traffics[job.traffic]["why"].append((mark, job.sentence))
    return {"titles": [column.title for column in columns], "traffics": traffics}


def _line(row: Any, columns: Sequence[Column]) -> dict[str, Any]:
    """One scheme in one folder."""
    return {
        "scheme": row.scheme,
        "colour": css_colour(row.scheme),
        "cells": [column.text(row).partition(" (") for column in columns],
        "fidelity": f"{row.really}/{row.runs} pass",
        "trusted": row.really == row.runs,
        "none": not row.really,
    }


def _summary(runs: pd.DataFrame) -> pd.DataFrame:
    """The terminal's frame, in which schemes without a trusted run have the numbers of those that failed.

    `really` counts the trusted ones.
    """
    passed = runs.fidelity == PASS
    hopeless = ~passed.groupby([runs.traffic, runs.scheme]).transform("any")
    lines = summary(runs.assign(fidelity=runs.fidelity.where(~hopeless, PASS)))
    really = passed.groupby([runs.traffic, runs.scheme], sort=False).sum()
    lines = lines.assign(really=[int(really[row.traffic, row.scheme]) for row in lines.itertuples()])
    lines.loc[lines.silent, "trusted"] = 0  # there are no numbers
    return lines


def _about(row: Any) -> str:
    """What all schemes of a traffic have alike."""
    size = f"{format_size_bytes(int(row.size_bytes))} a rank" if row.size_bytes > 0 else ""
    bound = f"bound {row.bound_s:.3g} s" if row.bound_s > 0 else ""
    return ", ".join(filter(None, [size, bound]))


def _difference(row: Any, first: Any) -> str:
    """By how much a scheme's time differs from that in the first folder; nothing where either cannot be trusted."""
    if first is None or first is row or not (row.really and first.really):
        return ""
    mine, other = (each.loaded_s if each.measure == "loaded_s" else each.cct_s for each in (row, first))
    return f"{mine / other - 1:+.1%}".replace("%", " %") if mine > 0 and other > 0 else ""
