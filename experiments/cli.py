"""The command line. Every error ends with one sentence; exit status 2: the command was wrong, nothing was built."""

from __future__ import annotations

from typing import Any

import click

from experiments.commands import signals
from experiments.commands.bench import bench
from experiments.commands.calibrate import calibrate
from experiments.commands.captures import captures
from experiments.commands.common import BAD_INPUT, FAILED, end, foot
from experiments.commands.completion import completion
from experiments.commands.doctor import doctor
from experiments.commands.exec import exec_
from experiments.commands.frontier import frontier
from experiments.commands.import_ import import_
from experiments.commands.init import init
from experiments.commands.list import list_
from experiments.commands.predict import predict
from experiments.commands.report import report
from experiments.commands.run import run
from experiments.commands.schema import schema
from experiments.commands.shell import shell
from experiments.commands.show import show
from experiments.commands.streams import guarded
from experiments.commands.test import test


class _Sentences(click.Group):
    """Turns the errors meant for people into sentences, and Ctrl-C and other signals into a status."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)  # as a newcomer meets them, not by the alphabet

    def main(self, *args: Any, **given: Any) -> Any:
        with guarded():
            return super().main(*args, **given)

    def invoke(self, context: click.Context) -> object:
        from emulator.caller import CallerError
        from emulator.errors import EmulatorError
        from experiments.results.folder import ResultsError
        from experiments.spec.messages import SpecError

        try:
            with signals.raised():
                return super().invoke(context)
        except (SpecError, ResultsError, CallerError) as error:
            end(str(error), BAD_INPUT)
        except EmulatorError as error:
            end(str(error), FAILED)
        except KeyboardInterrupt as interrupt:
            end(f"{str(interrupt) or 'interrupted'}; what was built is gone again", signals.status(interrupt))


@click.group(
    cls=_Sentences,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=foot({"0": "done", "1": "failed, or could not be built"}),
)
@click.version_option(
    None, "-V", "--version", package_name="spraylab", message="%(prog)s %(version)s", help="Show the version and exit."
)
def main() -> None:
    """Does a training cluster need packet spraying?

    Emulates a leaf-spine fabric on this machine's own network stack, replays collectives over it under several
    load-balancing schemes, and says how close each came to the best that any could do, and which numbers can be
    trusted. What builds a fabric needs root, and asks sudo for it.

    \b
    Examples:
      spraylab doctor                 # can this machine do it?
      spraylab run quick              # the answer, in under three minutes
      spraylab init mine              # a file to make your own experiment of
      spraylab run --help             # all about one command
    """


_COMMANDS = (
    *(init, import_, run, predict, frontier, show, report, exec_, shell, captures, list_),
    *(doctor, calibrate, bench, test, schema, completion),
)
for command in _COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="spraylab")
