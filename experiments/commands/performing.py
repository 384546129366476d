"""What `run` and `exec` have in common: from runs that are planned to an answer and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from emulator.errors import EmulatorError
from emulator.files import Folder
from emulator.sandbox import Sandbox
from experiments.commands.common import FAILED, REFUSED, How, become_root, end
from experiments.commands.output import Console
from experiments.commands.progress import Bar, shown
from experiments.commands.streams import complain
from experiments.commands.watch import Watched
from experiments.judge.rows import PASS
from experiments.machine import calibration
from experiments.results.folder import CAPTURES, ResultsFolder, default_path, new_file
from experiments.results.inputs import begun
from experiments.results.junit import as_xml
from experiments.results.machines import effect
from experiments.results.manifest import here, manifest, note_machine
from experiments.results.overview import render
from experiments.results.sentences import as_json, lines, sentence
from experiments.results.tables import table_of_rows
from experiments.results.verdict import DEFAULT_WITHIN, Outcome, Verdict, of_results
from experiments.runs.messages import Failed
from experiments.runs.outside import Sandboxes, conducted
from experiments.runs.recorded import recorded
from experiments.runs.work import Work
from experiments.spec.messages import SpecError
from experiments.spec.scale import Scale, explained

if TYPE_CHECKING:
    from experiments.runs.cluster import Cluster
    from experiments.runs.worker import Asked

_MOST_NAMED = 3  # of the runs that one reason ended; all are in their file


def perform(
    work: Work,
    console: Console,
    how: How,
    resumed: ResultsFolder | None,
    *,
    file: Path | None = None,
    about: Mapping[str, Any] | None = None,
    kind: str = "",
    sandbox: Sandboxes = Sandbox,
    watch: bool = False,
) -> None:
    """Perform what is left of `work` as root, answer, and end with the exit status that is due.

    `resumed` is the folder that `how` says to go on with. Without it a new one is made: `file`, from which the
    experiment was read, is copied into it, `about` is added to its manifest, and `kind` to its name. `sandbox` is as
    for `conducted`, `watch` as for `conduct`. Raises SpecError, ResultsError, EmulatorError.
    """
    work.check_emulable()
    if not how.on:  # elsewhere, each machine says what it lacks, and it is for its owner to be root
        work.check_kernel()
        if not how.dry_run:
            become_root()
    if not how.dry_run:
        console.go_on("the runs go on without it")
    if not how.on:
        _warn(work, console)
    fabric = work.experiment.fabric
    for said in explained(fabric.slower, fabric.at_scale(1).topology()):
        console.note(said)
    if how.dry_run:
        _print_plan(work, console)
        return
    if resumed is not None:
        check_where(resumed, how)
    with _machines(how, work, console) as cluster:
        folder = _begun(work, how, resumed, file, about or {}, kind)
        try:
            failed = conduct(work, folder, console, sandbox, cluster, watch=watch)
        except (KeyboardInterrupt, EmulatorError):
            answer(folder, work, console)
            raise
    _end(folder, answer(folder, work, console), failed, how)


def _end(folder: ResultsFolder, verdict: Verdict, failed: Sequence[Failed], how: How) -> None:
    """Write what CI systems read, and end with the exit status that is due, unless that is 0."""
    refused = refusal(verdict, how.fail_on)
    if how.junit:
        with new_file(how.junit) as xml:
            xml.write(as_xml(folder, verdict, refused))
    if failed:
        sys.exit(failed[-1].status or FAILED)
    if refused:
        end(refused, REFUSED)


def _begun(
    work: Work, how: How, resumed: ResultsFolder | None, file: Path | None, about: Mapping[str, Any], kind: str
) -> ResultsFolder:
    """The folder of results, new or to go on with."""
    if resumed is None:
        new = {**manifest(work.experiment, DEFAULT_WITHIN if how.within is None else how.within), **about}
        return begun(how.out or default_path(work.name + kind), new, work.experiment, file)
    if how.within is not None:
        resumed.write_manifest({**resumed.manifest(), "within": how.within})
    return resumed


def check_where(resumed: ResultsFolder, how: How) -> None:
    """Raises SpecError where a folder's runs were made in the other way: of some it would not say where."""
    runs = resumed.runs()
    if len(runs) and ("machine" in runs) != bool(how.on):
        elsewhere = "on a cluster: go on with --on SCHEDULER" if "machine" in runs else "here: go on without --on"
        raise SpecError(f"{resumed.path} was begun {elsewhere}")


def _machines(how: How, work: Work, console: Console) -> AbstractContextManager[Cluster | None]:
    """The machines that `--on` names, asked what they are; None: this one performs the runs."""
    if not how.on:
        return nullcontext()
    from experiments.runs.cluster import Cluster
    from experiments.runs.scheduler import Address
    from experiments.runs.worker import Needs, unfit

    address = Address.of(how.on)
    schemes = list(dict.fromkeys(run.scheme for run in work.runs))
    versions = {name: version for name, version in here()["versions"].items() if name != "python"}
    warn = partial(calibration.warning, work.experiment)
    console.note(f"asking the machines of {address} what they are")
    needs = Needs(versions, work.congestion_controls, schemes, work.dataplane, warn, unfit)
    return Cluster(address, needs)


def one_after_another(performances: Sequence[Callable[[], None]]) -> None:
    """Perform each, and end with the first exit status that is not 0.

    Raises what they raise, and goes no further.
    """
    statuses: list[Any] = []
    for perform_one in performances:
        try:
            perform_one()
        except SystemExit as ended:
            statuses.append(ended.code)
    if any(statuses):
        sys.exit(next(filter(None, statuses)))


