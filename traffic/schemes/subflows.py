"""Every flow over several connections, each of which the switches hash for itself."""

from __future__ import annotations

import re

from traffic.schemes.scheme import Family, Scheme, spare_look

MOST_SUBFLOWS = 64
_NAME = re.compile(r"subflow-([1-9][0-9]?)")
_SAYS = "every flow is cut into {} connections, each hashed as by ecmp"


def subflow_scheme(name: str) -> Scheme | None:
    """Return the scheme of a name such as subflow-4."""
    match = _NAME.fullmatch(name)
    if not match or not 2 <= int(match[1]) <= MOST_SUBFLOWS:
        return None
    connections = int(match[1])
    return Scheme(
        name=name,
        says=_SAYS.format(connections),
        look=spare_look(connections),
        connections_per_flow=connections,
        acts="in senders, which split, and in switches, which hash",
        source="as several queue pairs a connection in NCCL and other libraries",
    )


SUBFLOWS = Family("subflow-K", f"with K from 2 to {MOST_SUBFLOWS}", _SAYS.format("K"), subflow_scheme)
