"""What a scheme may ask of the leaves: other ways than a hash to find a spine for packets without a path tag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Spraying:
    """Every packet of a connection takes the next live spine in turn, beginning with the one that the hash picks."""

    hashes: ClassVar[bool] = False


@dataclass(frozen=True)
class Flowlets:
    """A connection that has paused for `gap_s` seconds takes a random live spine, and keeps it up to its next pause."""

    gap_s: float
    hashes: ClassVar[bool] = False


@dataclass(frozen=True)
class Scheduling:
    """Connections are hashed; every `period_s` seconds a controller asks leaves what each has sent, and places the
    large ones: see `controllers.elephants`.
    """

    period_s: float
    hashes: ClassVar[bool] = True


Forwarding = Spraying | Flowlets | Scheduling
"""Each `hashes` if the paths that connections begin with are those of the hash, and so ought to be known beforehand."""

_KINDS: Mapping[str, type[Forwarding]] = {kind.__name__: kind for kind in (Spraying, Flowlets, Scheduling)}

NO_FLOWLETS = (
    "Open vSwitch has no flowlets, as nothing in OpenFlow tells a packet how long ago the last one of its connection "
    "came; write fabric.dataplane: linux"
)

LEAST_POLLED_S = 0.2
"""The least time between two looks at Open vSwitch's counters, which are up to a tenth of a second old."""

POLLED_TOO_OFTEN = (
    "Open vSwitch's counters can be a tenth of a second old; write hedera-200ms or more, or fabric.dataplane: linux"
)


def as_json(forwarding: Forwarding | None) -> dict[str, Any] | None:
    """Return it as the controller is told it, for `restored`."""
    return None if forwarding is None else {"kind": type(forwarding).__name__, **asdict(forwarding)}


def restored(content: Mapping[str, Any] | None) -> Forwarding | None:
    """Return what `as_json` gave."""
    if content is None:
        return None
    settings = dict(content)
    return _KINDS[settings.pop("kind")](**settings)
