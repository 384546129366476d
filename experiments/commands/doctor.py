"""`spraylab doctor`: whether this machine can emulate."""

from __future__ import annotations

import sys

import click

from experiments.commands.common import FAILED, foot


@click.command(epilog=foot({"0": "run can work here", "1": "run cannot work here"}))
@click.option("--json", "as_json", is_flag=True, help="Print works (true or false) and the findings as JSON")
def doctor(as_json: bool) -> None:
    """Check whether this machine can emulate, and what it lacks.

    Every line is ok, degraded (with what is lost) or missing (with the command that mends it). As root, what the kernel
    can do is tried inside a sandbox; without, it is read from what the kernel says of itself. Changes nothing.

    \b
    Examples:
      spraylab doctor
      spraylab doctor --json
    """
    import json

    from emulator.doctor import diagnose as examination
    from experiments.commands.output import Console

    findings = examination.diagnose()
    if as_json:
        click.echo(json.dumps(examination.as_json(findings), indent=2))
    else:
        console = Console()
        if console.interactive:
            console.show(examination.render(findings))
        else:
            console.say("\n".join(examination.lines(findings)))
    sys.exit(0 if examination.works(findings) else FAILED)
