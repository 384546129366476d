"""What an ideal transport would make of a plan: a fluid model that honours dependencies.

Every subflow sends the piece at its head at the rate that fairness (`fairness`) gives it among all subflows
then sending; rates change when a piece ends or a flow may start. A host's NIC is one more link and serves its
connections in turn, as a RoCE NIC does its queue pairs: they get equal parts of it, however many belong to one flow;
what one cannot use, being held elsewhere, goes to the others; and the NIC is never idle while a connection has bytes
that its path would take. There are no packets, no delays, no losses and no slow start, so what is left is the effect of
paths and of dependencies. Each allocation keeps within every link's rate, which is why no result is below
`experiments.theory.bound`.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from emulator.topology import LeafSpine
from experiments.theory.capacity import Change
from experiments.theory.fairness import ROUNDING, Sharing, max_min_rates
from experiments.theory.loads import Floats, Ints, LinkBytes, Routes, link_capacities_bps, routes, sum_over_links, total
from traffic.plan import TrafficPlan
from traffic.schedule import Schedule

TOLERANCE = 0.005
"""Pieces that end within this part of their own duration of one another are taken together, once the last has ended.

That saves most of the work, and what ends at the same instant stays exact. It creates no lockstep of its own where
sizes are equal, but keeps up one that sizes differing by less would break: 16 hosts, AllToAll with window 1, ethereal,
sizes within 0.1 % of equal came to 1.001 of the bound, and without lumping to 1.005 to 1.031 (ten draws); within 0.5 %
to 1.01 to 1.11 instead of 1.03 to 1.16; within 5 % to 1.36 to 1.98 instead of 1.37 to 1.99. So whoever varies sizes
lumps by a tenth of that at most. A piece errs towards later only, but what waits for it may then meet other traffic,
and the whole errs either way: 64 hosts, window 4, came to 1.27 instead of 1.30 (ethereal) and 1.52 instead of 1.50
(ecmp). 0 turns it off.

