"""Connection matrices of the htsim simulator (`*.cm`), read as schedules.

The format is that of htsim's own reader (Broadcom/csg-htsim, sim/datacenter/connection_matrix.cpp): a header of
`Nodes N`, `Connections M` and, if any, `Triggers T`; then lines, in any order, of

    src->dst id N start PS size BYTES send_done_trigger T       (or `trigger T` in place of `start PS`)
    src->dst id N msg M start PS size BYTES                     (as htsim of Ultra Ethernet has it)
    trigger id T oneshot                                        (or `multishot`, or `barrier count N`)

A connection starts at its time in picoseconds or when its trigger fires: a oneshot starts all that wait for it, a
barrier does so at its count-th firing, a multishot starts one more each time. Here `send_done_trigger` and
`recv_done_trigger` both fire when the last byte is received (htsim's sender is done when that is acknowledged), and the
k-th connection in the file that fires a multishot starts the k-th that waits for it. Lines with `msg`, by itself or
with a number, are messages: those of one id share a connection, and go one after the other. `prio` is checked and not
used.

A matrix may be of a few hosts of a larger cluster and use its numbers: with `nodes: active`, ranks are those that send
or receive anything, in their order, and else all that the header counts.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

from emulator.inputs import quote
from traffic.formats.format import Format, FormatError
from traffic.formats.htsim_writer import write_matrix
from traffic.formats.text import Line, read_lines
from traffic.jobs.graph import MAX_TASKS
from traffic.schedule import Flow, Schedule

_PICOSECONDS = 10**12
_HEADER = ("Nodes", "Connections", "Triggers", "Failures")
_CONNECTION_KEYS = ("id", "start", "size", "trigger", "send_done_trigger", "recv_done_trigger", "prio", "msg")
_TRIGGER_KINDS = ("oneshot", "multishot", "barrier")
_ENDS = re.compile(r"([0-9]{1,18})->([0-9]{1,18})")
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class _Connection:
    line: Line
    src: int
    dst: int
    size_bytes: int
    start_s: float
    id: int | None
    message: bool
    trigger: int | None
    fires: Sequence[int]

    def __str__(self) -> str:
        return f"{self.src}->{self.dst} (line {self.line.number})"


@dataclass(frozen=True)
class _Trigger:
    line: Line
    id: int
    kind: str
    count: int | None


def load_matrix(
    path: str | Path, *, nodes: Annotated[Literal["all", "active"], "one of all, active"] = "all"
) -> Schedule:
    """The matrix in file `path` as a schedule, its connections in the order of the file as far as triggers allow.

    `size_bytes` is the most that any one rank sends. Connections of one pair of ranks are channels of their own, as
    each is a connection of its own in htsim; messages of one id have one in common. `step` counts the triggers a
    connection waits for, one after the other.

    Raises FormatError.
    """
    path = Path(path)
    ranks, connections, triggers = _parse(path)
    waits = _waits(connections, triggers)
    place: dict[int, int] = {}  # of a connection of the file, in the schedule
    flows: list[Flow] = []
    pairs: Counter[tuple[int, int]] = Counter()
    shared: dict[int | None, int] = {}  # the channel of messages, by id
    sent_bytes: Counter[int] = Counter()
    for index in _startable_order(connections, waits):
        connection = connections[index]
        pair = connection.src, connection.dst
        waits_for = tuple(sorted(place[earlier] for earlier in waits[index]))
        channel = shared.get(connection.id) if connection.message else None
        if channel is None:
            channel = pairs[pair]
            pairs[pair] += 1
        if connection.message:
            shared[connection.id] = channel
        place[index] = len(flows)
        flows.append(
            Flow(
                id=len(flows),
                src=connection.src,
                dst=connection.dst,
                size_bytes=connection.size_bytes,
                step=1 + max((flows[earlier].step for earlier in waits_for), default=-1),
                channel=channel,
                waits_for=waits_for,
                start_s=connection.start_s,
            )
        )
        sent_bytes[connection.src] += connection.size_bytes
    if nodes == "active":
        ranks, flows = _active(flows)
    return Schedule("matrix", path.stem, ranks, max(pairs.values()), max(sent_bytes.values()), flows)


def _active(flows: Sequence[Flow]) -> tuple[int, list[Flow]]:
    """Return how many ranks have anything to do, and their flows with these ranks numbered anew."""
    number = {rank: place for place, rank in enumerate(sorted({end for flow in flows for end in (flow.src, flow.dst)}))}
    return len(number), [replace(flow, src=number[flow.src], dst=number[flow.dst]) for flow in flows]


FORMAT = Format(key="matrix", suffix=".cm", says="an htsim connection matrix", read=load_matrix, write=write_matrix)


def _parse(path: Path) -> tuple[int, list[_Connection], dict[int, _Trigger]]:
    """Nodes, connections and triggers of a file, each line right by itself and all as many as the header says."""
    header: dict[str, tuple[int, Line]] = {}
    connections: list[_Connection] = []
    triggers: dict[int, _Trigger] = {}
    ids: dict[int, _Connection] = {}
    for line in read_lines(path, "a connection matrix", comment="#"):
        word = line.words[0]
        if word in _HEADER:
            if word in header:
                line.fail(f"a second '{word}' line; the first is line {header[word][1].number}")
            if len(line.words) != 2:
                line.fail(f"'{word}' takes one number, as in '{word} 16'")
            header[word] = line.whole(word, line.words[1]), line
        elif "->" in word:
            if "Nodes" not in header:
                line.fail("a connection before the line 'Nodes N', which belongs to the header")
            connection = _parse_connection(line, header["Nodes"][0])
            if connection.id is not None:
                _check_id(connection, ids.setdefault(connection.id, connection))
            connections.append(connection)
            if len(connections) > MAX_TASKS:
                line.fail(f"more connections than the {MAX_TASKS:,} that are read")
        elif word == "trigger":
            trigger = _parse_trigger(line)
            if trigger.id in triggers:
                line.fail(f"trigger {trigger.id} is already defined in line {triggers[trigger.id].line.number}")
            triggers[trigger.id] = trigger
        elif word == "failure":
            line.fail("link failures are not traffic: take this line and the 'Failures' line out")
        else:
            starts = ", ".join(_HEADER[:-1])
            line.fail(f"unknown keyword {quote(word)}: a line begins with src->dst, trigger, {starts}")

    _check_header(path, header, {"Connections": len(connections), "Triggers": len(triggers)})
    return header["Nodes"][0], connections, triggers


def _check_id(connection: _Connection, first: _Connection) -> None:
    """Raise FormatError where the first connection of that id is another, and they are no messages of one pair."""
    if first is connection:
        return
    if not (first.message and connection.message):
        connection.line.fail(f"id {connection.id} is already taken by line {first.line.number}")
    if (first.src, first.dst) != (connection.src, connection.dst):
        connection.line.fail(f"messages of id {connection.id} go {first}: give those of another pair another id")


def _check_header(path: Path, header: Mapping[str, tuple[int, Line]], found: Mapping[str, int]) -> None:
    if "Nodes" not in header:
        raise FormatError(f"{path}: no line 'Nodes N': a connection matrix begins with it")
    for name, count in found.items():
        if name in header:
            said, line = header[name]
            if said != count:
                line.fail(f"the header says {name} {said}, but the file has {count}")
        elif count or name == "Connections":
            raise FormatError(f"{path}: the header has no line '{name} {count}'")
    if "Failures" in header and header["Failures"][0]:
        header["Failures"][1].fail("link failures are not traffic: take this line out")
    if not found["Connections"]:
        raise FormatError(f"{path}: has no connection: add a line such as '0->1 id 1 start 0 size 2000000'")


def _parse_connection(line: Line, nodes: int) -> _Connection:
    ends = _ENDS.fullmatch(line.words[0])
    if not ends:
        line.fail(f"{quote(line.words[0])} is no connection: write src->dst without spaces, as in 0->13")
    src, dst = int(ends[1]), int(ends[2])
    for rank in (src, dst):
        if rank >= nodes:
            line.fail(f"rank {rank} is out of range: with Nodes {nodes}, ranks are 0 to {nodes - 1}")
    if src == dst:
        line.fail(f"{src}->{dst} sends to itself: source and destination must differ")
    message, words = "msg" in line.words, list(line.words[1:])
    if message and words[words.index("msg") + 1 :][:1] and words[words.index("msg") + 1] in _CONNECTION_KEYS:
        words.remove("msg")  # by itself, as messages need no numbers
    fields = _fields(line, words, _CONNECTION_KEYS)
    numbers = {key: line.whole(key, value) for key, value in fields.items() if key != "start"}
    if "size" not in numbers:
        line.fail("no size: add 'size BYTES'")
    if not numbers["size"]:
        line.fail("size 0 never ends: give the number of bytes to send, 1 or more")
    if message and "id" not in numbers:
        line.fail("a message without an id: add 'id N', that of its connection")
    if "start" in fields and "trigger" in fields:
        line.fail("both a start time and a trigger: keep one")
    if "start" not in fields and "trigger" not in fields:
        line.fail("nothing starts it: add 'start PICOSECONDS' or 'trigger ID'")
    start = fields.get("start", "0")
    if not _DECIMAL.fullmatch(start) or not isfinite(float(start)):
        line.fail(f"start must be a number of picoseconds, 0 or more, not {quote(start)}")
    return _Connection(
        line=line,
        src=src,
        dst=dst,
        size_bytes=numbers["size"],
        start_s=float(start) / _PICOSECONDS,
        id=numbers.get("id"),
        message=message,
        trigger=numbers.get("trigger"),
        fires=[numbers[key] for key in ("send_done_trigger", "recv_done_trigger") if key in numbers],
    )


def _parse_trigger(line: Line) -> _Trigger:
    kinds = [word for word in line.words[1:] if word in _TRIGGER_KINDS]
    fields = _fields(line, [word for word in line.words[1:] if word not in _TRIGGER_KINDS], ("id", "count"))
    if len(kinds) != 1:
        line.fail(f"a trigger is one of {', '.join(_TRIGGER_KINDS)}, as in 'trigger id 1 oneshot'")
    if "id" not in fields:
        line.fail("a trigger without an id: write it as in 'trigger id 1 oneshot'")
    count = line.whole("count", fields["count"]) if "count" in fields else None
    if kinds[0] == "barrier" and not count:
        line.fail("a barrier needs the number of connections that fire it, as in 'trigger id 1 barrier count 4'")
    return _Trigger(line, line.whole("id", fields["id"]), kinds[0], count)


def _fields(line: Line, words: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """`words` as keys and values that follow them."""
    fields: dict[str, str] = {}
    for key, value in zip(words[::2], [*words[1::2], None], strict=False):
        if key not in keys:
            line.fail(f"unknown keyword {quote(key)}: use {', '.join(keys)}")
        if value is None:
            line.fail(f"'{key}' has no value: the line seems cut short")
        if key in fields:
            line.fail(f"'{key}' is given twice")
        fields[key] = value
    return fields


def _waits(connections: Sequence[_Connection], triggers: Mapping[int, _Trigger]) -> list[set[int]]:
    """For each connection, those whose end starts it."""
    firing: defaultdict[int, list[int]] = defaultdict(list)
    started: defaultdict[int, list[int]] = defaultdict(list)
    for index, connection in enumerate(connections):
        for trigger_id in connection.fires:
            firing[trigger_id].append(index)
        if connection.trigger is not None:
            started[connection.trigger].append(index)
    for trigger_id, indices in (*firing.items(), *started.items()):
        if trigger_id not in triggers:
            line = connections[indices[0]].line
            line.fail(f"trigger {trigger_id} is not defined: add a line 'trigger id {trigger_id} oneshot'")
    waits: list[set[int]] = [set() for _ in connections]
    for trigger in triggers.values():
        fired_by, starts = firing[trigger.id], started[trigger.id]
        _check_fired(trigger, len(fired_by), len(starts))
        for turn, index in enumerate(starts):
            waits[index] = {fired_by[turn]} if trigger.kind == "multishot" else set(fired_by)
    return waits


def _check_fired(trigger: _Trigger, firings: int, starts: int) -> None:
    """Raise FormatError unless the trigger fires as often as its kind needs."""
    name = f"trigger {trigger.id}"
    if not firings:
        trigger.line.fail(f"{name} never fires: add 'send_done_trigger {trigger.id}' to a connection")
    if trigger.kind == "oneshot" and firings > 1:
        trigger.line.fail(
            f"{name} is oneshot but {firings} connections fire it: make it 'multishot' or 'barrier count {firings}'"
        )
    if trigger.kind == "barrier" and firings != trigger.count:
        trigger.line.fail(f"{name} is a barrier of count {trigger.count} but {firings} connections fire it")
    if trigger.kind == "multishot" and firings < starts:
        trigger.line.fail(f"{name} starts one connection each time, but fires {firings} times for {starts}")


def _startable_order(connections: Sequence[_Connection], waits: Sequence[set[int]]) -> Iterator[int]:
    """Connections in the order of the file, but none before those it waits for."""
    sorter = TopologicalSorter(dict(enumerate(waits)))
    try:
        sorter.prepare()
    except CycleError as error:
        circle = [connections[index] for index in error.args[1]]
        circle[0].line.fail(
            f"triggers go round in a circle, so none of these ever starts: {', '.join(map(str, circle))}"
        )
    ready = list(sorter.get_ready())
    heapq.heapify(ready)
    while ready:
        index = heapq.heappop(ready)
        yield index
        sorter.done(index)
        for following in sorter.get_ready():
            heapq.heappush(ready, following)
