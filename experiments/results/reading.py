"""What a results folder's files hold, checked once as they are read: they may be damaged, or anybody's."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from emulator.inputs import quote
from experiments.judge.rows import FAIL, PASS
from experiments.spec.messages import shown
from experiments.spec.sweep import read_sweep
from experiments.spec.yamlfile import dotted

FORMAT_VERSION = 1
FAILED_COLUMNS = ("run_id", "reason", "time")

_DEEPEST = 20  # nesting in manifest.json
_LONGEST_NAME = 1000
_LONGEST_RUN_ID = 200  # it names files
_MOST = 10**18  # of any number in runs.csv: none measures more bytes, bits a second or seconds
_MEANT = {
    "missing": "is missing",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
    "int_type": "a whole number",
    "string_type": "text",
    "float_type": "a number",
}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)

_NAMES = ("run_id", "traffic", "scheme")
_WORDS = {"fidelity": (PASS, FAIL), "explained": ("yes", "no", ""), "verified": ("right", "wrong", "")}
_TEXT = (
    *(*_NAMES, *_WORDS, "experiment", "collective", "algorithm", "dataplane", "machine"),
    *("job_steps", "faults", "fidelity_reasons"),
)
_NUMBERS = (
    *("cct_s", "bound_s", "cct_over_bound", "emulated_over_predicted", "congestion_ratio", "fct_p50_s", "fct_p99_s"),
    *("predicted_cct_s", "predicted_low_s", "predicted_high_s", "algbw_bps", "busbw_bps", "duration_s", "loaded_s"),
    *("subflows", "cut_flows", "flows", "wire_bytes", "retransmitted_segments", "out_of_order_segments", "timeouts"),
    *("drops_packets", "queue_peak_bytes", "cpu_idle_min", "size_bytes", "exit_status", "seed"),
    *("converged_s", "step_s", "step_over_bound", "exposed_s", "overlap", "request_p50_s", "request_p99_s"),
)
_ALWAYS = ("run_id", "traffic", "scheme", "seed", "fidelity", "fidelity_reasons", "congestion_ratio")
_OF_REPLAYS, _OF_PROGRAMS = ("cct_s", "cct_over_bound"), ("loaded_s",)
_TOGETHER = {"explained": "emulated_over_predicted", "out_of_order_segments": "retransmitted_segments"}
_OF_FRAMES = {
    "flows": ({"fct_s"}, set[str]()),
    "links": ({"leaf", "spine", "tx_bytes"}, {"port", "direction"}),
    "queues": ({"time_s", "backlog_bytes"}, {"port"}),
    "faults": ({"fault", "confirmed_s"}, {"event"}),
}
"""Columns of numbers and of text that figures are drawn from."""


class DamageError(ValueError):
    """What is wrong with a file; the message goes on from the file's name: ':7: cct_s is ...', ': is not JSON ...'."""

    def __init__(self, what: str, line: int | str = "") -> None:
        super().__init__(f":{line}: {what}" if line else f": {what}")


class _Part(BaseModel):
    """A mapping of manifest.json, of which other versions may know more."""

    model_config = ConfigDict(extra="allow", strict=True)


Name = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]


def _swept(content: object) -> object:
    return read_sweep(content) if content else None


class _Asked(_Part):
    name: Name | None = None
    fabric: dict[str, Any] = {}
    traffic: list[dict[str, Any]] = []
    schemes: list[Name] = []
    seeds: list[int] = []
    sweep: Annotated[Any, AfterValidator(_swept)] = None


class _Program(_Part):
    command: Annotated[list[str], Field(min_length=1)]
    hosts: list[Annotated[int, Field(ge=0)]]
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    schemes: list[Name] = []


class _Ran(_Part):
    """On what runs were made."""

    machine: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    fabric: dict[str, Any] = {}


class _Input(BaseModel):
    """Of a file that was copied into the folder."""

    model_config = ConfigDict(extra="forbid", strict=True)

    origin: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Manifest(_Ran):
    experiment: _Asked
    within: Annotated[float, Field(ge=0, lt=1)] = 0.0
    program: _Program | None = None
    command: str = ""
    started: str = ""
    sysctls: dict[str, Any] = {}
    resumed: dict[str, _Ran] = {}
    machines: dict[str, _Ran] = {}
    inputs: dict[str, _Input] = {}


