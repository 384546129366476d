"""Every flow over several connections, each of which the switches hash for itself."""

from __future__ import annotations

from traffic.schemes.scheme import Family, Scheme, spare_look

MOST_SUBFLOWS = 64
_SAYS = "every flow is cut into {} connections, each hashed as by ecmp"


def _made(name: str, connections: int) -> Scheme:
    return Scheme(
        name=name,
        says=_SAYS.format(connections),
        look=spare_look(connections),
        connections_per_flow=connections,
        acts="in senders, which split, and in switches, which hash",
        source="as several queue pairs a connection in NCCL and other libraries",
    )


SUBFLOWS = Family("subflow-K", 2, MOST_SUBFLOWS, _SAYS.format("K"), _made)
