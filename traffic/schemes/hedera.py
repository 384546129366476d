"""Hedera: a controller that polls what connections have sent, and places the large ones."""

from __future__ import annotations

import re

from emulator.forwarding import NO_SCHEDULING, Scheduling
from traffic.schemes.scheme import Family, ForPrograms, Needs, Scheme, spare_look

LEAST_PERIOD_MS, MOST_PERIOD_MS = 50, 99_999  # a round takes some milliseconds itself
_FURTHER = 13  # so that it looks otherwise than flowlets of as many milliseconds
_NAME = re.compile(r"hedera-([1-9][0-9]{1,4})ms")
_SAYS = "each connection is hashed as by ecmp, and every {} a controller moves large ones to spines that have room"


def _lacking(dataplane: str) -> str | None:
    if dataplane.startswith("ovs"):
        return NO_SCHEDULING
    return f"on Open vSwitch, should auto take it: {NO_SCHEDULING}" if dataplane == "auto" else None


def hedera_scheme(name: str) -> Scheme | None:
    """Return the scheme of a name such as hedera-500ms."""
    match = _NAME.fullmatch(name)
    if not match or not LEAST_PERIOD_MS <= int(match[1]) <= MOST_PERIOD_MS:
        return None
    period_ms = int(match[1])
    return Scheme(
        name=name,
        says=_SAYS.format(f"{period_ms} ms"),
        look=spare_look(period_ms + _FURTHER),
        switch=Scheduling(period_ms / 1000),
        for_programs=ForPrograms(f"switches hash each connection, and large ones are placed every {period_ms} ms"),
        acts="in switches, which hash and count, and in a controller, which places what is large",
        source="Hedera: Al-Fares et al., NSDI 2010, with global first fit",
        needs=Needs("Linux routers (fabric.dataplane: linux)", _lacking),
        unpredicted="a controller moves connections while they last",
    )


HEDERA = Family(
    "hedera-Pms",
    f"with P from {LEAST_PERIOD_MS} to {MOST_PERIOD_MS}",
    _SAYS.format("P ms"),
    hedera_scheme,
    for_programs=True,
)