What has times to start is taken together likewise, within this part of the shortest duration under way, and of what the
first would last if its sender sent all of its flows at once: who sends little for a short time starts when it is due.
"""


@dataclass(frozen=True)
class FluidResult:
    """Times in seconds since the earliest start, of the plan and of every task by its id; bytes of every link.

    The first `flows` tasks are flows, the others computations. Bytes are of the wire. What other tenants send has no
    part in `cct_s`.
    """

    cct_s: float
    start_s: Floats = field(repr=False)
    end_s: Floats = field(repr=False)
    link_bytes: LinkBytes = field(repr=False)
    flows: int = 0

    @property
    def fct_s(self) -> Floats:
        """Completion time of every flow, from when all it waited for was done."""
        return (self.end_s - self.start_s)[: self.flows]


def simulate(
    plan: TrafficPlan,
    fabric: LeafSpine,
    spines: Ints,
    *,
    tolerance: float = TOLERANCE,
    sharing: Sharing = max_min_rates,
    changes: Sequence[Change] = (),
) -> FluidResult:
    """Run `plan` over the paths `spines` gives (see `experiments.theory.loads.choose_spines`).

    Pieces that end within `tolerance` of their own duration of one another are taken together (see `TOLERANCE`).
    `sharing` is how connections that meet share links. `changes` are what links carry from some times on; they leave
    each something.
    """
    crossed = routes(plan, fabric, spines)
    capacities_bps, to_come = link_capacities_bps(fabric), list(changes)
    connection, wire_bits = _pieces(plan, fabric)
    progress = _Progress(plan, _slack_s(plan, fabric, tolerance))
    active = progress.release(0.0)
    left, began = wire_bits[active], np.zeros(len(active))
    now = 0.0
    while True:
        while to_come and to_come[0].at_s <= now:
            capacities_bps = to_come.pop(0).rates_bps
        if not len(active):
            due_s = progress.next_start_s(0.0)
            if due_s is None:
                break
            now = due_s
            step, ended, eta = 0.0, np.zeros(0, dtype=bool), np.zeros(0)
        else:
            here = connection[active]
            rates = sharing(Routes(crossed.links[here], crossed.weights[here]), capacities_bps)
            eta = left / rates
            durations = now - began + eta
            due_s = progress.next_start_s(tolerance * np.min(durations))
            others_s = [*([] if due_s is None else [due_s]), *(change.at_s for change in to_come[:1])]
            step = min([_first_ends(eta, tolerance * durations), *(at_s - now for at_s in others_s)])
            ended = eta <= step
            left = left[~ended] - rates[~ended] * step
        started = progress.advance(now + step, active[ended], now + eta[ended])
        now += step
        active = np.concatenate([active[~ended], started])
        left = np.concatenate([left, wire_bits[started]])
        began = np.concatenate([began[~ended], np.full(len(started), now)])
    carried_bytes = sum_over_links(crossed, total(connection, wire_bits / 8, len(plan.connections)), fabric)
    took_s = float(progress.end_s[: plan.schedule.own_tasks].max(initial=0.0))
    return FluidResult(took_s, progress.start_s, progress.end_s, carried_bytes, len(plan.schedule.flows))


def _first_ends(eta: Floats, slack: Floats) -> float:
    """In how long the first pieces have ended, those that end within their `slack` of them included."""
    latest = np.min(eta + slack)
    return float(np.max(eta[eta <= latest * (1 + ROUNDING)]))


def _slack_s(plan: TrafficPlan, fabric: LeafSpine, tolerance: float) -> Floats:
    """By how much every flow may start late, so that others start with it; by nothing where something computes."""
    flows = plan.schedule.flows
    senders = np.array([flow.src for flow in flows], dtype=np.intp)
    bits = np.array([flow.size_bytes for flow in flows], dtype=float) * fabric.wire_bytes(1) * 8
    part = 0.0 if plan.schedule.computes else tolerance
    return part * bits * np.bincount(senders)[senders] / fabric.host_rate_bps if flows else bits


def _pieces(plan: TrafficPlan, fabric: LeafSpine) -> tuple[Ints, Floats]:
    """Of every piece, its connection, and its bits on a wire."""
    connection = np.array([piece.connection for piece in plan.pieces], dtype=np.intp)
    return connection, np.array([piece.size_bytes for piece in plan.pieces], dtype=float) * fabric.wire_bytes(1) * 8


class _Progress:
    """Which tasks have started and ended, and so which pieces may be sent: of each subflow the first, once released."""

    def __init__(self, plan: TrafficPlan, slack_s: Floats) -> None:
        flows, computes = plan.schedule.flows, plan.schedule.computes
        tasks = len(flows) + len(computes)
        self.start_s = np.full(tasks, np.nan)
        self.end_s = np.full(tasks, np.nan)
        origin_s = plan.schedule.origin_s
        self._not_before_s = [*(flow.start_s - origin_s for flow in flows), *([0.0] * len(computes))]
        self._seconds = [*([0.0] * len(flows)), *(compute.seconds for compute in computes)]
        self._timers: list[tuple[float, int]] = []
        self._slack_s = [*slack_s.tolist(), *([0.0] * len(computes))]

        self._flow = np.array([piece.flow for piece in plan.pieces], dtype=np.intp)
        self._pieces_left = np.bincount(self._flow, minlength=tasks)
        self._by_flow = np.argsort(self._flow, kind="stable")
        self._count = self._pieces_left.copy()
        self._end = np.cumsum(self._count)  # of each flow's pieces in _by_flow
        self._next, self._first = _queues(np.array([piece.connection for piece in plan.pieces], dtype=np.intp))

        # Tasks that wait for the same are released together.
        self._released_by, self._waiting_groups, self._waits_left = _waiting(plan.schedule)

    def next_start_s(self, late_s: float) -> float | None:
        """When to start the next flows that wait for nothing but their time, or when the next computation ends.

        The first of them may start up to `late_s` after it is due, so that others are due as well.
        """
        if not self._timers:
            return None
        due_s, task = self._timers[0]
        return due_s + min(late_s, self._slack_s[task])

    def release(self, now_s: float) -> Ints:
        """Start the flows that wait for nothing; return the pieces to send."""
        return self._start(now_s, self._released_by.get((), []))

    def advance(self, now_s: float, pieces: Ints, ended_s: Floats) -> Ints:
        """`pieces` ended at `ended_s`, found out at `now_s`; return the pieces to send from now on."""
        following = self._next[pieces]
        following = following[following >= 0]
        self._first[following] = True
        np.subtract.at(self._pieces_left, self._flow[pieces], 1)
        np.fmax.at(self.end_s, self._flow[pieces], ended_s)
        whole = np.unique(self._flow[pieces][self._pieces_left[self._flow[pieces]] == 0])
        ready = self._after(whole.tolist())
        while self._timers and self._timers[0][0] <= now_s:
            due_s, task = heapq.heappop(self._timers)
            if np.isnan(self.start_s[task]):
                ready.append(task)
            else:
                self.end_s[task] = due_s
                ready += self._after([task])
        next_in_line = following[~np.isnan(self.start_s[self._flow[following]])]
        return np.concatenate([next_in_line, self._start(now_s, ready)])

    def _after(self, ended: Iterable[int]) -> list[int]:
        """Tasks for which the tasks `ended` were the last to wait for."""
        ready: list[int] = []
        for task in ended:
            for group in self._waiting_groups.get(task, ()):
                self._waits_left[group] -= 1
                if not self._waits_left[group]:
                    ready += self._released_by[group]
        return ready

    def _start(self, now_s: float, ready: list[int]) -> Ints:
        """Start the tasks that are `ready`, at once or when their time comes; return the pieces to send now."""
        started: list[int] = []
        for task in ready:  # grows as flows without bytes and computations without seconds end at once
            if self._not_before_s[task] > now_s:
                heapq.heappush(self._timers, (self._not_before_s[task], task))
                continue
            self.start_s[task] = now_s
            if self._seconds[task]:
                heapq.heappush(self._timers, (now_s + self._seconds[task], task))
                continue
            started.append(task)
            if not self._pieces_left[task]:
                self.end_s[task] = now_s
                ready += self._after([task])
        pieces = self._pieces_of(np.array(started, dtype=np.intp))
        return pieces[self._first[pieces]]

    def _pieces_of(self, flows: Ints) -> Ints:
        counts = self._count[flows]
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._by_flow[np.repeat(self._end[flows] - counts, counts) + place]


def _queues(connection: Ints) -> tuple[Ints, np.ndarray]:
    """For every piece the next one of its subflow (or -1), and whether it is its subflow's first."""
    order = np.argsort(connection, kind="stable")
    same = connection[order[1:]] == connection[order[:-1]]
    following = np.full(len(connection), -1, dtype=np.intp)
    following[order[:-1][same]] = order[1:][same]
    first = np.ones(len(connection), dtype=bool)
    first[order[1:][same]] = False
    return following, first


_Waits = tuple[int, ...]


def _waiting(schedule: Schedule) -> tuple[dict[_Waits, list[int]], dict[int, list[_Waits]], dict[_Waits, int]]:
    """Tasks by what they wait for; for every task, the groups that wait for it; and how many each group waits for."""
    released_by: dict[_Waits, list[int]] = defaultdict(list)
    for task in schedule.tasks:
        released_by[task.waits_for].append(task.id)
    waiting_groups: dict[int, list[_Waits]] = defaultdict(list)
    for group in released_by:
        for task_id in set(group):
            waiting_groups[task_id].append(group)
    return released_by, waiting_groups, {group: len(set(group)) for group in released_by}
