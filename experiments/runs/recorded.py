"""Records runs as they end: whoever shows them sees the same stream, already on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from emulator.errors import EmulatorError
from emulator.programs import Ended, Output
from experiments.judge.evidence import Built
from experiments.results.folder import OUTPUT, ResultsFolder
from experiments.results.manifest import record_fabric, record_machine
from experiments.results.output import OutputLogs
from experiments.runs.messages import Failed, Joined, Started
from experiments.runs.outside import Done, Outcome
from experiments.runs.plan import Run
from experiments.runs.work import Work


def recorded(
    folder: ResultsFolder, work: Work, todo: Sequence[Run], outcomes: Iterator[Outcome], say: Callable[..., None]
) -> Iterator[Outcome]:
    """Yield `outcomes`, those of the runs `todo` of `work`, once `folder` has them.

    What programs write goes to files of the folder, and by `say` to whoever watches. What ends the stream, or never
    lets it begin, is why all runs that were still to do did not finish. Raises what `outcomes` does, and ResultsError.
    """
    over: set[str] = set()
    with ExitStack() as open_files:
        logs = open_files.enter_context(OutputLogs(folder.files / OUTPUT, work.topology, say))
        try:
            for outcome in outcomes:
                match outcome:
                    case Joined(machine, about):
                        record_machine(folder, machine, about)
                    case Built():
                        record_fabric(folder, outcome)
                    case Started(run_id) if work.program_hosts:
                        logs.begin(run_id, work.program_hosts)
                    case Output(pieces):
                        logs.write(pieces.items())
                    case Ended():
                        logs.end(outcome)
                    case Done(run_id, judged):
                        folder.append(judged)
                        over.add(run_id)
                    case Failed(run_id, reason):
                        folder.record_failed([run_id], reason)
                        over.add(run_id)
                yield outcome
        except EmulatorError as error:
            folder.record_failed([run.run_id for run in todo if run.run_id not in over], str(error))
            raise
