"""What people see while runs are under way: a bar whose length is estimated time, so that it moves evenly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.judge.evidence import Built
from experiments.runs import messages
from experiments.runs.outside import Decoding, Done, Outcome, Preparing
from experiments.runs.plan import Run
from experiments.runs.work import Work


def shown(outcomes: Iterator[Outcome], work: Work, todo: Sequence[Run], console: Console) -> Iterator[Outcome]:
    """Show `outcomes` on `console` as they pass."""
    with _Bar(console, work, todo) as bar:
        for outcome in outcomes:
            match outcome:
                case Preparing(number, total):
                    bar.describe(f"preparing run {number} of {total}")
                case Built() as built:
                    console.print(
                        f"fabric up in {built.setup_s['ready']:.1f} s; data plane {built.dataplane}: {built.why}",
                        highlight=False,
                    )
                case messages.Progress(run_id, fraction):
                    bar.show(run_id, fraction)
                case Decoding(run_id):
                    console.print(f"{run_id}: decoding captures", highlight=False)
                case Done(run_id):
                    bar.done(run_id)
                case messages.Failed(run_id, reason):
                    console.print(f"[red]{run_id} did not finish:[/red] {escape(reason)}", highlight=False)
                    bar.done(run_id)
                case messages.Lost(reason):
                    console.print(f"[yellow]the fabric is built anew:[/yellow] {escape(reason)}", highlight=False)
            yield outcome


class _Bar:
    def __init__(self, console: Console, work: Work, todo: Sequence[Run]) -> None:
        self._estimates = {run.run_id: work.estimate_s(run) for run in todo}
        self._done_s, self._count = 0.0, 0
        self._bar = Progress(
            TextColumn("{task.description:42}"),
            BarColumn(),
            TextColumn("{task.fields[runs]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("preparing", total=sum(self._estimates.values()), runs=self._counted())

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def describe(self, what: str) -> None:
        self._bar.update(self._task, description=what)

    def show(self, run_id: str, fraction: float) -> None:
        completed = self._done_s + fraction * self._estimates[run_id]
        self._bar.update(self._task, description=run_id, completed=completed)

    def done(self, run_id: str) -> None:
        self._done_s += self._estimates[run_id]
        self._count += 1
        self._bar.update(self._task, description=run_id, completed=self._done_s, runs=self._counted())

    def _counted(self) -> str:
        return f"{self._count}/{len(self._estimates)} runs"
