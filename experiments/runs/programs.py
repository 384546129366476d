"""Unmodified programs on an experiment's fabric, under each of its schemes: what to run, what came of it.

DIR/programs.csv    one row a run, written as each run ends
DIR/output/RUN/     what each host wrote: h1.log and so on
DIR/manifest.json, DIR/run.log
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from emulator.caller import as_caller
from emulator.ports import Port
from emulator.programs import OUTPUT_LIMIT_BYTES, Ended, Launch, Output
from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine
from experiments.judge.fidelity import least_idle, network_failures, samples_within
from experiments.judge.rows import FAIL, PASS, links_of, measured_congestion_ratio, summary
from experiments.machine.calibration import userspace_limit_bps
from experiments.results.folder import LOG, ResultsError, ResultsFolder, write_file
from experiments.results.sentences import DEALT, sentence
from experiments.results.verdict import Asked, decide
from experiments.runs.messages import Built, ProgramJob, ProgramMeasured
from experiments.runs.outside import record_fabric
from experiments.spec.experiment import Experiment, SpecError
from traffic.schemes import names_for_programs, scheme_of

PROGRAMS = "programs.csv"
LOADED = 0.1
"""A port that sends at this part of its rate or more is loaded: what start-up chatter stays below."""

_SILENCE_S = 60.0  # on top of the program's own time
_FIRST_MASTER_PORT = 29_500  # as torchrun's; a port a run, as the last run's may be held for a while


def parse_hosts(text: str | None, fabric: LeafSpine) -> tuple[int, ...]:
    """'h1,h5-h8' -> hosts in the order of their ranks; None: all. Raises SpecError."""
    if text is None:
        return tuple(range(fabric.hosts))
    hosts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"h([0-9]+)(?:-h([0-9]+))?", part.strip())
        if match is None:
            raise SpecError(f"--hosts: {part.strip()!r} is no host; write h1, h5-h8 or several of them with commas")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= fabric.hosts:
            raise SpecError(f"--hosts: {part.strip()} is not in this fabric, whose hosts are h1 to h{fabric.hosts}")
        hosts += range(first - 1, last)
    if len(set(hosts)) < len(hosts):
        raise SpecError(f"--hosts: {text} names a host twice; each runs the program once")
    return tuple(hosts)


def plan_programs(
    experiment: Experiment, command: Sequence[str], hosts: tuple[int, ...], timeout_s: float
) -> tuple[list[ProgramJob], list[str]]:
    """A run for every seed and scheme, and the schemes left out: nobody but the program can split its connections.

    Raises SpecError where no scheme is left.
    """
    left_out = [scheme for scheme in experiment.schemes if not scheme_of(scheme).for_programs]
    schemes = [scheme for scheme in experiment.schemes if scheme not in left_out]
    if not schemes:
        raise SpecError(
            f"schemes: {', '.join(left_out)} cannot apply to an unmodified program, which opens its own connections; "
            f"write {names_for_programs()}"
        )
    cases = [(seed, scheme) for seed in experiment.seeds for scheme in schemes]
    return [
        ProgramJob(
            run_id=f"{number:03d}-{scheme}-s{seed}",
            scheme=scheme,
            seed=seed,
            launch=Launch(tuple(command), hosts, timeout_s, _FIRST_MASTER_PORT + number % 1000),
        )
        for number, (seed, scheme) in enumerate(cases, start=1)
    ], left_out


@dataclass(frozen=True)
class ProgramRun:
    """What is known of a run whose bytes are the program's own business: `experiments.judge.fidelity.Observed`.

    The machine is judged while the fabric is loaded: what keeps it busy before (starting interpreters, say) delays no
    packet.
    """

    measured: ProgramMeasured
    ports: Sequence[Port]
    start_s: float
    end_s: float

    @classmethod
    def of(cls, measured: ProgramMeasured, ports: Sequence[Port]) -> ProgramRun:
        ended = measured.ended
        return cls(measured, ports, *(loaded_span_s(measured, ports) or (ended.started_s, ended.ended_s)))


def loaded_span_s(measured: ProgramMeasured, ports: Sequence[Port]) -> tuple[float, float] | None:
    """When the first port became loaded and the last ceased to be; None: none ever was."""
    queues = measured.samples.queues
    grouped = queues.groupby("port")
    passed_s, sent = grouped.time_s.diff(), grouped.sent_bytes.diff()
    rate_bps = queues.port.map(lambda number: ports[int(number)].shaping.rate_bps)
    loaded = sent * 8 >= LOADED * rate_bps * passed_s
    if not loaded.any():
        return None
    return float((queues.time_s - passed_s)[loaded].min()), float(queues.time_s[loaded].max())


def judge_program(run: ProgramRun, job: ProgramJob, experiment: Experiment, dataplane: str) -> dict[str, Any]:
    """A row of programs.csv. Invariants 1 to 4 are as for replays; the fifth, of bytes, cannot apply."""
    measured, fabric = run.measured, experiment.fabric.topology()
    ended = measured.ended
    links = links_of(run)
    failed = network_failures(run)
    span = loaded_span_s(measured, run.ports)
    from_hosts = [port.at_host for port in run.ports]
    return {
        "run_id": job.run_id,
        "experiment": experiment.name,
        "scheme": job.scheme,
        "seed": job.seed,
        "dataplane": dataplane,
        "hosts": len(job.launch.hosts),
        "duration_s": ended.ended_s - ended.started_s,
        "loaded_s": span[1] - span[0] if span else 0.0,
        "exit_status": ended.status,
        "failed_host": "" if ended.host is None else fabric.host_name(ended.host),
        "failure": ended.reason,
        "congestion_ratio": measured_congestion_ratio(run.ports, links, fabric),
        "wire_bytes": int(links.tx_bytes[from_hosts].sum()),
        "retransmitted_segments": measured.retransmitted_segments,
        "drops_packets": int(links.drops_packets.sum()),
        "queue_peak_bytes": int(links.queue_peak_bytes.max()),
        "cpu_idle_min": least_idle(samples_within(run)),
        "fidelity": FAIL if failed else PASS,
        "fidelity_reasons": summary(failed),
    }


def conduct_programs(
    experiment: Experiment,
    jobs: Sequence[ProgramJob],
    folder: ResultsFolder,
    console: Console,
    rows: list[dict[str, Any]],
) -> None:
    """Run them one after the other, to the first that fails; a row each is added to `rows` and to the folder.

    Raises EmulatorError when the fabric cannot be built and ResultsError when a result cannot be written.
    """
    from experiments.runs.inside_programs import perform_programs  # imports Mininet

    fabric, todo = experiment.fabric.topology(), iter(jobs)
    job = next(todo)
    with folder.in_use(), ExitStack() as open_files, Sandbox(folder.path / LOG) as sandbox:
        logs = open_files.enter_context(OutputLogs(folder.path / "output", fabric, console.print))
        events = sandbox.stream(
            perform_programs,
            fabric,
            experiment.tcp(),
            jobs,
            experiment.fabric.dataplane,
            userspace_limit_bps(fabric.hosts),
            timeout_s=max(job.launch.timeout_s for job in jobs) + _SILENCE_S,
        )
        for event in events:
            match event:
                case Built():
                    built = event
                    record_fabric(folder, built)
                    console.print(
                        f"fabric up in {built.setup_s['ready']:.1f} s; data plane {built.dataplane}: {built.why}",
                        highlight=False,
                    )
                    logs.begin(job)
                case Output(pieces):
                    logs.write(pieces.items())
                case ProgramMeasured():
                    logs.end(event.ended)
                    rows.append(judge_program(ProgramRun.of(event, built.ports), job, experiment, built.dataplane))
                    write_file(folder.path / PROGRAMS, pd.DataFrame(rows).to_csv(index=False))
                    if (following := next(todo, None)) and not event.ended.status:
                        job = following
                        logs.begin(job)


def conclusion(rows: Sequence[dict[str, Any]], jobs: Sequence[ProgramJob]) -> str:
    """One sentence: whether the program needs spraying, by how long it kept the fabric loaded under each scheme.

    `rows` are those of programs.csv, `jobs` all that was to run; a run in which the program failed has no result.
    """
    ended = [row for row in rows if not row["exit_status"]]
    if idle := sum(not row["loaded_s"] for row in ended):
        return f"No verdict: in {idle} of {len(ended)} runs no port was ever loaded (sent at {LOADED:.0%} of its rate)."
    asked = Asked(
        schemes=tuple(dict.fromkeys(job.scheme for job in jobs)),
        seeds=tuple(dict.fromkeys(job.seed for job in jobs)),
        runs=len(jobs),
        collectives=1,
    )
    runs = pd.DataFrame(ended).assign(traffic=Path(jobs[0].launch.command[0]).name)
    return sentence(decide(runs, asked=asked, measure="loaded_s"), single_path=DEALT)


class OutputLogs:
    """A file for each host's output, and as much of it on the terminal as can be read."""

    LINES_PER_S = 50
    LINE_CHARACTERS = 400

    def __init__(self, folder: Path, fabric: LeafSpine, say: Callable[..., None]) -> None:
        self._folder, self._fabric, self._say = folder, fabric, say
        self._files: dict[int, BinaryIO] = {}
        self._begun: dict[int, bytes] = {}  # lines that have not ended
        self._second, self._shown, self._hidden = 0, 0, 0

    def __enter__(self) -> OutputLogs:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def begin(self, job: ProgramJob) -> None:
        self._run_folder = self._folder / job.run_id
        self._say(f"{job.run_id}: {len(job.launch.hosts)} processes", style="bold", highlight=False)
        try:
            with as_caller():
                self._run_folder.mkdir(parents=True)
                for host in job.launch.hosts:
                    self._files[host] = (self._run_folder / f"{self._fabric.host_name(host)}.log").open("wb")
        except OSError as error:
            raise ResultsError(f"cannot write {self._run_folder}: {error.strerror}") from error

    def write(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        for host, piece in pieces:
            self._put(host, piece)
            *lines, self._begun[host] = (self._begun.get(host, b"") + piece).split(b"\n")
            for line in lines:
                self._show(host, line)
            self._begun[host] = self._begun[host][: 4 * self.LINE_CHARACTERS]

    def end(self, ended: Ended) -> None:
        self._shown = 0
        for host, rest in self._begun.items():
            if rest:
                self._show(host, rest)
        self._begun.clear()
        if self._hidden:
            self._say(f"{self._hidden:,} more lines are in {self._run_folder}", highlight=False, soft_wrap=True)
            self._hidden = 0
        for host, total in ended.output_bytes.items():
            if total > OUTPUT_LIMIT_BYTES:
                name = self._fabric.host_name(host)
                cut = f"cut after {OUTPUT_LIMIT_BYTES / 1e6:g} of {total / 1e6:.1f} MB"
                self._put(host, f"\n[spraylab: {cut}]\n".encode())
                self._say(f"{name}.log is {cut}", highlight=False)
        self.__exit__()

    def _put(self, host: int, data: bytes) -> None:
        try:
            self._files[host].write(data)
            self._files[host].flush()
        except OSError as error:
            raise ResultsError(f"cannot write to {self._run_folder}: {error.strerror}") from error

    def _show(self, host: int, line: bytes) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._shown = second, 0
        self._shown += 1
        if self._shown > self.LINES_PER_S:
            self._hidden += 1
            return
        text = line[: 4 * self.LINE_CHARACTERS].decode(errors="replace").rstrip("\r").expandtabs()
        # Whatever moves the cursor or changes colours would garble the other hosts' lines.
        text = re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]", "", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
        name = self._fabric.host_name(host)
        self._say(f"{name}: {text[: self.LINE_CHARACTERS]}", highlight=False, markup=False, soft_wrap=True)


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Per scheme: medians of the runs whose fidelity is pass, in 80 columns."""
    frame = pd.DataFrame(rows)
    shown = Table(
        title="programs, by scheme", caption="medians of the runs whose fidelity is pass",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for name in ("scheme", "duration", "loaded", "congestion\nratio", "sent", "retrans-\nmits", "drops", "fidelity"):
        shown.add_column(name, justify="left" if name == "scheme" else "right", no_wrap=True)
    for scheme, group in frame.groupby("scheme", sort=False):
        trusted = group[group.fidelity == PASS]
        passed, median = len(trusted), trusted.median(numeric_only=True)
        numbers = (
            f"{median.duration_s:.2f} s",
            f"{median.loaded_s:.2f} s",
            f"{median.congestion_ratio:.2f}",
            f"{median.wire_bytes / 1e6:.2f} MB",
            f"{median.retransmitted_segments:,.0f}",
            f"{median.drops_packets:,.0f}",
        )
        shown.add_row(
            str(scheme),
            *(numbers if passed else ("untrusted", *["-"] * 5)),
            f"[{'green' if passed == len(group) else 'red'}]{passed}/{len(group)} pass",
        )
    return shown
