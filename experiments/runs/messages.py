"""What passes between the sandbox and the process that judges: jobs in, raw measurements out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from emulator.dataplane import Endpoints
from emulator.faults import Fault, Reaction
from emulator.files import Folder
from emulator.forwarding import Forwarding
from emulator.meters.capture import Which
from emulator.meters.sampler import RawSample
from emulator.programs import Ended, Output
from experiments.judge.evidence import Built, Measured
from traffic.watch import Far

if TYPE_CHECKING:
    from emulator.fabric import Fabric

Step = TypeVar("Step")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Started:
    """A run begins."""

    run_id: str


@dataclass(frozen=True)
class Progress:
    """A run is so far."""

    run_id: str
    far: Far


@dataclass(frozen=True)
class Glance:
    """The last sample of a run that is under way and watched."""

    run_id: str
    sample: RawSample


@dataclass(frozen=True)
class Failed:
    """The run did not end as it should. With a `status`, that of a program, no further run is tried."""

    run_id: str
    reason: str
    status: int = 0


@dataclass(frozen=True)
class Lost:
    """The fabric is none any more, for the `reason` given: it is to be built anew for the runs that are left."""

    reason: str


@dataclass(frozen=True)
class Joined:
    """A machine of a cluster will perform runs. `about` is what a manifest says of it, `warnings` what to know."""

    machine: str
    about: Mapping[str, Any]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Gone:
    """A machine of a cluster performs no further runs, for the `reason` given; others do what it had left."""

    machine: str
    reason: str


class UnfitError(Exception):
    """A load has ended, and not as it should: `reason` for people, and the exit `status` of what was run."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


Playing = Generator[Far | Output | Ended, None, Any]
"""A load under way: yields how far it is, or what programs wrote and how they ended; returns its
result."""


def played(steps: Generator[Step, None, Result], seen: Callable[[Step], object] = lambda said: None) -> Result:
    """Play a load or a replay to its end, and return its result; `seen` is told whatever it yields."""
    while True:
        try:
            said = next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        seen(said)


class Load(Protocol):
    """What is put on a fabric in one run. Pickled on its way into the sandbox."""

    @property
    def hashed(self) -> Sequence[Endpoints]:
        """Those of its connections, known beforehand, whose paths the leaves choose."""

    @property
    def forwarding(self) -> Forwarding | None:
        """What it asks of the leaves instead of hashing; None for most."""

    def ready(self, fabric: Fabric, seed: int) -> AbstractContextManager[Callable[[], Playing]]:
        """Meanwhile, everything is in place on `fabric`; what it gives plays the load, once.

        Playing raises UnfitError or EmulatorError where the load does not end as it should.
        """


@dataclass(frozen=True)
class Job:
    """One run, ready to be played; `faults` happen while it is, and the network reacts by `reaction`, if at all.

    While it is `watched`, there is a Glance about every second.
    """

    run_id: str
    seed: int
    load: Load
    captures: Which = "none"
    capture_directory: Folder = field(default_factory=lambda: Folder(Path()))
    faults: Sequence[Fault] = ()
    reaction: Reaction | None = None
    watched: bool = False


Event = Built | Started | Progress | Glance | Output | Ended | Failed | Lost | Measured[Any]
