"""Hedera: a controller that polls what connections have sent, and places the large ones."""

from __future__ import annotations

from emulator.forwarding import LEAST_POLLED_S, POLLED_TOO_OFTEN, Scheduling
from emulator.nic import Unstamped
from traffic.schemes.scheme import Family, ForPrograms, Scheme, on_routers, spare_look

LEAST_PERIOD_MS, MOST_PERIOD_MS = 50, 99_999  # a round takes some milliseconds itself
_FURTHER = 13  # so that it looks otherwise than flowlets of as many milliseconds
_SAYS = "each connection is hashed as by ecmp, and every {} a controller moves large ones to spines that have room"


def _made(name: str, period_ms: int) -> Scheme:
    return Scheme(
        name=name,
        says=_SAYS.format(f"{period_ms} ms"),
        look=spare_look(period_ms + _FURTHER),
        nic=Unstamped(),
        switch=Scheduling(period_ms / 1000),
        for_programs=ForPrograms(
            f"switches hash each connection, and large ones are placed every {period_ms} ms", Unstamped()
        ),
        acts="in switches, which hash and count, and in a controller, which places what is large",
        source="Hedera: Al-Fares et al., NSDI 2010, with global first fit",
        needs=on_routers(POLLED_TOO_OFTEN) if period_ms < 1000 * LEAST_POLLED_S else None,
        unpredicted="a controller moves connections while they last",
    )


HEDERA = Family("hedera-Pms", LEAST_PERIOD_MS, MOST_PERIOD_MS, _SAYS.format("P ms"), _made, for_programs=True)
