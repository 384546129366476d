"""The strains there are. A new one is a file of its own and a line in STRAINS."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from traffic.schedule import Schedule
from traffic.strain.background import Background
from traffic.strain.jitter import StartJitter
from traffic.strain.order import Order
from traffic.strain.sizes import Sizes
from traffic.strain.stragglers import Stragglers
from traffic.strain.strain import Strain, StrainError, from_first_send

__all__ = ["STRAINS", "Strain", "StrainError", "strained"]

STRAINS: tuple[type[Strain], ...] = (Order, Sizes, StartJitter, Stragglers, Background)
"""In the order in which they are put on a schedule."""


def strained(schedule: Schedule, strains: Sequence[Strain], *, bound_s: float, seed: int) -> Schedule:
    """Return `schedule` with all of `strains` on it, and its times counted from its first send.

    Each kind draws from `seed` what it would draw alone. `bound_s` is the bound of `schedule`. Raises StrainError where
    one cannot be put on it.
    """
    active = [strain for strain in strains if not strain.is_none]
    if not active:
        return schedule
    for kind in STRAINS:
        for strain in active:
            if type(strain) is kind:
                random = np.random.default_rng((seed, zlib.crc32(kind.key.encode())))
                schedule = strain.strained(schedule, bound_s, random)
    return from_first_send(schedule)
