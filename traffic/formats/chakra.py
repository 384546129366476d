"""Chakra execution traces (mlcommons/chakra): what every rank of a real or made-up job did, as a graph a rank.

A job is a zip of a file a rank, whose names end in `.0.et`, `.1.et` and so on (a file may be gzip), and of
`comm_group.json` if collectives have a `pg_name`: `{"1": [0, 1]}`. A single `.et` file is what all ranks do.

The k-th collective of a group is the same at all its ranks, and the k-th receive of a source and tag is of the k-th
such send. What traces are known to have wrong is mended and counted: collectives listed for the host as well as for the
device, waits for nodes that are not there, and nodes of one stream that do not say that they wait for each other.

What the file does not say is whether an ALL_GATHER's `comm_size` is a rank's shard, as in ASTRA-sim, or the total.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import NoReturn

from emulator.inputs import InputError, quote, read_input
from traffic.formats.astra import Gathered
from traffic.formats.format import Format, FormatError
from traffic.formats.order import CircleError, in_order
from traffic.formats.protobuf import WireError
from traffic.formats.trace import COLLECTIVE, COMPUTE, RECEIVE, SEND, Node, nodes
from traffic.jobs.graph import MAX_TASKS, Graph, JobError, Scale
from traffic.schedule import Schedule

COLLECTIVES = {0: "allreduce", 2: "allgather", 5: "broadcast", 6: "alltoall", 7: "reducescatter"}

MOST_BYTES = 64 * 1024 * 1024
_GROUPS = "comm_group.json"
_RANK = re.compile(r"(?:^|\.)([0-9]{1,5})\.et$")
_MICROSECOND = 1e-6
_ODD_ZIP = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, KeyError)

_Groups = Mapping[str, Sequence[int]]
_Here = tuple[int, int]
"""A rank, and the id of one of its nodes."""


@dataclass
class _Task:
    """A node, or the nodes that are one collective; `waits` are places of tasks."""

    members: dict[int, Node]
    group: tuple[int, ...] = ()
    waits: set[int] = field(default_factory=set)

    @property
    def node(self) -> Node:
        return next(iter(self.members.values()))


def read_traces(path: Path, *, ranks: int, scale: Scale | None = None, allgather: Gathered = "shard") -> Schedule:
    """Return the job in file `path`: a zip's own ranks, or `ranks` that all do the same. Raises FormatError."""
    files, groups = _files(path)
    by_rank: list[list[Node]] = []
    for name, data in files:
        try:
            by_rank.append(nodes(data, MOST_BYTES))
        except WireError as error:
            raise FormatError(f"{path}: {name} is no Chakra execution trace: {error}") from error
        if not by_rank[-1]:
            raise FormatError(f"{path}: {name} has no node")
    if not zipfile.is_zipfile(path):
        by_rank *= ranks
    if sum(map(len, by_rank)) > MAX_TASKS:
        raise FormatError(f"{path}: more than {MAX_TASKS:,} nodes: use fewer ranks or iterations")
    return _Job(path, by_rank, groups).schedule(scale, allgather)


def _files(path: Path) -> tuple[list[tuple[str, bytes]], _Groups]:
    """Return the traces by rank, and the groups."""
    try:
        data = read_input(path, MOST_BYTES)
    except InputError as error:
        raise FormatError(f"{path}: {error}") from error
    if not zipfile.is_zipfile(path):
        return [(path.name if path.name.isprintable() else "it", data)], {}
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            held, left = dict[str, bytes](), MOST_BYTES
            for name in archive.namelist():
                with archive.open(name) as file:
                    held[name] = file.read(left + 1)
                left -= len(held[name])
                if left < 0:
                    raise FormatError(f"{path}: holds more than {MOST_BYTES} bytes")
    except _ODD_ZIP as error:
        raise FormatError(f"{path}: is not a whole zip of execution traces") from error
    found = {int(match[1]): name for name in held if (match := _RANK.search(name.removesuffix(".gz")))}
    if sorted(found) != list(range(len(found))) or not found:
        raise FormatError(f"{path}: has no trace a rank: names end in .0.et, .1.et and so on, none left out")
    return [(quote(found[rank], 60), held[found[rank]]) for rank in sorted(found)], _groups(path, held, len(found))


