"""report.html: everything a results folder says, on one page to hand to a colleague; or two folders side by side."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from ruamel.yaml import YAML

from emulator.files import Folder, OddFileError
from experiments.judge.rows import PASS
from experiments.results import plots
from experiments.results.folder import ResultsError, ResultsFolder
from experiments.results.machines import effect
from experiments.results.overview import EXPLANATION, fidelity, shown, summary
from experiments.results.sections import SECTIONS, Results, Section, of_part, parts_of, schemes_of
from experiments.results.sentences import as_json, lines, percent, sentence
from experiments.results.verdict import of_results
from traffic.schemes import scheme_of

TEMPLATES = Path(__file__).parent / "templates"
PAGE, FIGURES = "report.html", "figures"

MOST_FIGURES = 24  # of a section, for each folder
MOST_FAILED_RUNS = 30
_ALIKE = 8  # more entries of one kind than this are listed by their values, each once


def report_path(folders: Sequence[ResultsFolder]) -> Path:
    """Where a report goes unless told otherwise: into its folder, or into the current one if it compares two."""
    if len(folders) == 1:
        return folders[0].path / PAGE
    return Path("-vs-".join(folder.path.resolve().name for folder in folders) + ".html")


def write_report(folders: Sequence[ResultsFolder], out: Path, within: float | None = None) -> None:
    """Write the page to `out`: one folder, or two side by side. One folder's figures and verdict go into it as well.

    `within` is the verdict's threshold, each folder's own where it is None. The same folders give the same page.
    Raises ResultsError where a folder cannot be read or a file not written.
    """
    if not 1 <= len(folders) <= 2:
        raise ResultsError(f"a report shows one results folder, or two side by side: {len(folders)} were named")
    everyone = [Results(folder) for folder in folders]
    sections = [
        _drawn(section, everyone) for section in SECTIONS if any(section.needs in each.runs for each in everyone)
    ]
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    templates.trim_blocks = templates.lstrip_blocks = True
    page = templates.get_template(PAGE).render(
        sides=[_side(results, mark, within) for results, mark in zip(everyone, _marks(everyone), strict=True)],
        table=_table(everyone),
        explanation=EXPLANATION,
        schemes=[(scheme, plots.css_colour(scheme), _what_it_does(scheme)) for scheme in schemes_of(everyone)],
        sections=[section for section in sections if section["rows"]],
        differences=_differences(everyone) if len(everyone) > 1 else [],
    )
    with _writing(out):
        Folder(out.parent).make()
        with Folder(out.parent).replacing(out.name) as file:
            file.write(page.encode())
    if len(folders) == 1:
        _save_figures(sections, folders[0].files / FIGURES)
        folders[0].write_verdict(as_json(of_results(everyone[0].runs, everyone[0].manifest, within)))


def _drawn(section: Section, everyone: Sequence[Results]) -> dict[str, Any]:
    """The section as the template takes it: rows of one SVG a folder, None where it has no such runs."""
    parts = section.parts(everyone) if section.parts else parts_of(everyone, each_scheme=section.a_figure_each_scheme)
    shown = parts[:MOST_FIGURES]
    rows = [
        [
            section.draw(part, each, everyone)
            if section.needs in each.runs and len(section.rows(each.runs, part))
            else None
            for each in everyone
        ]
        for part in shown
    ]
    for axes, groups in ((section.common_axes, [list(chain.from_iterable(rows))]), (section.paired_axes, rows)):
        for group, axis in product(groups, axes):
            plots.share_scale(filter(None, group), axis)
    names = [f"{section.key}-{place:02d}-{_safe('-'.join(filter(None, part)))}" for place, part in enumerate(shown, 1)]
    return {
        "key": section.key,
        "title": section.title,
        "reading": section.reading,
        "left_out": len(parts) - len(shown),
        "shown": len(shown),
        "rows": [
            [
                figure and {"name": name + mark, "svg": Markup(plots.to_svg(figure, name + mark))}
                for figure, mark in zip(row, _marks(everyone), strict=True)
            ]
            for row, name in zip(rows, names, strict=True)
        ],
    }


def _marks(everyone: Sequence[Results]) -> list[str]:
    return ["A", "B"] if len(everyone) > 1 else [""]


def _table(everyone: Sequence[Results]) -> dict[str, Any]:
    """By traffic, a line a scheme and folder: the terminal's numbers, from the same frame."""
    summaries = [summary(each.runs) if len(each.runs) else pd.DataFrame() for each in everyone]
    if not any(map(len, summaries)):
        return {}
    columns = shown(pd.concat(summaries))
    traffics: dict[str, list[dict[str, Any]]] = {}
    for part in parts_of(everyone, each_scheme=True):
        for each, mark in zip(summaries, _marks(everyone), strict=True):
            for row in of_part(each, part).itertuples():
                line = {
                    "scheme": row.scheme,
                    "mark": mark,
                    "cells": [column.text(row).partition(" ") for column in columns],
                    "fidelity": fidelity(row),
                    "trusted": row.trusted == row.runs,
                }
                traffics.setdefault(part.traffic, []).append(line)
    return {"titles": [column.title for column in columns], "traffics": traffics}


