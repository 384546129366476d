"""report.html: all that a results folder says, on one page to hand to a colleague; or several folders side by side."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from ruamel.yaml import YAML

from emulator.files import Folder, OddFileError
from experiments.results import plots
from experiments.results.drawing import fabric_drawing
from experiments.results.drawn import Figure
from experiments.results.failures import failures_of
from experiments.results.folder import ResultsError, ResultsFolder
from experiments.results.machines import effect
from experiments.results.overview import EXPLANATION
from experiments.results.page_table import page_table
from experiments.results.sections import SECTIONS, Part, Results, Section, parts_of, schemes_of
from experiments.results.sentences import as_json, line_words, percent, sentence
from experiments.results.svg import as_file
from experiments.results.verdict import Line, Outcome, Verdict, of_results
from traffic.schemes import scheme_of

TEMPLATES = Path(__file__).parent / "templates"
PAGE, FIGURES = "report.html", "figures"

MOST_FOLDERS = 8
MOST_FIGURES = 24  # of a section, for each folder
MOST_LINES = 12  # of collectives' verdicts, before the others are folded
_ALIKE = 8  # more entries of one kind than this are listed by their values, each once


def report_path(folders: Sequence[ResultsFolder]) -> Path:
    """Where a report goes unless told otherwise: into its folder, or into the current one if it compares several."""
    if len(folders) == 1:
        return folders[0].path / PAGE
    return Path("-vs-".join(folder.path.resolve().name for folder in folders) + ".html")


def write_report(folders: Sequence[ResultsFolder], out: Path, within: float | None = None) -> None:
    """Write the page to `out`: one folder, or several side by side. One folder's figures and verdict go into it too.

    `within` is the verdict's threshold, each folder's own where it is None. The same folders give the same page.
    Raises ResultsError where a folder cannot be read or a file not written.
    """
    if not 1 <= len(folders) <= MOST_FOLDERS:
        raise ResultsError(
            f"a report shows 1 to {MOST_FOLDERS} results folders side by side: {len(folders)} were named"
        )
    everyone = [Results(folder) for folder in folders]
    sections = [
        _drawn(section, everyone) for section in SECTIONS if any(section.needs in each.runs for each in everyone)
    ]
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    templates.trim_blocks = templates.lstrip_blocks = True
    page = templates.get_template(PAGE).render(
        sides=[_side(results, mark, within) for results, mark in zip(everyone, _marks(everyone), strict=True)],
        table=page_table(everyone, _marks(everyone)),
        explanation=EXPLANATION,
        most_lines=MOST_LINES,
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
    """The section as the template takes it: rows of figures, None where a folder has no such runs.

    A row is one traffic, with a figure a folder; where schemes have figures of their own, it is one traffic in one
    folder, with a figure a scheme.
    """
    parts = section.parts(everyone) if section.parts else parts_of(everyone, each_scheme=False)
    shown, marks = parts[:MOST_FIGURES], _marks(everyone)
    if section.a_figure_each_scheme:
        sides = list(product(shown, zip(everyone, marks, strict=True)))
        schemes = schemes_of(everyone)
        rows = [[(each, mark, part._replace(scheme=name)) for name in schemes] for part, (each, mark) in sides]
    else:
        rows = [[(each, mark, part) for each, mark in zip(everyone, marks, strict=True)] for part in shown]
    figures = [
        [
            section.draw(part, each, everyone)
            if section.needs in each.runs and len(section.rows(each.runs, part))
            else None
            for each, _, part in row
        ]
        for row in rows
    ]
    for groups, axes in (([list(chain.from_iterable(figures))], section.common_axes), (figures, section.paired_axes)):
        for group, axis in product(groups, axes):
            plots.share_scale([figure for figure in group if isinstance(figure, Figure)], axis)
    return {
        "key": section.key,
        "title": section.title,
        "reading": section.reading,
        "scale": Markup(section.scale(everyone)) if section.scale else "",
        "small": section.a_figure_each_scheme,
        "left_out": len(parts) - len(shown),
        "shown": len(shown),
        "rows": [
            {
                "traffic": row[0][2].traffic,
                "mark": row[0][1],
                "figures": [
                    figure and _named(figure, f"{section.key}-{place:02d}{_safe(part, column)}{mark}")
                    for column, (figure, (_, mark, part)) in enumerate(zip(drawn, row, strict=True), 1)
                ],
            }
            for place, (row, drawn) in enumerate(zip(rows, figures, strict=True), 1)
            if any(drawn)
        ],
    }


def _named(figure: Figure | str, name: str) -> dict[str, str]:
    return {"name": name, "svg": Markup(figure if isinstance(figure, str) else plots.to_svg(figure, name))}


def _marks(everyone: Sequence[Results]) -> list[str]:
    return list("ABCDEFGH"[: len(everyone)]) if len(everyone) > 1 else [""]


def _side(results: Results, mark: str, within: float | None) -> dict[str, Any]:
    """What the page says of one folder in words."""
    runs, manifest = results.runs, results.manifest
    verdict = of_results(runs, manifest, within)
    doubts = verdict.outcome is None or verdict.straddles or verdict.provisional or verdict.unexplained
    unfinished = results.unfinished
    experiment = manifest.get("experiment", {})
    rest = {key: value for key, value in manifest.items() if key not in ("format", "experiment", "command")}
    general = {key: rest.pop(key) for key in list(rest) if not isinstance(rest[key], Mapping)}
    return {
        "mark": mark,
        "name": results.name,
        "path": str(results.path),
        "experiment": str(experiment.get("name", results.name)),
        "drawing": Markup(fabric_drawing(experiment.get("fabric", {}), _broken_links(experiment))),
        "facts": list(_facts(manifest)),
        "compares": not verdict.missing,
        "verdict": sentence(verdict),
        "lines": [_line(verdict, line) for line in verdict.lines],
        "within": percent(verdict.within),
        "doubtful": bool(doubts) or verdict.trusted < verdict.asked.runs,
        "runs": verdict.finished,
        "again": "exec" if verdict.asked.programs else "run",
        "planned": verdict.asked.runs,
        "trusted": verdict.trusted,
        "machines": effect(runs),
        "failures": failures_of(runs, manifest),
        "unfinished": {str(reason): list(group.run_id) for reason, group in unfinished.groupby("reason", sort=False)},
        "unfinished_runs": len(unfinished),
        "command": str(manifest.get("command", "")),
        "yaml": _as_yaml(experiment),
        "settings": [(title, list(_flat(values))) for title, values in {"general": general, **rest}.items() if values],
    }


def _line(verdict: Verdict, line: Line) -> dict[str, str]:
    """One collective's verdict: good where no spraying is needed, bad where nothing can be said."""
    words, why = line_words(verdict, line)
    outcome = (
        "bad" if line.outcome is None or line.straddles else "good" if line.outcome is not Outcome.SPRAYING else ""
    )
    return {"traffic": line.traffic, "words": words, "why": why, "outcome": outcome}