def _groups(path: Path, held: Mapping[str, bytes], ranks: int) -> _Groups:
    text = next((data for name, data in held.items() if Path(name).name == _GROUPS), b"{}")
    try:
        groups = json.loads(text)
        if not isinstance(groups, dict):
            raise TypeError
        found = {str(name): [int(rank) for rank in members] for name, members in groups.items()}
        if any(not 0 <= rank < ranks for members in found.values() for rank in members):
            raise ValueError
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise FormatError(
            f'{path}: {_GROUPS} is not groups of ranks 0 to {ranks - 1}, such as {{"1": [0, 1]}}'
        ) from error
    return {name: tuple(sorted(set(members))) for name, members in found.items()}


class _Job:
    """Nodes of all ranks, on their way to one graph."""

    def __init__(self, path: Path, by_rank: Sequence[Sequence[Node]], groups: _Groups) -> None:
        self._path, self._by_rank, self._groups = path, by_rank, groups
        self._repairs: Counter[str] = Counter()
        self._tasks: list[_Task] = []
        self._places: dict[_Here, int] = {}
        self._received: dict[int, int] = {}  # of a receive, its send
        self._waits: dict[_Here, list[int]] = {}  # ids of the same rank's nodes

    def schedule(self, scale: Scale | None, allgather: str) -> Schedule:
        for rank, listed in enumerate(self._by_rank):
            self._mend(rank, listed)
        self._list()
        self._match()
        for (rank, id), place in self._places.items():
            self._tasks[place].waits |= {self._places[rank, other] for other in self._waits[rank, id]}
        try:
            order = in_order([task.waits for task in self._tasks])
        except CircleError as error:
            node = self._tasks[error.place].node
            self._fail(f"node {node.id} ({quote(node.name)}) waits for itself, through others or other ranks")
        try:
            graph = Graph(len(self._by_rank), scale=scale)
            graph.repairs += (f"{count} {what}" for what, count in self._repairs.items() if count)
            handles: dict[_Here, int] = {}
            for place in order:
                self._add(graph, place, handles, allgather)
            return graph.schedule("chakra", self._path.stem)
        except JobError as error:
            raise FormatError(f"{self._path}: {error}") from error

    def _mend(self, rank: int, listed: Sequence[Node]) -> None:
        known = {node.id for node in listed}
        if len(known) < len(listed):
            self._fail(f"rank {rank} has two nodes of one id")
        last: dict[int, int] = {}
        for node in listed:
            there = [other for other in node.waits if other in known]
            self._repairs["waits for nodes that are not there are left out"] += len(node.waits) - len(there)
            if node.type == COMPUTE and not node.lasts_us and node.number("num_ops"):
                self._repairs["computations with operations and no duration take no time"] += 1
            self._waits[rank, node.id] = there
        for node in sorted(listed, key=lambda node: node.start_us):
            stream = node.number("stream")
            if stream is None or node.on_host:
                continue
            if stream in last and last[stream] not in node.waits:
                self._repairs["nodes wait for the one before on their stream, which they did not say"] += 1
                self._waits[rank, node.id].append(last[stream])
            last[stream] = node.id

    def _list(self) -> None:
        """Give every node its place, and the k-th collectives of a group the same one."""
        turns: Counter[tuple[int, str]] = Counter()
        together: dict[tuple[str, int], int] = {}
        before: dict[str, int] = {}
        for rank, listed in enumerate(self._by_rank):
            on_device = any(node.type == COLLECTIVE and not node.on_host for node in listed)
            for node in listed:
                twice = node.type == COLLECTIVE and node.on_host and on_device
                self._repairs["collectives that the host lists as well count once"] += twice
                place = len(self._tasks)
                if node.type == COLLECTIVE and not twice:
                    name = str(node.attributes.get("pg_name", ""))
                    turn = turns[rank, name]
                    turns[rank, name] += 1
                    place = together.setdefault((name, turn), place)
                if place == len(self._tasks):
                    self._tasks.append(_Task({}, self._group(node) if not twice and node.type == COLLECTIVE else ()))
                self._tasks[place].members[rank] = node
                self._places[rank, node.id] = place
        for (name, _), place in sorted(together.items(), key=lambda item: item[0]):
            self._check(self._tasks[place], name)
            if name in before:
                self._tasks[place].waits.add(before[name])
            before[name] = place

    def _group(self, node: Node) -> tuple[int, ...]:
        name = str(node.attributes.get("pg_name", ""))
        if name and name not in self._groups:
            self._repairs[f"collectives of a group that {_GROUPS} does not have are of all ranks"] += 1
        return tuple(self._groups.get(name, range(len(self._by_rank))))

    def _check(self, task: _Task, name: str) -> None:
        """All ranks of a group, and none else, must have asked for the same."""
        group = f"group {quote(name)}" if name else "all ranks"
        if set(task.members) != set(task.group):
            odd = min(set(task.members) ^ set(task.group))
            self._fail(f"rank {odd} has other collectives than the rest of {group}")
        asked = {(node.number("comm_type"), node.number("comm_size")) for node in task.members.values()}
        if len(asked) > 1:
            self._fail(f"ranks of {group} differ in what they ask for: {_named(asked)}")

    def _match(self) -> None:
        """Have every receive wait for its send."""
        sent: dict[tuple[int | None, ...], list[int]] = defaultdict(list)
        for place, rank, node in self._nodes(SEND):
            sent[rank, node.number("comm_dst"), node.number("comm_tag")].append(place)
        turns: Counter[tuple[int | None, ...]] = Counter()
        for place, rank, node in self._nodes(RECEIVE):
            way = node.number("comm_src"), rank, node.number("comm_tag")
            if turns[way] >= len(sent[way]):
                zipped = zipfile.is_zipfile(self._path)
                right = "" if zipped else ": a file alone is what all ranks do, so put those of all ranks in a zip"
                self._fail(f"node {node.id} of rank {rank} receives from rank {way[0]} what is never sent{right}")
            self._tasks[place].waits.add(sent[way][turns[way]])
            self._received[place] = sent[way][turns[way]]
            turns[way] += 1

    def _nodes(self, kind: int) -> Iterator[tuple[int, int, Node]]:
        for place, task in enumerate(self._tasks):
            for rank, node in task.members.items():
                if node.type == kind:
                    yield place, rank, node

    def _add(self, graph: Graph, place: int, handles: dict[_Here, int], allgather: str) -> None:
        task, node = self._tasks[place], self._tasks[place].node
        after = {
            rank: [handles[rank, other] for other in self._waits[rank, each.id]] for rank, each in task.members.items()
        }
        if task.group:
            kind, size = node.number("comm_type") or 0, node.number("comm_size")
            if kind not in COLLECTIVES or size is None or size < 0:
                self._fail(
                    f"node {node.id} ({quote(node.name)}) has comm_type {kind} and comm_size {size}: types are "
                    f"{', '.join(map(str, COLLECTIVES))}, and a size is 0 or more"
                )
            whole = size * len(task.group) if kind == 2 and allgather == "shard" else size
            name = str(node.attributes.get("pg_name", ""))
            done = graph.collective(COLLECTIVES[kind], whole, task.group, after, name)
            handles |= {(rank, each.id): done[rank] for rank, each in task.members.items()}
            return
        [rank] = task.members
        if node.type == SEND:
            to, size, tag = (node.number(f"comm_{what}") for what in ("dst", "size", "tag"))
            if to is None or size is None or size < 0:
                self._fail(f"node {node.id} of rank {rank} sends, and lacks a comm_dst or a comm_size")
            handles[rank, node.id] = graph.send(rank, to, size, after[rank], ("tag", tag))
        elif node.type == RECEIVE:
            sender = self._tasks[self._received[place]]
            from_rank, sent = next(iter(sender.members.items()))
            handles[rank, node.id] = graph.join(rank, [*after[rank], handles[from_rank, sent.id]])
        else:
            lasts_s = node.lasts_us * _MICROSECOND if node.type == COMPUTE else 0.0
            handles[rank, node.id] = graph.compute(rank, lasts_s, after[rank], node.name[:40])

    def _fail(self, message: str) -> NoReturn:
        raise FormatError(f"{self._path}: {message}")


def _named(asked: set[tuple[int | None, int | None]]) -> str:
    return ", ".join(f"comm_type {kind} of {size} bytes" for kind, size in sorted(asked, key=str)[:3])


FORMAT = Format(key="chakra", suffix=".et", says="Chakra execution traces, a zip of a file a rank", read=read_traces)