def _side(results: Results, mark: str, within: float | None) -> dict[str, Any]:
    """What the page says of one folder in words."""
    runs, manifest = results.runs, results.manifest
    verdict = of_results(runs, manifest, within)
    doubts = verdict.outcome is None or verdict.straddles or verdict.provisional or verdict.unexplained
    failed = runs[runs.fidelity != PASS] if len(runs) else runs
    experiment = manifest.get("experiment", {})
    rest = {key: value for key, value in manifest.items() if key not in ("format", "experiment", "command")}
    general = {key: rest.pop(key) for key in list(rest) if not isinstance(rest[key], Mapping)}
    return {
        "mark": mark,
        "name": results.name,
        "path": str(results.path),
        "experiment": str(experiment.get("name", results.name)),
        "facts": list(_facts(manifest)),
        "compares": not verdict.missing,
        "verdict": sentence(verdict),
        "lines": lines(verdict),
        "within": percent(verdict.within),
        "doubtful": bool(doubts) or verdict.trusted < verdict.asked.runs,
        "runs": verdict.finished,
        "again": "exec" if verdict.asked.programs else "run",
        "planned": verdict.asked.runs,
        "trusted": verdict.trusted,
        "machines": effect(runs),
        "failed": _by_reason(failed.head(MOST_FAILED_RUNS)),
        "failed_left_out": max(0, len(failed) - MOST_FAILED_RUNS),
        "command": str(manifest.get("command", "")),
        "yaml": _as_yaml(experiment),
        "settings": [(title, list(_flat(values))) for title, values in {"general": general, **rest}.items() if values],
    }


def _by_reason(failed: pd.DataFrame) -> dict[str, list[str]]:
    """The runs that failed for each reason, which many may share."""
    reasons: dict[str, list[str]] = {}
    for row in failed.itertuples():
        reasons.setdefault(row.fidelity_reasons or "no reason was recorded", []).append(row.run_id)
    return reasons


def _facts(manifest: Mapping[str, Any]) -> Iterator[str]:
    """In a few words, what ran where and when."""
    fabric = manifest.get("experiment", {}).get("fabric", {})
    if {"leaves", "spines", "hosts_per_leaf"} <= fabric.keys():
        yield "{leaves} leaves x {spines} spines x {hosts_per_leaf} hosts per leaf".format(**fabric)
    if {"host_rate", "fabric_rate"} <= fabric.keys():
        yield "host links {host_rate}, fabric links {fabric_rate}".format(**fabric)
    if dataplane := manifest.get("fabric", {}).get("dataplane"):
        yield f"data plane {dataplane}"
    if kernel := manifest.get("machine", {}).get("kernel"):
        yield f"kernel {kernel}"
    if started := manifest.get("started"):
        yield f"started {str(started)[:16].replace('T', ' ')}"


def _differences(everyone: Sequence[Results]) -> list[tuple[str, str, str]]:
    """What the folders were asked, or ran on, otherwise; not when, nor how long it took to build."""
    mine, other = (dict(_flat(each.manifest)) for each in everyone)
    return [
        (key, mine.get(key, "not set"), other.get(key, "not set"))
        for key in dict.fromkeys([*mine, *other])
        if mine.get(key) != other.get(key) and not key.startswith(("command", "started", "fabric.setup_s"))
    ]


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted key, value); many entries that hold the same are one."""
    values = [json.dumps(value, sort_keys=True) for value in content.values()]
    if len(values) > _ALIKE and all(isinstance(value, Mapping) for value in content.values()):
        for value in dict.fromkeys(values):
            names = [name for name, other in zip(content, values, strict=True) if other == value]
            alike = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names)} alike)"
            yield from _flat(json.loads(value), f"{prefix}{alike}: ")
        return
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value).replace('"', "")


def _as_yaml(experiment: Mapping[str, Any]) -> str:
    """The experiment as a file that `spraylab run` takes."""
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = None  # the innermost maps and lists on one line each
    yaml.width = 1000  # the page wraps what is too long for it
    yaml.dump(dict(experiment), text)
    return text.getvalue()


def _what_it_does(scheme: str) -> str:
    """Nothing where only another version knows the scheme."""
    try:
        known = scheme_of(scheme)
    except ValueError:
        return ""
    return "; ".join([known.says, *(f"{heading}: {clause}" for heading, clause in known.about.items())])


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:80]


def _save_figures(sections: Sequence[Mapping[str, Any]], folder: Folder) -> None:
    with _writing(folder.path):
        folder.make()
        for section in sections:
            for row in section["rows"]:
                for figure in filter(None, row):
                    with folder.replacing(f"{figure['name']}.svg") as file:
                        file.write(plots.as_file(figure["svg"]).encode())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{error.filename} " if isinstance(error, OddFileError) else ""
        raise ResultsError(f"cannot write the report to {path}: {where}{error.strerror or error}") from error
