"""What a data plane says of itself before there is a fabric of it: to experiments, to help texts, and to `auto`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TextIO

from emulator.dataplane import Dataplane
from emulator.topology import LeafSpine


class Offer(NamedTuple):
    """What a data plane would be for a fabric, here.

    `name` is the more exact one that results have. What decided for it is one clause for the user: `as_asked` where an
    experiment names it, `fits` where `auto` takes it before those that follow. `passed_over` is why `auto` goes on to
    the next, "" where it need not; `refusal` the sentence for who asks for what cannot be had, "" where it can.
    """

    name: str
    as_asked: str = "as asked"
    fits: str = ""
    passed_over: str = ""
    refusal: str = ""


@dataclass(frozen=True)
class Plane:
    """A data plane by the `name` that experiments have for it; `says` is what it is, in a clause.

    `offer` says what it would be for a topology, with the traffic of all hosts together in bits/s that switching in
    user space is known to carry here (None: not known); it is asked in the sandbox. `make` begins to build it, of a
    topology, an offer's name, why it is this one, and the log for what daemons say. `installed` tells whether this
    machine has its programs. `bursts`: whatever the kernel, it forwards frames that travel as one.
    """

    name: str
    says: str
    offer: Callable[[LeafSpine, int | None], Offer]
    make: Callable[[LeafSpine, str, str, TextIO], Dataplane]
    installed: Callable[[], bool] = lambda: True
    bursts: bool = True
