"""`spraylab schema`: what editors check experiment files by."""

from __future__ import annotations

import click

from experiments.commands.common import foot


@click.command(epilog=foot({"0": "done"}))
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors.

    With it, an editor completes keys and names, says what each means, and marks what no experiment may have. A file
    that begins with a line as below is checked by editors with YAML's language server, such as VS Code, Neovim and
    Emacs; `init` writes the line and the schema.

    \b
      # yaml-language-server: $schema=spraylab.schema.json

    \b
    Examples:
      spraylab schema | less
      spraylab schema > spraylab.schema.json
    """
    import json

    from experiments.spec.schema import experiment_schema

    click.echo(json.dumps(experiment_schema(), indent=2))
