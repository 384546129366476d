"""`spraylab test`: spraylab's own tests."""

from __future__ import annotations

import sys

import click

from experiments.commands.common import foot


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=foot({"0": "all passed", "1": "something failed", "2": "no test was run"}),
)
@click.option("--smoke", is_flag=True, help="Run the short privileged check alone")
@click.option("--fuzz", is_flag=True, help="Damage files for a minute, newly each time, and have them read")
@click.option("--storm", is_flag=True, help="Strike every process of runs with signals, and look what is left")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def test(smoke: bool, fuzz: bool, storm: bool, pytest_arguments: tuple[str, ...]) -> None:
    """Run spraylab's own tests.

    Static checks; unit tests, which need no root; system tests, which need it and leave nothing behind. A failure does
    not stop the rest. PYTEST_ARGUMENTS go to pytest: options, and files or folders of tests/ to run no others.

    \b
    Examples:
      spraylab test
      spraylab test --smoke
      spraylab test --fuzz --inputs 10000
      spraylab test --storm --kills 100
      spraylab test tests/unit/test_bound.py -k ring
    """
    from experiments.commands import selftest

    sys.exit(selftest.main(list(pytest_arguments), smoke=smoke, fuzz=fuzz, storm=storm))
