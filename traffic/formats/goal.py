"""GOAL, the group operation assembly language of LogGOPSim (spcl/LogGOPSim, txt2bin.re), as text.

    num_ranks 2
    rank 0 {
    l1: calc 5000
    l2: send 1000b to 1 tag 7
    l2 requires l1
    }
    rank 1 { l1: recv 1000b from 0 tag 7 }

Operations are labelled where others name them; `requires` has one wait for the other's end, and `irequires` for its
start. The k-th receive of a source and tag matches the k-th such send. `cpu` and `nic` are read and not used: only what
requires another waits for it. Comments are `//` and `/* */`.

What the file does not say is whether a send waits for its receive to be posted: `receives` is `eager` (it does not) or
`rendezvous`. A flow here is done when it has arrived, and so is its send.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from emulator.inputs import quote
from traffic.formats.format import Format, FormatError
from traffic.formats.order import CircleError, in_order
from traffic.formats.text import read_text
from traffic.jobs.graph import Graph, JobError, Scale
from traffic.schedule import Compute, Flow, Schedule

SAYS = "a GOAL schedule"
MAX_RANKS = 65_536

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TOKEN = re.compile(r"\n|[{}:]|[^\s{}:]+")
_NANOSECOND = 1e-9


@dataclass
class _Op:
    """An operation; `kind` is calc, send or recv, `amount` nanoseconds or bytes, `waits` are places of others."""

    line: int
    rank: int
    kind: str
    amount: int
    peer: int = 0
    tag: int = 0
    waits: set[int] = field(default_factory=set)
    waits_for_start: set[int] = field(default_factory=set)


def read_goal(
    path: Path,
    *,
    scale: Scale | None = None,
    receives: Annotated[Literal["eager", "rendezvous"], "one of eager, rendezvous"] = "eager",
) -> Schedule:
    """Return the operations in file `path` as a schedule. Raises FormatError."""
    ranks, ops = _Parser(path).parse()
    sends = _matched(path, ops)
    waits = _waits(ops, sends, rendezvous=receives == "rendezvous")
    try:
        graph, handles = Graph(ranks, scale=scale), dict[int, int]()
        for place in _order(path, ops, waits, receives):
            op, after = ops[place], [handles[other] for other in waits[place]]
            if op.kind == "calc":
                handles[place] = graph.compute(op.rank, op.amount * _NANOSECOND, after)
            elif op.kind == "send":
                handles[place] = graph.send(op.rank, op.peer, op.amount, after, channel=op.tag)
            else:
                handles[place] = graph.join(op.rank, after)
        return graph.schedule("goal", path.stem)
    except JobError as error:
        raise FormatError(f"{path}: {error}") from error


class _Parser:
    """Reads tokens one after the other; a newline is one, as it ends an operation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = _COMMENT.sub(lambda found: "\n" * found[0].count("\n") or " ", read_text(path, SAYS))
        self._tokens = deque(_TOKEN.findall(text))
        self._line = 1
        self._ops: list[_Op] = []

    def parse(self) -> tuple[int, list[_Op]]:
        self._expect("num_ranks")
        ranks = self._whole("num_ranks")
        if not 1 <= ranks <= MAX_RANKS:
            raise self._error(f"num_ranks is {ranks}: write 1 to {MAX_RANKS}")
        seen: set[int] = set()
        while (word := self._next()) is not None:
            if word != "rank":
                raise self._error(f"{quote(word)} where a rank should begin: write 'rank 0 {{'")
            rank = self._whole("rank")
            if rank >= ranks or rank in seen:
                raise self._error(f"rank {rank} is {'there twice' if rank in seen else f'none of the {ranks}'}")
            seen.add(rank)
            self._expect("{")
            self._rank(rank, ranks)
        return ranks, self._ops

    def _rank(self, rank: int, ranks: int) -> None:
        labels: dict[str, int] = {}
        needs: list[tuple[int, str, str, str]] = []
        while (word := self._next()) != "}":
            if word is None:
                raise self._error(f"rank {rank} does not end: add a '}}'")
            if word in ("send", "recv", "calc"):
                self._operation(word, rank, ranks)
                continue
            follows = self._next()
            if follows == ":":
                if word in labels:
                    raise self._error(f"label {quote(word)} is there twice in rank {rank}")
                labels[word] = len(self._ops)
                self._operation(self._next() or "", rank, ranks)
            elif follows in ("requires", "irequires"):
                needs.append((self._line, word, follows, self._next() or ""))
            else:
                raise self._error(f"{quote(word)} begins no operation: write 'l1: send 8b to 1 tag 0'")
        for line, late, how, early in needs:
            for label in (late, early):
                if label not in labels:
                    raise FormatError(f"{self._path}:{line}: no operation of rank {rank} is labelled {quote(label)}")
            op = self._ops[labels[late]]
            (op.waits if how == "requires" else op.waits_for_start).add(labels[early])

    def _operation(self, kind: str, rank: int, ranks: int) -> None:
        if kind not in ("send", "recv", "calc"):
            raise self._error(f"{quote(kind)} is no operation: write send, recv or calc")
        op = _Op(self._line, rank, kind, self._whole(kind, "b" if kind != "calc" else ""))
        if kind != "calc":
            self._expect("to" if kind == "send" else "from")
            op.peer = self._whole("the other rank")
            if op.peer >= ranks or op.peer == rank:
                raise self._error(f"rank {rank} cannot {kind} with {'itself' if op.peer == rank else op.peer}")
        while self._tokens and self._tokens[0] in ("tag", "cpu", "nic"):
            key = self._next() or ""
            value = self._whole(key)
            if key == "tag":
                op.tag = value
        self._ops.append(op)

    def _next(self) -> str | None:
        while self._tokens:
            token = self._tokens.popleft()
            if token != "\n":
                return token
            self._line += 1
        return None

    def _expect(self, word: str) -> None:
        if (found := self._next()) != word:
            raise self._error(f"{quote(found or 'the end')} instead of '{word}'")

    def _whole(self, what: str, unit: str = "") -> int:
        found = self._next() or "the end"
        if not re.fullmatch(r"[0-9]{1,18}" + unit, found):
            raise self._error(f"{what} must be a whole number{' such as 8b' if unit else ''}, not {quote(found)}")
        return int(found.removesuffix(unit))

    def _error(self, message: str) -> FormatError:
        return FormatError(f"{self._path}:{self._line}: {message}")


