"""`spraylab init`: a file to make an experiment of."""

from __future__ import annotations

from pathlib import Path

import click

from experiments.commands.common import BAD_INPUT, end, foot
from experiments.commands.streams import echo

_SUFFIXES = (".yaml", ".yml")


@click.command(
    epilog=foot(
        {"0": "done", "2": "NAME.yaml is already there, or cannot be written"},
        {
            "NAME.yaml": "the experiment",
            "spraylab.schema.json": "beside it: for editors; left alone if it is there",
        },
    )
)
@click.argument("name", default="mine")
def init(name: str) -> None:
    """Write a file to make your own experiment of.

    NAME.yaml  [default: mine] runs as it is, and says in comments what else may be in it. Never replaces a file. Needs
    no root.

    \b
    Examples:
      spraylab init
      spraylab init experiments/mine
    """
    import json

    from emulator.caller import as_caller
    from experiments.spec.experiment import STARTER
    from experiments.spec.schema import SCHEMA_FILE, experiment_schema

    path = Path(name if name.endswith(_SUFFIXES) else f"{name}.yaml")
    if not path.name.isprintable() or path.stem in ("", "."):
        end(f"{name!r} is no name of a file: give one such as mine", BAD_INPUT)
    with as_caller():
        there = path.parent.is_dir()
    if not there:
        end(f"{path.parent} is no folder that there is: make it first, or name another", BAD_INPUT)
    if not _new(path, STARTER.read_text()):
        end(f"{path} is already there, and left as it is: give another name, such as {path.stem}-2", BAD_INPUT)
    echo(f"written: {path}")
    schema = path.with_name(SCHEMA_FILE)
    if _new(schema, json.dumps(experiment_schema(), indent=2) + "\n"):
        echo(f"written: {schema}")
    echo(f"run it:  spraylab run {path}")


def _new(path: Path, text: str) -> bool:
    """Write a file of the caller's, all of it or none; False: there is one, which is left alone."""
    from emulator.caller import as_caller

    with as_caller():
        try:
            with path.open("x", encoding="utf-8") as file:
                try:
                    file.write(text)
                    file.flush()
                except OSError:
                    path.unlink()
                    raise
        except FileExistsError:
            return False
        except (OSError, ValueError) as error:
            end(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}", BAD_INPUT)
    return True
