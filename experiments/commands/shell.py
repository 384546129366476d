"""`spraylab shell`: Mininet's command line on a running fabric."""

from __future__ import annotations

import click

from experiments.commands.common import Worded, become_root, complete_experiments, foot, read_experiment
from experiments.commands.options import set_option


def _plain() -> str:
    from traffic.schemes import names_of_role

    return names_of_role("plain")[0]


def _words() -> dict[str, str]:
    from traffic.schemes import names_for_programs

    return {"names": names_for_programs(), "plain": _plain()}


@click.command(cls=Worded, words=_words, epilog=foot({"0": "done", "1": "the fabric could not be built"}))
@click.argument("experiment", shell_complete=complete_experiments)
@set_option
@click.option(
    "--scheme",
    default=_plain,
    show_default=False,
    metavar="NAME",
    help="What hosts' NICs do to each packet or connection: {names}  [default: {plain}]",
)
def shell(experiment: str, overrides: tuple[str, ...], scheme: str) -> None:
    """Talk to a running fabric: Mininet's command line.

    On the fabric of EXPERIMENT, a YAML file or a name of the catalog, with its first seed. As in Mininet,
    `h1 ping -c1 h5` runs a command on a host; `links`, `queues` and `paths h1 h9` show the fabric, and `help` lists all
    commands. They may also come from a pipe, one a line. Asks sudo for root. `exit` or Ctrl-D ends it, and the fabric
    with it; nothing is written.

    \b
    Examples:
      spraylab shell quick
      spraylab shell --scheme spray quick
      echo 'h1 ping -c1 h5' | spraylab shell quick
    """
    from experiments.shell.terminal import converse

    loaded = read_experiment(experiment, overrides)
    become_root()
    converse(loaded, scheme)
