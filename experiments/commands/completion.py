"""`spraylab completion`: commands, options and names that a shell completes."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from experiments.commands.common import foot


@click.command(epilog=foot({"0": "done"}))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands and names.

    SHELL is bash (4.4 or later), zsh or fish. Completed are commands, options, their choices, names of the catalog and
    files.

    \b
    Examples:
      spraylab completion bash >> ~/.bashrc
      spraylab completion zsh >> ~/.zshrc
      spraylab completion fish > ~/.config/fish/completions/spraylab.fish
    """
    completes = get_completion_class(shell)
    assert completes is not None
    click.echo(completes(context.find_root().command, {}, "spraylab", "_SPRAYLAB_COMPLETE").source())
