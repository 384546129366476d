"""Flowlet switching by the leaf, as LetFlow has it."""

from __future__ import annotations

import re

from emulator.forwarding import NO_FLOWLETS, Flowlets
from traffic.schemes.scheme import Family, ForPrograms, Needs, Scheme, spare_look

LEAST_GAP_MS, MOST_GAP_MS = 8, 9999  # a kernel's clock may tick every 4 ms
_NAME = re.compile(r"flowlet-([1-9][0-9]{0,3})ms")
_SAYS = "the leaf gives a connection a random spine, and another draw whenever it has paused for {}"


def _lacking(dataplane: str) -> str | None:
    if dataplane.startswith("ovs"):
        return NO_FLOWLETS
    return f"on Open vSwitch, should auto take it: {NO_FLOWLETS}" if dataplane == "auto" else None


def flowlet_scheme(name: str) -> Scheme | None:
    """Return the scheme of a name such as flowlet-100ms."""
    match = _NAME.fullmatch(name)
    if not match or not LEAST_GAP_MS <= int(match[1]) <= MOST_GAP_MS:
        return None
    gap_ms = int(match[1])
    return Scheme(
        name=name,
        says=_SAYS.format(f"{gap_ms} ms"),
        look=spare_look(gap_ms),
        switch=Flowlets(gap_ms / 1000),
        for_programs=ForPrograms(f"each connection gets a random path after every pause of {gap_ms} ms"),
        source="LetFlow: Vanini et al., NSDI 2017",
        needs=Needs("Linux routers (fabric.dataplane: linux)", _lacking),
        unpredicted="paths are drawn at random, as often as connections pause",
    )


FLOWLETS = Family(
    "flowlet-Tms",
    f"with T from {LEAST_GAP_MS} to {MOST_GAP_MS}",
    _SAYS.format("T ms"),
    flowlet_scheme,
    for_programs=True,
)
