"""Flowlet switching by the leaf, as LetFlow has it."""

from __future__ import annotations

from emulator.forwarding import NO_FLOWLETS, Flowlets
from emulator.nic import Unstamped
from traffic.schemes.scheme import Family, ForPrograms, Scheme, on_routers, spare_look

LEAST_GAP_MS, MOST_GAP_MS = 8, 9999  # a kernel's clock may tick every 4 ms
_SAYS = "the leaf gives a connection a random spine, and another draw whenever it has paused for {}"


def _made(name: str, gap_ms: int) -> Scheme:
    return Scheme(
        name=name,
        says=_SAYS.format(f"{gap_ms} ms"),
        look=spare_look(gap_ms),
        nic=Unstamped(),
        switch=Flowlets(gap_ms / 1000),
        for_programs=ForPrograms(f"each connection gets a random path after every pause of {gap_ms} ms", Unstamped()),
        source="LetFlow: Vanini et al., NSDI 2017",
        needs=on_routers(NO_FLOWLETS),
        unpredicted="paths are drawn at random, as often as connections pause",
    )


FLOWLETS = Family("flowlet-Tms", LEAST_GAP_MS, MOST_GAP_MS, _SAYS.format("T ms"), _made, for_programs=True)
