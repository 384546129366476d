"""Find the records of a capture file many at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Step = Callable[[Positions], tuple[npt.NDArray[np.bool_], Positions]]
"""From byte positions to: whether a sound packet record starts there, and the position just after it."""

STRIPE_BYTES = 1 << 16
STRIPES = 256
SEARCH_BYTES = 1024  # how far into a stripe to look for its first record; header captures need less
CONFIRM_RECORDS = 3


def leap(start: int, end: int, step: Step) -> tuple[Positions, int]:
    """Positions of consecutive records from `start`, which must be one, and the position after the last of them.

    A record's place is known only from the record before it. So this guesses: it cuts the bytes before `end` into
    stripes, takes in each the first place from which sound records follow one another, and walks all stripes at once.
    It keeps the stripes up to the first whose walk does not end exactly where the next one's began: each record kept
    was reached from `start` record by record. It may keep none; what it leaves is for the caller's plain walk.
    """
    limits = np.arange(start + STRIPE_BYTES, end - SEARCH_BYTES, STRIPE_BYTES)[:STRIPES]
    if len(limits) < 2:
        return np.empty(0, np.int64), start
    entries = np.concatenate(([start], _first_records(limits[:-1], step)))

    at = entries.copy()
    rounds = []
    while True:
        sound, after = step(at)
        going = sound & (at < limits)
        if not going.any():
            break
        rounds.append(np.where(going, at, -1))
        at = np.where(going, after, at)
    if not rounds:
        return np.empty(0, np.int64), start
    apart = np.flatnonzero(at[:-1] != entries[1:])
    kept = int(apart[0]) + 1 if len(apart) else len(entries)
    walked = np.stack(rounds, axis=1)[:kept].ravel()
    return walked[walked >= 0], int(at[kept - 1])


def _first_records(stripes: Positions, step: Step) -> Positions:
    """The first place in each stripe where `CONFIRM_RECORDS` sound records start a chain, or -1."""
    candidates = (stripes[:, None] + np.arange(SEARCH_BYTES)).ravel()
    places = np.arange(len(candidates))
    at = candidates
    for _ in range(CONFIRM_RECORDS):
        sound, after = step(at)
        places, at = places[sound], after[sound]
    found = np.full(len(stripes), -1, np.int64)
    stripe = places // SEARCH_BYTES
    found[stripe[::-1]] = candidates[places[::-1]]  # written last to first, so the first stays
    return found
