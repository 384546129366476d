"""`spraylab calibrate`: how fast links may be for this machine to be faithful."""

from __future__ import annotations

import click

from controllers.dataplane import PLANES
from experiments.commands.common import become_root, foot
from experiments.commands.options import count_option, quiet_option


@click.command(
    epilog=foot(
        {"0": "done", "1": "a fabric could not be built"},
        {"~/.local/state/spraylab/calibration.json": "the rates, for this machine"},
    )
)
@click.option(
    "--hosts",
    type=click.Choice(["16", "32", "64", "128"]),
    multiple=True,
    default=["16"],
    show_default=True,
    help="Hosts of the fabric; may be repeated",
)
@click.option(
    "--dataplane",
    type=click.Choice(list(PLANES)),
    multiple=True,
    help="What forwards packets; may be repeated  [default: all there are]",
)
@count_option(
    "--burst", 1, 7, default=1, help="How many frames of 9000 bytes travel as one, as in an experiment's fabric.burst"
)
@quiet_option
def calibrate(hosts: tuple[str, ...], dataplane: tuple[str, ...], burst: int, *, quiet: bool) -> None:
    """Find how fast links may be for this machine to be faithful.

    For every data plane and number of hosts: the highest link rate, to within 15 %, at which a permutation that keeps
    all links busy comes within 5 % of its bound with fidelity pass, twice. `run` then warns of experiments beyond it,
    and rates of auto follow it. Asks sudo for root. Takes minutes; leave the machine alone meanwhile.

    \b
    Examples:
      spraylab calibrate
      spraylab calibrate --hosts 16 --hosts 64 --dataplane linux
    """
    from experiments.commands.output import Console
    from experiments.machine import calibration
    from experiments.machine.calibrate import calibrate as measure
    from experiments.machine.calibrate import table

    become_root()
    console = Console(quiet=quiet)
    with console.waiting(lambda: "calibrating"):
        found = measure([int(count) for count in hosts], list(dataplane) or None, burst, say=console.note)
    kept = calibration.save(found)
    console.show(table(found))
    console.say(f"kept in {kept}")
