"""What NCCL's inspector saw of a real job: JSON lines, of all its processes in one file (NVIDIA/nccl, its plugin).

    {"header": {"id": "0x7f", "rank": 0, "n_ranks": 2},
     "metadata": {"hostname": "a", "pid": 7, "dump_timestamp_us": 900},
     "coll_perf": {"coll": "AllReduce", "coll_sn": 1, "coll_msg_size_bytes": 4096, "coll_exec_time_us": 100}}

A line is a collective of one rank of a communicator; a process, told by host and pid, is a rank of the job. What lies
between the end of one collective of a process and the start of its next counts as computing: so whatever overlapped is
taken apart, and a job does not hide here what it did not hide there. The end is the line's time, or the end of its last
kernel where the file is verbose. Lines without a collective are left out, and counted.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emulator.inputs import quote
from traffic.formats.format import Format, FormatError
from traffic.formats.text import read_text
from traffic.jobs.graph import Graph, JobError, Scale
from traffic.schedule import Schedule

SAYS = "lines of NCCL's inspector"
COLLECTIVES = {
    **{"AllReduce": "allreduce", "AllGather": "allgather", "ReduceScatter": "reducescatter"},
    **{"AlltoAll": "alltoall", "AllToAll": "alltoall", "Broadcast": "broadcast"},
}

_MICROSECOND = 1e-6
_Process = tuple[str, int]


class _Seen(NamedTuple):
    """A collective as one process saw it."""

    line: int
    process: _Process
    communicator: str
    rank: int
    of_ranks: int
    number: int
    collective: str
    size_bytes: int
    start_us: float
    end_us: float


def read_inspected(path: Path, *, scale: Scale | None = None) -> Schedule:
    """Return the collectives in file `path`, and the computing between them, as a schedule. Raises FormatError."""
    seen, repairs = _read(path)
    processes = {process: rank for rank, process in enumerate(sorted({each.process for each in seen}))}
    members = _members(path, seen)
    _check_same(path, seen)
    try:
        graph = Graph(len(processes), scale=scale)
        graph.repairs += repairs
        _place(path, graph, seen, processes, members)
        return graph.schedule("inspector", path.stem)
    except JobError as error:
        raise FormatError(f"{path}: {error}") from error


def _read(path: Path) -> tuple[list[_Seen], list[str]]:
    found, others = [], 0
    for number, text in enumerate(read_text(path, SAYS).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}:{number}: is no JSON, and so not {SAYS}") from error
        if not isinstance(line, dict) or "coll_perf" not in line:
            others += 1
            continue
        try:
            found.append(_seen(number, line))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"{path}:{number}: lacks, or has as something else, {quote(str(error), 60)}") from error
    if not found:
        raise FormatError(f"{path}: has no line with coll_perf, and so not {SAYS}")
    return found, [f"{others} lines without a collective are left out"] if others else []


def _seen(number: int, line: Mapping[str, Any]) -> _Seen:
    """Raises KeyError, TypeError or ValueError for what a line lacks."""
    header, about, perf = line.get("header", line), line.get("metadata", line), line["coll_perf"]
    if perf["coll"] not in COLLECTIVES:
        raise ValueError(f"coll: {perf['coll']} instead of one of {', '.join(COLLECTIVES)}")
    end_us = float(about["dump_timestamp_us"])
    if kernels := perf.get("event_trace_ts", {}).get("kernel_events"):
        end_us = float(max(kernel["kernel_stop_ts"] for kernel in kernels))
    counts = [int(header["rank"]), int(header["n_ranks"]), int(perf["coll_sn"]), int(perf["coll_msg_size_bytes"])]
    lasted_us = float(perf["coll_exec_time_us"])
    if min(counts) < 0 or not 0 <= lasted_us < 1e15 or not abs(end_us) < 1e18:
        raise ValueError("numbers that are 0 or more")
    rank, of_ranks, turn, size = counts
    process = str(about["hostname"]), int(about["pid"])
    return _Seen(
        *(number, process, str(header["id"]), rank, of_ranks, turn),
        *(COLLECTIVES[perf["coll"]], size, end_us - lasted_us, end_us),
    )


def _members(path: Path, seen: Sequence[_Seen]) -> dict[str, list[_Process]]:
    """Return the processes of every communicator, in the order of their ranks in it."""
    found: dict[str, dict[int, _Process]] = defaultdict(dict)
    for each in seen:
        if found[each.communicator].setdefault(each.rank, each.process) != each.process:
            raise FormatError(
                f"{path}:{each.line}: rank {each.rank} of communicator {quote(each.communicator)} is two processes"
            )
    for each in seen:
        missing = each.of_ranks - len(found[each.communicator])
        if missing or set(found[each.communicator]) != set(range(each.of_ranks)):
            raise FormatError(
                f"{path}: communicator {quote(each.communicator)} has {each.of_ranks} ranks and the file lines of "
                f"{len(found[each.communicator])}: put the files of all processes in one"
            )
    return {name: [ranks[rank] for rank in sorted(ranks)] for name, ranks in found.items()}


def _check_same(path: Path, seen: Sequence[_Seen]) -> None:
    """All ranks of a communicator must have asked for the same, as often."""
    first: dict[tuple[str, int], _Seen] = {}
    count: dict[tuple[str, int], int] = defaultdict(int)
    for each in seen:
        turn = each.communicator, each.number
        other = first.setdefault(turn, each)
        count[turn] += 1
        if (other.collective, other.size_bytes) != (each.collective, each.size_bytes):
            raise FormatError(
                f"{path}:{each.line}: collective {each.number} of communicator {quote(each.communicator)} is "
                f"{each.collective} of {each.size_bytes} bytes here, and {other.collective} of {other.size_bytes} in "
                f"line {other.line}"
            )
    for turn, each in first.items():
        if count[turn] != each.of_ranks:
            raise FormatError(
                f"{path}:{each.line}: collective {each.number} of communicator {quote(each.communicator)} is there "
                f"{count[turn]} times instead of once for each of {each.of_ranks} ranks"
            )


def _place(
    path: Path,
    graph: Graph,
    seen: Sequence[_Seen],
    processes: Mapping[_Process, int],
    members: Mapping[str, Sequence[_Process]],
) -> None:
    """Add collectives in an order that all processes agree with; FormatError where there is none."""
    queues: dict[_Process, deque[_Seen]] = defaultdict(deque)
    for each in sorted(seen, key=lambda each: (each.start_us, each.end_us, each.number)):
        queues[each.process].append(each)
    ended: dict[_Process, tuple[float, list[int]]] = {process: (queues[process][0].start_us, []) for process in queues}
    left = len(seen)
    waiting = deque(sorted(members))
    idle = 0
    while left:
        if idle > len(waiting):
            raise FormatError(f"{path}: processes have their communicators' collectives in orders that no run can have")
        waiting.rotate(-1)
        name = waiting[0]
        group = members[name]
        heads = [queues[process][0] for process in group if queues[process]]
        if (
            len(heads) < len(group)
            or len({(head.communicator, head.number) for head in heads}) > 1
            or (heads[0].communicator != name)
        ):
            idle += 1
            continue
        idle, after = 0, {}
        for process, head in zip(group, heads, strict=True):
            last_us, tasks = ended[process]
            gap_s = max(0.0, head.start_us - last_us) * _MICROSECOND
            after[processes[process]] = [graph.compute(processes[process], gap_s, tasks, "between")] if gap_s else tasks
        ranks = [processes[process] for process in group]
        done = graph.collective(heads[0].collective, heads[0].size_bytes, ranks, after, name)
        for process, head in zip(group, heads, strict=True):
            ended[process] = head.end_us, [done[processes[process]]]
            queues[process].popleft()
        left -= len(group)


FORMAT = Format(key="inspector", suffix=".jsonl", says="a real job, as lines of NCCL's inspector", read=read_inspected)