def conduct(
    work: Work,
    folder: ResultsFolder,
    console: Console,
    sandbox: Sandboxes = Sandbox,
    cluster: Cluster | None = None,
    *,
    watch: bool = False,
) -> list[Failed]:
    """Perform the runs that `folder` does not hold yet, here or on a cluster. Returns those that did not finish.

    `watch` shows the fabric meanwhile, if it is here and there is a terminal.

    Raises EmulatorError when the fabric cannot be built and ResultsError when a result cannot be written; what had
    finished before is in the folder, and so are the runs that did not finish, with the reason.
    """
    finished = set(folder.runs().get("run_id", []))
    todo = [run for run in work.runs if run.run_id not in finished]
    if not todo:
        return []
    with folder.in_use() as log:
        if changed := [] if cluster else note_machine(folder):
            console.warn(
                f"{folder.path} goes on elsewhere than it was begun: {'; '.join(changed)}. Its manifest.json tells "
                "which runs are from where"
            )
        captures, limit_bps = Folder(folder.path.absolute()) / CAPTURES, calibration.userspace_limit_bps
        watched = watch and console.interactive and not console.quiet and not cluster
        if cluster:
            asked = asked_of(folder, work)
            outcomes = cluster.conducted(asked, work, todo, log, captures, limit_bps, sandbox)
        else:
            here_bps = limit_bps(work.topology.hosts)
            outcomes = conducted(work, todo, log, captures, here_bps, sandbox, watched=watched)
        bar = Watched if watched else Bar
        seen = shown(recorded(folder, work, todo, outcomes, console.say), work, todo, console, bar)
        return [outcome for outcome in seen if isinstance(outcome, Failed)]


def asked_of(folder: ResultsFolder, work: Work) -> Asked:
    """Return what the runs of `work` are made from on other machines: what `folder` holds."""
    from experiments.runs.loads.programs import Programs
    from experiments.runs.loads.sweeps import replay_work
    from experiments.runs.worker import Asked

    manifest = folder.manifest()
    files = {place: folder.input(place) or b"" for place in manifest.get("inputs", {})}
    make = partial(Programs, program=work.program) if isinstance(work, Programs) else replay_work
    return Asked(manifest["experiment"], files, make)


def answer(folder: ResultsFolder, work: Work, console: Console) -> Verdict:
    """Print what `tell` does, and where everything is; write the report."""
    runs = folder.runs()
    verdict = tell(folder, console)
    if len(runs):
        with console.waiting(lambda: "writing the report"):
            from experiments.results.report import report_path, write_report  # matplotlib takes a while to import

            write_report([folder], report_path([folder]))
        console.note(f"report:  {report_path([folder])}")
    else:
        folder.write_verdict(as_json(verdict))
    if len(runs) < len(work.runs):
        done = f"{len(runs)} of {len(work.runs)} runs are done"
        again = f"spraylab {work.command} --resume {folder.path}"
        console.say(f"{done}; go on with: {again}")
    console.say(f"results: {folder.path}")
    if console.lost:
        complain(f"results: {folder.path}")
    return verdict


def tell(folder: ResultsFolder, console: Console, within: float | None = None) -> Verdict:
    """Print the table, a line a collective, the sentence, and what did not finish; `within` as for `of_results`."""
    runs = folder.runs()
    verdict = of_results(runs, folder.manifest(), within)
    if len(runs):
        console.show(render(runs))
        console.say("")
        for row in runs[runs.fidelity != PASS].itertuples():
            console.say(row.fidelity_reasons, "red", f"{row.run_id}: fidelity fail:")
    for line in lines(verdict):
        console.say(line)
    console.say(sentence(verdict), "" if verdict.missing else "bold")
    if machines := effect(runs):
        console.say(machines)
    if (factor := folder.scale()) > 1:
        console.say(f"Emulated at {Scale(factor)}: a time here is {factor} times the cluster's, ratios are its own.")
    for reason, failed in folder.failed_runs().groupby("reason", sort=False):
        named = ", ".join(failed.run_id.head(_MOST_NAMED))
        more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
        console.say(str(reason), "red", f"{named}{more} did not finish:")
    return verdict


def refusal(verdict: Verdict, fail_on: Collection[str]) -> str | None:
    """Return why `--fail-on` fails, in one sentence; None: nothing that `fail_on` names came true."""
    failed = verdict.finished - verdict.trusted
    if "fidelity" in fail_on and failed:
        return f"--fail-on fidelity: {failed} of {verdict.finished} runs cannot be trusted"
    if "spraying-pays" in fail_on and verdict.outcome is None:
        return "--fail-on spraying-pays: there is no verdict"
    if "spraying-pays" in fail_on and verdict.outcome is Outcome.SPRAYING:
        return "--fail-on spraying-pays: packet spraying pays"
    return None


def _warn(work: Work, console: Console) -> None:
    if warning := calibration.warning(work.experiment):
        console.warn(warning)
    for scheme, reason in work.lacking().items():
        console.warn(f"{scheme} will not run: {reason}")


def _print_plan(work: Work, console: Console) -> None:
    console.show(plan_table(work))
    for label, reason in work.too_short().items():
        console.warn(f"{label} will fail fidelity: {reason}")
    console.say(f"about {work.total_estimate_s():.0f} s in all; nothing was built")


def plan_table(work: Work) -> Table:
    """Return what a dry run shows: a line for every run."""
    rows = [{"run": run.run_id, **work.columns(run), "estimate": f"{work.estimate_s(run):.1f} s"} for run in work.runs]
    return table_of_rows(f"{work.name}: {len(rows)} runs", list(rows[0]), [list(row.values()) for row in rows])
