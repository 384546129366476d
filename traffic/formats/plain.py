"""A plain table of tasks (`*.csv`): what a spreadsheet or three lines of any language can write.

    src,dst,bytes,seconds,start,channel,waits
    0,1,1000,,,,
    1,,,0.25,,,0
    1,2,1000,,,,1

A row is a flow, or with `seconds` a computation of rank `src`. `waits` has the rows that must be done before, in
whatever order they are, counted from 0, with spaces between. Columns may come in any order, and all but `src` may be
missing: a start is 0 s, a channel 0.
Rows of equal src, dst and channel share a connection and so keep their order.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from emulator.inputs import quote
from traffic.formats.format import Format, FormatError
from traffic.formats.order import CircleError, in_order
from traffic.formats.text import Line, read_text
from traffic.jobs.graph import MAX_TASKS
from traffic.schedule import Compute, Flow, Schedule

SAYS = "a table of flows"
COLUMNS = ("src", "dst", "bytes", "seconds", "start", "channel", "step", "iteration", "waits", "label")
MAX_RANKS = 65_536


def read_table(path: Path) -> Schedule:
    """Return the rows of file `path` as a schedule. Raises FormatError."""
    try:
        rows = list(csv.reader(read_text(path, SAYS).splitlines()))
    except csv.Error as error:
        raise FormatError(f"{path}: is no table of flows, as it is not cells with commas between") from error
    header = [word.strip() for word in rows[0]] if rows else []
    if "src" not in header or len(set(header)) < len(header) or not set(header) <= set(COLUMNS):
        raise FormatError(
            f"{path}:1: is no table of flows: its first line names columns once each, of {', '.join(COLUMNS)}"
        )
    if len(rows) > MAX_TASKS:
        raise FormatError(f"{path}: has {len(rows):,} rows, more than the {MAX_TASKS:,} that are read")
    tasks = [
        _task(Line(path, number, tuple(row)), dict(zip(header, row, strict=False)))
        for number, row in enumerate(rows[1:], start=2)
        if row
    ]
    flows = [task for task in tasks if isinstance(task, Flow)]
    if not flows:
        raise FormatError(f"{path}: has no flow: add a row such as 0,1,1000 below src,dst,bytes")
    return _schedule(path, tasks, flows)


def _schedule(path: Path, tasks: list[Flow | Compute], flows: list[Flow]) -> Schedule:
    """Number the tasks as schedules do: flows first, each after the flows it waits for."""
    for task in tasks:
        if task.waits_for and task.waits_for[-1] >= len(tasks):
            raise FormatError(
                f"{path}:{task.id}: waits for row {task.waits_for[-1]}: with {len(tasks)} rows, they are 0 to "
                f"{len(tasks) - 1}"
            )
    try:
        order = in_order([task.waits_for for task in tasks])
    except CircleError as error:
        raise FormatError(f"{path}:{tasks[error.place].id}: this row waits for itself, through others") from error
    order = [place for place in order if isinstance(tasks[place], Flow)]
    order += [place for place, task in enumerate(tasks) if isinstance(task, Compute)]
    id_of = {place: number for number, place in enumerate(order)}
    numbered = [
        replace(
            tasks[place], id=id_of[place], waits_for=tuple(sorted(id_of[other] for other in tasks[place].waits_for))
        )
        for place in order
    ]
    sent: Counter[int] = Counter()
    for flow in flows:
        sent[flow.src] += flow.size_bytes
    return Schedule(
        "table",
        path.stem,
        1 + max(max(task.src, task.dst) if isinstance(task, Flow) else task.rank for task in tasks),
        len({flow.channel for flow in flows}),
        max(sent.values()),
        [task for task in numbered if isinstance(task, Flow)],
        computes=tuple(task for task in numbered if isinstance(task, Compute)),
    )


def _task(line: Line, row: Mapping[str, str]) -> Flow | Compute:
    """Return a row, its line as its id and the rows it waits for as it names them."""
    cells = {key: value.strip() for key, value in row.items() if value.strip()}
    if len(line.words) > len(row):
        line.fail(f"has {len(line.words)} cells, and the first line names {len(row)} columns")

    def whole(key: str, default: int | None = None) -> int:
        if key not in cells and default is not None:
            return default
        return line.whole(key, cells.get(key, ""))

    def number(key: str) -> float:
        return line.number_of(key, cells[key]) if key in cells else 0.0

    waits = tuple(sorted({line.whole("a row of waits", word) for word in cells.get("waits", "").split()}))
    src = whole("src")
    if "seconds" in cells:
        if "dst" in cells or "bytes" in cells:
            line.fail("has seconds, so it is a computation, and a dst or bytes besides: keep either")
        _check_rank(line, src)
        return Compute(line.number, src, number("seconds"), waits, cells.get("label", ""), whole("iteration", 0))
    dst, size = whole("dst"), whole("bytes")
    for rank in (src, dst):
        _check_rank(line, rank)
    if src == dst:
        line.fail(f"{src} sends to itself: src and dst must differ")
    if not size:
        line.fail("bytes is 0: write 1 or more")
    return Flow(line.number, src, dst, size, whole("step", 0), whole("channel", 0), waits, number("start"))


def _check_rank(line: Line, rank: int) -> None:
    if rank >= MAX_RANKS:
        line.fail(f"rank {quote(str(rank))} is too large: write 0 to {MAX_RANKS - 1}")


def write_table(schedule: Schedule) -> str:
    """Return a schedule as a table; read again, it is the same graph."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(COLUMNS)
    for flow in schedule.flows:
        start = repr(flow.start_s) if flow.start_s else ""
        waits = " ".join(map(str, flow.waits_for))
        rows.writerow([flow.src, flow.dst, flow.size_bytes, "", start, flow.channel, flow.step, "", waits, ""])
    for each in schedule.computes:
        waits = " ".join(map(str, each.waits_for))
        rows.writerow([each.rank, "", "", repr(each.seconds), "", "", "", each.iteration, waits, each.label])
    return out.getvalue()


FORMAT = Format(
    key="table", suffix=".csv", says="a plain table of flows and computations", read=read_table, write=write_table
)