def parse_manifest(content: bytes) -> dict[str, Any]:
    """What manifest.json says. Raises DamageError."""
    try:
        manifest = json.loads(content, parse_constant=_no_number)
        words = list(_words(manifest))
    except json.JSONDecodeError as error:
        raise DamageError(f"not valid JSON: {error.msg}", f"{error.lineno}:{error.colno}") from error
    except UnicodeDecodeError as error:
        raise DamageError(f"not UTF-8 text from byte {error.start} on, so not JSON") from error
    except (RecursionError, _DeepError) as error:
        raise DamageError("is nested too deeply for a manifest") from error
    except ValueError as error:
        raise DamageError(f"not valid JSON: {quote(str(error), 60)}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT_VERSION or isinstance(found, bool):
        raise DamageError(f"has format {shown(found)}, this version reads {FORMAT_VERSION}")
    if odd := next((word for word in words if not _encodes(word)), None):
        raise DamageError(f"{quote(odd)} is no text: half a character, as \\ud800 is")
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as invalid:
        first, *others = invalid.errors(include_url=False)
        more = f" (and {len(others)} more)" if others else ""
        raise DamageError(f"{_explained(first['type'], first['msg'], first['loc'], first['input'])}{more}") from invalid
    return dict(manifest)


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


class _DeepError(ValueError):
    """Nested deeper than anything that is meant."""


def _words(value: Any, depth: int = 0) -> Iterator[str]:
    """All text in it, keys too."""
    if depth > _DEEPEST:
        raise _DeepError
    if isinstance(value, str):
        yield value
    for inner in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _words(inner, depth + 1)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _explained(kind: str, said: str, place: Sequence[str | int], value: object) -> str:
    """Pydantic's finding in words."""
    key = dotted(tuple(place))
    meant = _MEANT.get(kind)
    if meant == _MEANT["missing"]:
        return f"{key} is missing: it is there in what spraylab writes"
    if kind == "value_error":
        return f"{key}: {said.removeprefix('Value error, ')}"
    return f"{key} is {shown(value)}, not {meant}" if meant else f"{key} is {shown(value)}: {said.lower()}"


def parse_runs(content: bytes, *, of_programs: bool) -> pd.DataFrame:
    """The rows of runs.csv: text as it is, numbers as numbers. Raises DamageError, with the line."""
    columns, rows, lines = _table(content, (*_ALWAYS, *(_OF_PROGRAMS if of_programs else _OF_REPLAYS)))
    for column, other in _TOGETHER.items():
        if column in columns and other not in columns:
            raise DamageError(f"has a column {column}, and no {other}", 1)
    frame = pd.DataFrame(
        {
            name: _column(name, [row[place] for row in rows], lines)
            for place, name in enumerate(columns)
        },
        columns=columns,
    )  # fmt: skip
    _check_run_ids(frame.run_id.tolist(), lines)
    return frame


def parse_failed_runs(content: bytes) -> pd.DataFrame:
    """run_id, reason and time of every row of failed_runs.csv. Raises DamageError, with the line."""
    columns, rows, lines = _table(content, FAILED_COLUMNS)
    frame = pd.DataFrame(rows, columns=columns, dtype=str)[list(FAILED_COLUMNS)]
    _check_run_ids(frame.run_id.tolist(), lines)
    return frame


def check_frame(name: str, run_id: str, frame: pd.DataFrame) -> None:
    """Raise DamageError unless `frame`, read from its file, is of that run and has what figures are drawn from."""
    numbers, words = _OF_FRAMES.get(name, (set(), set()))
    if missing := sorted(({"run_id"} | numbers | words) - set(frame.columns)):
        raise DamageError(f"has no column {missing[0]}")
    if not (frame.run_id == run_id).all():
        raise DamageError(f"holds rows of another run than {run_id}")
    for column in sorted(numbers):
        if not pd.api.types.is_numeric_dtype(frame[column]):
            raise DamageError(f"{column} is not a column of numbers")


def _table(content: bytes, needed: Sequence[str]) -> tuple[list[str], list[list[str]], list[int]]:
    """The header of a CSV file, its rows, and the line that each of these ends on."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header, rows, lines = next(reader, []), [], []
        for row in reader:
            if len(row) != len(header):
                cut = "; its end may have been cut off" if len(row) < len(header) else ""
                raise DamageError(f"{len(row)} values under {len(header)} headings{cut}", reader.line_num)
            rows.append(row)
            lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DamageError("is not UTF-8 text", line) from error
    except csv.Error as error:
        raise DamageError(f"not valid CSV: {error}; its end may have been cut off", reader.line_num) from error
    if missing := [name for name in needed if name not in header]:
        more = f", nor {', '.join(missing[1:3])}" if missing[1:] else ""
        raise DamageError(f"there is no column {missing[0]}{more}", 1)
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DamageError(f"there are two columns {quote(twice)}", 1)
    return header, rows, lines


def _column(name: str, cells: Sequence[str], lines: Sequence[int]) -> list[Any] | pd.Series:
    if name in _TEXT:
        allowed = _allowed(name)
        for cell, line in zip(cells, lines, strict=True):
            if problem := allowed(cell):
                raise DamageError(f"{name} is {shown(cell)}; {problem}", line)
        return pd.Series(cells, dtype=str)
    odd = next((place for place, cell in enumerate(cells) if cell and not _is_number(cell)), None)
    if name == "seed":
        odd = next((place for place, cell in enumerate(cells) if not _WHOLE.fullmatch(cell)), odd)
    if odd is not None:
        if name not in _NUMBERS:
            return pd.Series(cells, dtype=str)  # another version's
        right = "a whole number" if name == "seed" else f"a number up to {_MOST:.0e}, or nothing"
        raise DamageError(f"{name} is {shown(cells[odd])}; it takes {right}", lines[odd])
    if cells and all(map(_WHOLE.fullmatch, cells)):
        return pd.Series(map(int, cells), dtype="int64")
    return pd.Series([float(cell or "nan") for cell in cells], dtype="float64")


def _is_number(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell)) and abs(float(cell)) <= _MOST


def _allowed(name: str) -> Callable[[str], str]:
    """Give a function that says what would be right, or nothing where it is."""
    if name in _WORDS:
        words = _WORDS[name]
        return lambda cell: "" if cell in words else f"it takes {' or '.join(word or 'nothing' for word in words)}"
    if name in _NAMES:
        return lambda cell: "" if 0 < len(cell) <= _LONGEST_NAME and cell.isprintable() else "it takes a name"
    return lambda _cell: ""


def _check_run_ids(run_ids: Sequence[str], lines: Sequence[int]) -> None:
    seen: dict[str, int] = {}
    for run_id, line in zip(run_ids, lines, strict=True):
        plain = run_id.isprintable() and "/" not in run_id and not run_id.startswith(".")
        if not plain or not 0 < len(run_id) <= _LONGEST_RUN_ID:
            raise DamageError(f"run_id is {shown(run_id)}; it takes one such as 001-alltoall-spray-s1", line)
        if run_id in seen:
            raise DamageError(f"run_id {quote(run_id)} is in line {seen[run_id]} too; each run has one", line)
        seen[run_id] = line
