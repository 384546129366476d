"""The schemes there are. A new one is a file of its own and a line in SCHEMES, or in FAMILIES if it has a number."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.inputs import quote
from traffic.schemes.ecmp import ECMP
from traffic.schemes.ethereal import ETHEREAL, ETHEREAL_WEIGHTED
from traffic.schemes.flowlets import FLOWLETS
from traffic.schemes.hedera import HEDERA
from traffic.schemes.mptcp import MPTCP
from traffic.schemes.presto import PRESTO
from traffic.schemes.scheme import INK, Family, ForPrograms, Look, Needs, Role, Scheme, Split, spare_look
from traffic.schemes.spray import SPRAY, SPRAY_RANDOM, SPRAY_WEIGHTED, SWITCH_SPRAY
from traffic.schemes.subflows import SUBFLOWS

__all__ = [
    "FAMILIES",
    "INK",
    "SCHEMES",
    "Family",
    "ForPrograms",
    "Look",
    "Needs",
    "Role",
    "Scheme",
    "Split",
    "clauses",
    "clauses_for_programs",
    "names_for_programs",
    "names_not_for_programs",
    "names_of_role",
    "playing",
    "scheme_of",
    "spare_look",
]

SCHEMES: tuple[Scheme, ...] = (
    *(ECMP, SPRAY, SPRAY_RANDOM, ETHEREAL, SWITCH_SPRAY),
    *(SPRAY_WEIGHTED, ETHEREAL_WEIGHTED, PRESTO),
)
FAMILIES: tuple[Family, ...] = (SUBFLOWS, MPTCP, FLOWLETS, HEDERA)


def scheme_of(name: str) -> Scheme:
    """Return the scheme of that name. Raises ValueError, naming what would be right, where there is none."""
    members = (family.member(name) for family in FAMILIES)
    for scheme in (*SCHEMES, *members):
        if scheme is not None and scheme.name == name:
            return scheme
    known = [*(scheme.name for scheme in SCHEMES), *(f"{family.name} {family.limits}" for family in FAMILIES)]
    raise ValueError(f"unknown scheme {quote(name)}; known are {_listed(known, 'and')}")


def names_of_role(role: Role) -> list[str]:
    """Return the schemes that play a role in the verdict; where an experiment has several, see `playing`."""
    return [scheme.name for scheme in SCHEMES if scheme.role == role]


def playing(role: Role, schemes: Sequence[str]) -> str | None:
    """Return which of `schemes` plays a role in the verdict: one that knows links' rates, else the first there is."""
    able = [name for name in names_of_role(role) if name in schemes]
    return min(able, key=lambda name: not scheme_of(name).weighted, default=None)


def clauses() -> dict[str, str]:
    """Return what each scheme and family does, in a clause."""
    kinds: tuple[Scheme | Family, ...] = (*SCHEMES, *FAMILIES)
    return {each.name: each.says for each in kinds}


def names_for_programs() -> str:
    """Return the schemes that unmodified programs can have, as a sentence lists them."""
    kinds: tuple[Scheme | Family, ...] = (*SCHEMES, *FAMILIES)
    return _listed([each.name for each in kinds if each.for_programs], "or")


def names_not_for_programs() -> str:
    """Return the schemes that only a program itself could have, as a sentence lists them."""
    kinds: tuple[Scheme | Family, ...] = (*SCHEMES, *FAMILIES)
    return _listed([each.name for each in kinds if not each.for_programs], "and")


def clauses_for_programs() -> str:
    """Return what each scheme does to unmodified programs, as a sentence lists it."""
    alone = [f"under {each.name}, {each.for_programs.says}" for each in SCHEMES if each.for_programs]
    return "; ".join([*alone, *(f"under {each.name}, {each.says}" for each in FAMILIES if each.for_programs)])


def _listed(words: list[str], last: str) -> str:
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
