"""`spraylab list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import click

from experiments.commands.common import foot

Entries = Iterable[tuple[str, str]]
"""Names, each with a line about it."""


class _Kind(NamedTuple):
    """Something that experiments or commands choose from."""

    says: str
    entries: Callable[[], Entries]


def _catalog() -> Entries:
    from experiments.spec.experiment import CATALOG, catalog_names

    return ((name, _first_words((CATALOG / f"{name}.yaml").read_text())) for name in catalog_names())


def _first_words(text: str) -> str:
    """Return the first sentence of the comment that a file begins with."""
    lines = text.splitlines()
    comment = lines[: next((at for at, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    return " ".join(line.lstrip("# ") for line in comment).partition(". ")[0].removesuffix(".")


def _collectives() -> Entries:
    from traffic.collectives import COLLECTIVES

    for name, collective in COLLECTIVES.items():
        algorithms = []
        for algorithm in collective.algorithms.values():
            options = [option for option in algorithm.options if option != "seed"]
            algorithms.append(algorithm.name + (f" ({', '.join(options)})" if options else ""))
        yield name, ", ".join(algorithms)


def _schemes() -> Entries:
    from traffic.schemes import clauses

    return clauses().items()


def _traffic() -> Entries:
    from experiments.spec.traffic import kinds

    return ((key, kind.example) for key, kind in kinds().items())


def _formats() -> Entries:
    from traffic.formats import FORMATS

    return ((key, f"{form.says}, such as perm{form.suffix}") for key, form in FORMATS.items())


def _jobs() -> Entries:
    from traffic.jobs import JOBS

    return ((name, job.says) for name, job in JOBS.items())


def _models() -> Entries:
    from traffic.jobs import MODELS

    return ((name, f"{model.parameters:,} parameters") for name, model in MODELS.items())


def _strains() -> Entries:
    from inspect import getdoc

    from traffic.strain import STRAINS

    return ((kind.key, (getdoc(kind) or "").splitlines()[0]) for kind in STRAINS)


def _faults() -> Entries:
    from inspect import getdoc

    from experiments.spec.faults import ENTRIES

    return ((kind, (getdoc(entry) or "").splitlines()[0]) for kind, entry in ENTRIES.items())


def _dataplanes() -> Entries:
    from controllers.dataplane import PLANES

    return ((name, plane.says.replace("`", "")) for name, plane in PLANES.items())


def _benchmarks() -> Entries:
    from experiments.commands.bench import BENCHMARKS

    return ((name, benchmark.says) for name, benchmark in BENCHMARKS.items())


def _invariants() -> Entries:
    from experiments.judge.invariants import INVARIANTS

    return ((invariant.name, invariant.says) for invariant in INVARIANTS)


def _keys() -> Entries:
    from experiments.spec.described import described_keys

    for key in described_keys():
        yield key.path, f"{key.means}: {key.takes}" + (f" [default: {key.default}]" if key.default else "")


def _columns() -> Entries:
    from experiments.results.columns import files

    for file, columns in files().items():
        of = "" if file == "runs.csv" else f"{file}: "
        yield from ((f"{of}{name}", says) for name, says in columns.items())


KINDS = {
    "catalog": _Kind("experiments that come along, for run, predict and show", _catalog),
    "collectives": _Kind("algorithms of each, the default first, and their options", _collectives),
    "schemes": _Kind("how bytes meet paths", _schemes),
    "traffic": _Kind("kinds of entries of an experiment's traffic", _traffic),
    "formats": _Kind("files that list flows", _formats),
    "jobs": _Kind("ways to train, of an entry {job: ddp, model: resnet50}", _jobs),
    "models": _Kind("models that jobs train", _models),
    "strains": _Kind("what takes away some of what makes a single path do well", _strains),
    "faults": _Kind("what breaks on links while a run is under way", _faults),
    "dataplanes": _Kind("what forwards packets, of fabric.dataplane", _dataplanes),
    "benchmarks": _Kind("what bench measures", _benchmarks),
    "keys": _Kind("every key of an experiment file", _keys),
    "columns": _Kind("every column of a results folder", _columns),
    "invariants": _Kind("what must hold for a run to be trusted", _invariants),
}

_HELP = """Say what there is to choose from, a line each.

All of it, or one KIND:

{kinds}

\b
Examples:
  spraylab list
  spraylab list schemes
  spraylab list collectives --json
""".format(kinds="\n".join(["\b", *(f"  {name:12} {kind.says}" for name, kind in KINDS.items())]))


@click.command("list", help=_HELP, short_help="Say what there is to choose from.", epilog=foot({"0": "done"}))
@click.argument("kind", type=click.Choice(list(KINDS)), required=False, metavar="[KIND]")
@click.option("--json", "as_json", is_flag=True, help="Print an object: for each KIND a list of {name, says}")
def list_(kind: str | None, as_json: bool) -> None:
    import json

    chosen = {name: list(KINDS[name].entries()) for name in ([kind] if kind else KINDS)}
    if as_json:
        objects = {each: [{"name": name, "says": says} for name, says in entries] for each, entries in chosen.items()}
        click.echo(json.dumps(objects, indent=2))
        return
    indent = "" if kind else "  "
    for each, entries in chosen.items():
        if not kind:
            click.echo(f"{each}: {KINDS[each].says}")
        width = max((len(name) for name, _ in entries), default=0)
        for name, says in entries:
            click.echo(f"{indent}{name:<{width}}  {says}")