def _matched(path: Path, ops: Sequence[_Op]) -> dict[int, int]:
    """Return the send of every receive, by their places."""
    sent: dict[tuple[int, int, int], deque[int]] = defaultdict(deque)
    for place, op in enumerate(ops):
        if op.kind == "send":
            sent[op.rank, op.peer, op.tag].append(place)
    found = {}
    for place, op in enumerate(ops):
        if op.kind == "recv":
            queue = sent[op.peer, op.rank, op.tag]
            if not queue:
                raise FormatError(
                    f"{path}:{op.line}: rank {op.rank} receives from {op.peer} with tag {op.tag} what is never sent"
                )
            found[place] = queue.popleft()
            if (size := ops[found[place]].amount) != op.amount:
                raise FormatError(f"{path}:{op.line}: {op.amount} bytes are received of {size} that are sent")
    for queue in sent.values():
        for place in queue:
            op = ops[place]
            raise FormatError(
                f"{path}:{op.line}: rank {op.rank} sends to {op.peer} with tag {op.tag} what is never received"
            )
    return found


def _waits(ops: Sequence[_Op], sends: dict[int, int], *, rendezvous: bool) -> list[set[int]]:
    """Return what every operation waits for, by place."""
    waits = [set(op.waits) for op in ops]
    for place, op in enumerate(ops):
        for other in op.waits_for_start:
            waits[place] |= ops[other].waits
    for receive, send in sends.items():
        if rendezvous:
            waits[send] |= waits[receive]
            waits[receive] = set()
        waits[receive].add(send)
    return waits


def _order(path: Path, ops: Sequence[_Op], waits: Sequence[set[int]], receives: str) -> list[int]:
    try:
        return in_order(waits)
    except CircleError as error:
        hint = ", or have receives eager" if receives != "eager" else ""
        raise FormatError(
            f"{path}:{ops[error.place].line}: this operation waits for itself, through others: take one out{hint}"
        ) from error


def write_goal(schedule: Schedule) -> str:
    """Return a schedule as GOAL; read with `receives: rendezvous`, it is the same graph.

    Raises FormatError for what waits for something at neither of its ranks, and for start times: GOAL has no word for
    either. A computation is rounded to nanoseconds.
    """
    lines: list[list[str]] = [[] for _ in range(schedule.ranks)]
    requires: list[list[str]] = [[] for _ in range(schedule.ranks)]
    local: list[set[int]] = [set() for _ in range(schedule.ranks)]
    tasks = schedule.tasks
    for task in tasks:
        for rank in _ranks(task):
            local[rank].add(task.id)
    for task in tasks:
        ranks = _ranks(task)
        if isinstance(task, Flow):
            if task.start_s:
                raise FormatError(
                    f"flow {task.id} starts at {task.start_s:g} s, and GOAL has no times: use computations"
                )
            lines[task.src].append(f"t{task.id}: send {task.size_bytes}b to {task.dst} tag {task.channel}")
            lines[task.dst].append(f"t{task.id}: recv {task.size_bytes}b from {task.src} tag {task.channel}")
        else:
            lines[task.rank].append(f"t{task.id}: calc {round(task.seconds / _NANOSECOND)}")
        for awaited in task.waits_for:
            shared = [each for each in ranks if awaited in local[each]]
            if not shared:
                raise FormatError(f"task {task.id} waits for task {awaited} of other ranks, which GOAL cannot say")
            requires[shared[0]].append(f"t{task.id} requires t{awaited}")
    body = ["\n".join([f"rank {rank} {{", *lines[rank], *requires[rank], "}"]) for rank in range(schedule.ranks)]
    return "\n\n".join([f"num_ranks {schedule.ranks}", *body]) + "\n"


def _ranks(task: Flow | Compute) -> tuple[int, ...]:
    return (task.src, task.dst) if isinstance(task, Flow) else (task.rank,)


FORMAT = Format(key="goal", suffix=".goal", says="a GOAL schedule of LogGOPSim", read=read_goal, write=write_goal)
