"""What people see while runs are under way: a bar on a terminal, and elsewhere a line a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.commands.output import Console
from experiments.judge.evidence import Built
from experiments.runs import messages
from experiments.runs.outside import Decoding, Done, Outcome, Preparing
from experiments.runs.plan import Run
from experiments.runs.work import Work
from traffic.watch import Far


def shown(
    outcomes: Iterator[Outcome], work: Work, todo: Sequence[Run], console: Console, bar: type[Bar]
) -> Iterator[Outcome]:
    """Show `outcomes` on `console` as they pass, on a terminal by `bar`."""
    watched = console.interactive and not console.quiet
    with bar(console, work, todo) if watched else _Lines(console, todo) as progress:
        for outcome in outcomes:
            match outcome:
                case Preparing(number, total):
                    progress.now(f"preparing run {number} of {total}")
                case Built() as built:
                    on = f"{built.machine}: " if built.machine else ""
                    console.note(
                        f"{on}fabric up in {built.setup_s['ready']:.1f} s; data plane {built.dataplane}: {built.why}"
                    )
                    progress.built(built)
                case messages.Started(run_id):
                    progress.now(run_id)
                case messages.Progress(run_id, far):
                    progress.at(run_id, far)
                case messages.Glance() as glance:
                    progress.glance(glance)
                case Decoding(run_id):
                    console.note(f"{run_id}: decoding captures")
                case Done(run_id, judged):
                    progress.done(run_id, judged.row)
                case messages.Failed(run_id, reason):
                    console.say(reason, "red", f"{run_id} did not finish:")
                    progress.done(run_id, None)
                case messages.Joined(machine, _, warnings):
                    console.note(f"{machine} performs runs")
                    for warning in warnings:
                        console.warn(f"{machine}: {warning}")
                case messages.Gone(machine, reason):
                    console.say(reason, "yellow", f"{machine} performs no further runs:")
                case messages.Lost(reason):
                    console.say(reason, "yellow", "the fabric is built anew:")
            yield outcome


def in_short(row: Mapping[str, Any]) -> str:
    """Return what a run came to, and whether that can be trusted."""
    if "cct_s" in row:
        told = f"CCT {row['cct_s']:.3f} s, {row['cct_over_bound']:.2f} x its bound"
    elif row["wire_bytes"]:
        told = f"took {row['duration_s']:.2f} s, sent {row['wire_bytes'] / 1e6:.2f} MB"
    else:
        told = f"took {row['duration_s']:.2f} s, sent nothing"
    reasons = f": {row['fidelity_reasons']}" if row["fidelity_reasons"] else ""
    return f"{told}, fidelity {row['fidelity']}{reasons}"


class _Progress:
    """Is told what happens, and shows as much of it as it can."""

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def now(self, what: str) -> None:
        """`what` is under way."""

    def at(self, run_id: str, far: Far) -> None:
        """A run is so far."""

    def done(self, run_id: str, row: Mapping[str, Any] | None) -> None:
        """A run is over; its `row`, if it finished."""

    def built(self, built: Built) -> None:
        """A fabric is up."""

    def glance(self, glance: messages.Glance) -> None:
        """The fabric as it is now, where it is watched."""


class _Lines(_Progress):
    """A line for every run that finishes, and one whenever there was none for long."""

    def __init__(self, console: Console, todo: Sequence[Run]) -> None:
        self._console, self._total, self._count = console, len(todo), 0
        self._now = "preparing"
        self._open = ExitStack()

    def __enter__(self) -> _Lines:
        self._open.enter_context(self._console.waiting(lambda: self._now))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def now(self, what: str) -> None:
        self._now = f"{what} is under way"

    def at(self, run_id: str, far: Far) -> None:
        self._now = f"{run_id}: {far.share:.0%} of its bytes have arrived"

    def done(self, run_id: str, row: Mapping[str, Any] | None) -> None:
        self._count += 1
        if row is not None:
            self._console.note(f"{run_id}: {in_short(row)} ({self._count} of {self._total})")


class Bar(_Progress):
    """A bar whose length is estimated time, so that it moves evenly."""

    def __init__(self, console: Console, work: Work, todo: Sequence[Run]) -> None:
        self._estimates = {run.run_id: work.estimate_s(run) for run in todo}
        self._done_s, self._count = 0.0, 0
        self._bar = Progress(
            TextColumn("{task.description:42}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[runs]}", markup=False),
            TimeRemainingColumn(),
            console=console.terminal,
            transient=True,
        )
        self._task = self._bar.add_task("preparing", total=sum(self._estimates.values()), runs=self._counted())

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def now(self, what: str) -> None:
        self._bar.update(self._task, description=what)

    def at(self, run_id: str, far: Far) -> None:
        completed = self._done_s + far.share * self._estimates[run_id]
        self._bar.update(self._task, description=run_id, completed=completed)

    def done(self, run_id: str, row: Mapping[str, Any] | None) -> None:
        self._done_s += self._estimates[run_id]
        self._count += 1
        self._bar.update(self._task, description=run_id, completed=self._done_s, runs=self._counted())

    def _counted(self) -> str:
        return f"{self._count}/{len(self._estimates)} runs"
