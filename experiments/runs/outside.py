"""Conducts an experiment: plans its runs, has the sandbox perform them, judges and records each as it ends."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shlex
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from emulator.errors import EmulatorError
from emulator.meters.capture import capture_points
from emulator.sandbox import Sandbox
from experiments.captures.summary import analyse
from experiments.judge.fidelity import Run as Evidence
from experiments.judge.rows import PASS, judge
from experiments.machine import calibration
from experiments.results.folder import CAPTURES, LOG, ResultsFolder
from experiments.results.overview import render
from experiments.results.sentences import as_json, lines, sentence
from experiments.results.verdict import DEFAULT_WITHIN, Outcome, Verdict, of_results
from experiments.runs import messages as measurement
from experiments.runs.plan import Run
from experiments.runs.planner import Planner
from experiments.spec.experiment import Experiment
from experiments.theory.prediction import Predicted, predict_run
from traffic.schemes import TrafficPlan

_SILENCE_S = 60.0  # on top of the experiment's own stall time-out
_MOST_NAMED = 3  # of the runs that one reason ended; all are in their file


def manifest(experiment: Experiment, within: float = DEFAULT_WITHIN) -> dict[str, Any]:
    """What was asked, and on what it runs; the sandbox's findings are added once the fabric is up."""
    return {
        "experiment": experiment.as_json(),
        "within": within,
        "command": shlex.join(["spraylab", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **_here(),
        "sysctls": experiment.tcp().sysctls(),
    }


def _here() -> dict[str, Any]:
    packages = ("spraylab", "os-ken", "numpy", "pandas", "pyarrow")
    return {
        "machine": {
            **calibration.machine(),
            "architecture": platform.machine(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }


def note_machine(folder: ResultsFolder, console: Console) -> None:
    """Where the runs to come are not made as the last ones were: warn, and describe both machines in the manifest.

    `resumed` there is by the time it went on; the rows of runs.csv after the first `runs_before` are from then.
    """
    manifest, here = folder.manifest(), _here()
    last = _latest_machine(manifest)
    changed = [
        f"{key} was {last[part][key]}, is {now}"
        for part, values in here.items()
        for key, now in values.items()
        if key != "memory_bytes" and last.get(part, {}).get(key, now) != now  # a kernel takes more or less for itself
    ]
    if not changed:
        return
    console.print(
        f"[yellow]warning:[/yellow] {escape(str(folder.path))} goes on elsewhere than it was begun: "
        f"{escape('; '.join(changed))}. Its manifest.json tells which runs are from where",
        highlight=False,
        soft_wrap=True,
    )
    entry = {**here, "runs_before": len(folder.runs())}
    manifest["resumed"] = {**manifest.get("resumed", {}), time.strftime("%Y-%m-%dT%H:%M:%S%z"): entry}
    folder.write_manifest(manifest)


def _latest_machine(manifest: dict[str, Any]) -> dict[str, Any]:
    """Where a manifest describes the machine of its latest runs."""
    return list(manifest.get("resumed", {}).values() or [manifest])[-1]


def conduct(planner: Planner, folder: ResultsFolder, console: Console) -> bool:
    """Perform the runs that `folder` does not hold yet. Returns whether all of them finished.

    Raises EmulatorError when the fabric cannot be built and ResultsError when a result cannot be written; what had
    finished before is in the folder, and so are the runs that did not finish, with the reason.
    """
    finished = set(folder.runs().get("run_id", []))
    todo = [run for run in planner.runs if run.run_id not in finished]
    if not todo:
        return True
    by_id = {run.run_id: run for run in todo}
    plans = {run.run_id: planner.plan(run) for run in todo}
    predicted = _predicted(planner, todo, plans, console)
    experiment = planner.experiment
    captures = folder.path.absolute() / CAPTURES
    jobs = [
        measurement.Job(
            run.run_id, plans[run.run_id], run.seed, experiment.verify, experiment.captures, captures / run.run_id
        )
        for run in todo
    ]
    transport = experiment.tcp()
    failed: list[measurement.Failed] = []
    with (
        folder.in_use(),
        _remembered(folder, todo, failed),
        _Bar(console, todo, planner) as bar,
        Sandbox(folder.path / LOG) as sandbox,
    ):
        from experiments.runs.inside import perform  # imports Mininet, which only a machine that emulates has

        note_machine(folder, bar.console)
        events = sandbox.stream(
            perform,
            planner.fabric,
            transport,
            jobs,
            experiment.fabric.dataplane,
            calibration.userspace_limit_bps(planner.fabric.hosts),
            timeout_s=transport.stall_timeout_s + _SILENCE_S,
        )
        built: measurement.Built | None = None
        for event in events:
            match event:
                case measurement.Built():
                    built = event
                    record_fabric(folder, built)
                    bar.console.print(
                        f"fabric up in {built.setup_s['ready']:.1f} s; data plane {built.dataplane}: {built.why}",
                        highlight=False,
                    )
                case measurement.Progress(run_id, fraction):
                    bar.show(by_id[run_id], fraction)
                case measurement.Measured(run_id) if built:
                    run = by_id[run_id]
                    identity = planner.identity(run, plans[run_id], built.dataplane)
                    captured = None
                    if points := capture_points(built.ports, experiment.captures):
                        bar.console.print(f"{run_id}: decoding captures", highlight=False)
                        captured = analyse(captures / run_id, points, planner.fabric)
                    evidence = Evidence(
                        event,
                        plans[run_id],
                        built.ports,
                        planner.bound_s(run),
                        planner.fabric,
                        run.seed,
                        captured,
                        experiment.captures,
                    )
                    folder.append(judge(evidence, planner.fabric, identity, predicted[run_id]))
                    bar.done(run)
                case measurement.Failed(run_id, reason):
                    failed.append(event)
                    folder.record_failed([run_id], reason)
                    bar.console.print(f"[red]{run_id} did not finish:[/red] {escape(reason)}", highlight=False)
                    bar.done(by_id[run_id])
    return not failed


def _predicted(
    planner: Planner, todo: Sequence[Run], plans: Mapping[str, TrafficPlan], console: Console
) -> dict[str, Predicted | None]:
    """What theory expects of every run, by its id: found before anything is emulated, which it would disturb."""
    found = {}
    with console.status("predicting") as status:
        for number, run in enumerate(todo, start=1):
            status.update(f"predicting run {number} of {len(todo)}")
            found[run.run_id] = predict_run(plans[run.run_id], planner.fabric, run.seed)
    return found


@contextlib.contextmanager
def _remembered(folder: ResultsFolder, todo: Sequence[Run], failed: Sequence[measurement.Failed]) -> Iterator[None]:
    """What ends the sandbox, or never lets it begin, is why all runs that were still to do did not finish."""
    try:
        yield
    except EmulatorError as error:
        over = {*folder.runs().get("run_id", []), *(each.run_id for each in failed)}
        folder.record_failed([run.run_id for run in todo if run.run_id not in over], str(error))
        raise


def answer(folder: ResultsFolder, planner: Planner, console: Console) -> Verdict:
    """Print the table, a line a collective, the sentence, what did not finish, and where everything is."""
    runs = folder.runs()
    verdict = of_results(runs, folder.manifest())
    if len(runs):
        console.print(render(runs), end="\n\n")
        for row in runs[runs.fidelity != PASS].itertuples():
            console.print(f"[red]{row.run_id}: fidelity fail:[/red] {escape(row.fidelity_reasons)}", highlight=False)
    for line in lines(verdict):
        console.print(escape(line), highlight=False)
    console.print(escape(sentence(verdict)), style="" if verdict.missing else "bold", highlight=False)
    if len(runs):
        with console.status("writing the report"):
            from experiments.results.report import report_path, write_report  # matplotlib takes a while to import

            write_report([folder], report_path([folder]))
        console.print(f"report:  {report_path([folder])}", highlight=False, soft_wrap=True)
    else:
        folder.write_verdict(as_json(verdict))
    for reason, failed in folder.failed_runs().groupby("reason", sort=False):
        named = ", ".join(failed.run_id.head(_MOST_NAMED))
        more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
        console.print(f"[red]{named}{more} did not finish:[/red] {escape(str(reason))}", highlight=False)
    if len(runs) < len(planner.runs):
        done = f"{len(runs)} of {len(planner.runs)} runs are done"
        console.print(f"{done}; go on with: spraylab run --resume {folder.path}", highlight=False, soft_wrap=True)
    console.print(f"results: {folder.path}", highlight=False, soft_wrap=True)
    return verdict


def refusal(verdict: Verdict, fail_on: Collection[str]) -> str | None:
    """Why `run --fail-on` fails, in one sentence; None: nothing that `fail_on` names came true."""
    failed = verdict.finished - verdict.trusted
    if "fidelity" in fail_on and failed:
        return f"--fail-on fidelity: {failed} of {verdict.finished} runs cannot be trusted"
    if "spraying-pays" in fail_on and verdict.outcome is None:
        return "--fail-on spraying-pays: there is no verdict"
    if "spraying-pays" in fail_on and verdict.outcome is Outcome.SPRAYING:
        return "--fail-on spraying-pays: packet spraying pays"
    return None


def record_fabric(folder: ResultsFolder, built: measurement.Built) -> None:
    manifest = folder.manifest()
    _latest_machine(manifest)["fabric"] = {
        "dataplane": built.dataplane,
        "openvswitch": built.ovs_version,
        "setup_s": built.setup_s,
        "packet_buffer_bytes": built.packet_buffer_bytes,
        "shaping": {name: shaping and asdict(shaping) for name, shaping in built.shaping.items()},
    }
    folder.write_manifest(manifest)


class _Bar:
    """A bar whose length is estimated time, so that it moves evenly."""

    def __init__(self, console: Console, runs: Sequence[Run], planner: Planner) -> None:
        self._estimates = {run.run_id: planner.estimate_s(run) for run in runs}
        self._done_s = 0.0
        self._bar = Progress(
            TextColumn("{task.description:42}"),
            BarColumn(),
            TextColumn("{task.fields[runs]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.console = self._bar.console
        self._runs, self._count = len(runs), 0
        self._task = self._bar.add_task(
            "building the fabric", total=sum(self._estimates.values()), runs=self._counted()
        )

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, run: Run, fraction: float) -> None:
        self._bar.update(
            self._task, description=run.run_id, completed=self._done_s + fraction * self._estimates[run.run_id]
        )

    def done(self, run: Run) -> None:
        self._done_s += self._estimates[run.run_id]
        self._count += 1
        self._bar.update(self._task, description=run.run_id, completed=self._done_s, runs=self._counted())

    def _counted(self) -> str:
        return f"{self._count}/{self._runs} runs"