def _broken_links(experiment: Mapping[str, Any]) -> str:
    """The links that its faults name, a word each."""
    faults = experiment.get("faults")
    known = [each for each in faults if isinstance(each, Mapping)] if isinstance(faults, list) else []
    return " ".join(str(each.get("link", "")) for each in known)


def _facts(manifest: Mapping[str, Any]) -> Iterator[str]:
    """In a few words, what ran where and when."""
    fabric = manifest.get("experiment", {}).get("fabric", {})
    if {"leaves", "spines", "hosts_per_leaf"} <= fabric.keys():
        yield "{leaves} leaves x {spines} spines x {hosts_per_leaf} hosts per leaf".format(**fabric)
    if {"host_rate", "fabric_rate"} <= fabric.keys():
        yield "host links {host_rate}, fabric links {fabric_rate}".format(**fabric)
    if rates := fabric.get("spine_rates"):
        yield f"but those of {_words(rates)}"
    if failed := fabric.get("failed"):
        yield f"failed from the start {', '.join(map(str, failed)) if isinstance(failed, list) else failed}"
    scale = fabric.get("scale")
    if isinstance(scale, int) and scale > 1:
        yield f"emulated {scale} times slower than asked for, and all times and rates here are the emulation's"
    for key in ("strain", "faults"):
        if given := manifest.get("experiment", {}).get(key):
            yield f"{key} {_words(given)}"
    if dataplane := manifest.get("fabric", {}).get("dataplane"):
        yield f"data plane {dataplane}"
    if kernel := manifest.get("machine", {}).get("kernel"):
        yield f"kernel {kernel}"
    if started := manifest.get("started"):
        yield f"started {str(started)[:16].replace('T', ' ')}"
    versions = manifest.get("versions", {})
    if version := versions.get("spraylab"):
        yield f"spraylab {version}" + (f" at revision {_short(str(sha))}" if (sha := versions.get("revision")) else "")


def _words(given: Any) -> str:
    """An entry of the experiment, or several, as a clause."""
    entries = given if isinstance(given, list) else [given]
    return "; ".join(
        ", ".join(f"{key} {value}" for key, value in _flat(entry)) for entry in entries if isinstance(entry, Mapping)
    )


def _short(revision: str) -> str:
    """A commit in twelve digits, and whether the checkout had been changed."""
    commit, *changed = revision.split("-", 1)
    return "-".join([commit[:12], *changed])


def _differences(everyone: Sequence[Results]) -> list[tuple[str, list[str]]]:
    """What the folders were asked, or ran on, otherwise; not when, nor how long it took to build."""
    manifests = [dict(_flat(each.manifest)) for each in everyone]
    rows = [(key, [each.get(key, "not set") for each in manifests]) for key in dict.fromkeys(chain(*manifests))]
    aside = ("command", "started", "fabric.setup_s")
    return [(key, values) for key, values in rows if len(set(values)) > 1 and not key.startswith(aside)]


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


def _safe(part: Part, column: int) -> str:
    """A name that files and ids can have; where schemes have figures of their own, `column` tells them apart."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(filter(None, part)))[:80]
    return f"-{column:02d}-{name}" if part.scheme else f"-{name}"


def _save_figures(sections: Sequence[Mapping[str, Any]], folder: Folder) -> None:
    with _writing(folder.path):
        folder.make()
        for section in sections:
            for row in section["rows"]:
                for figure in filter(None, row["figures"]):
                    with folder.replacing(f"{figure['name']}.svg") as file:
                        file.write(as_file(figure["svg"]).encode())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{error.filename} " if isinstance(error, OddFileError) else ""
        raise ResultsError(f"cannot write the report to {path}: {where}{error.strerror or error}") from error
