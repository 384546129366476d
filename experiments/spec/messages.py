"""What is wrong with an experiment file, a sentence a mistake and in the words of this project."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pydantic_core import ErrorDetails

from emulator.inputs import quote
from experiments.spec.yamlfile import KeyPath, YamlFile, dotted

_MOST_PROBLEMS = 50
_MOST_SHOWN = 40  # letters of a value


class SpecError(Exception):
    """An experiment that cannot be run. One sentence: where, which key, what is wrong, what would be right."""


class Problem(NamedTuple):
    """One mistake: where in the file, and a sentence about it."""

    path: KeyPath
    message: str


def report(problems: Sequence[Problem], source: YamlFile | str) -> str:
    """Return every problem in a line of its own, in the order of the file: its place, its key, and what is wrong."""
    if isinstance(source, YamlFile):
        problems = sorted(problems, key=lambda problem: source.line(problem.path))
    lines = [_line(problem, source) for problem in problems[:_MOST_PROBLEMS]]
    if problems[_MOST_PROBLEMS:]:
        name = source.name if isinstance(source, YamlFile) else source
        lines.append(f"{name}: and {len(problems) - _MOST_PROBLEMS} more")
    return "\n".join(lines)


def _line(problem: Problem, source: YamlFile | str) -> str:
    key = dotted(problem.path)
    place = source if isinstance(source, str) else source.place(problem.path)
    if not place.startswith(f"--set {key}="):
        place = f"{place}: {key}"
    return f"{place}: {problem.message}"


def explain(error: ErrorDetails, keys: Mapping[str, str]) -> str:
    """Put Pydantic's finding in a sentence. `keys` are those of the mapping it is in, and what is right for each."""
    *parents, key = error["loc"]
    keys = defaultdict(lambda: "what such an entry takes", keys)  # of an entry within another, they are not at hand
    value = shown(error["input"])
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {quote(str(key))}{meant(str(key), keys) or '; known are ' + ', '.join(keys)}"
        case "value_error":
            return str(error["ctx"]["error"])
        case "missing":
            return f"is missing; write {keys[str(key)]}"
        case "literal_error":
            choices = keys[str(key)].removeprefix("one of ").split(", ")
            return f"{value} is not {keys[str(key)]}{meant(str(error['input']), choices)}"
    if isinstance(key, int):
        return f"{value} does not belong in {keys[str(parents[-1])]}"
    return f"{value} is not {keys[key]}"


def meant(word: str, known: Iterable[str]) -> str:
    """Return '; did you mean ...?', or nothing if no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def shown(value: object) -> str:
    """Return a value of the file, as short as a sentence can take."""
    if value is None:
        return "an empty value"
    if isinstance(value, str):
        return quote(value, _MOST_SHOWN)
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
