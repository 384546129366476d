"""Sorting and counting of many rows, as fast as numpy can."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def stable_order(keys: npt.NDArray[np.uint64]) -> Ints:
    """Return what np.argsort(keys, kind="stable") does, sooner.

    numpy sorts words several times as fast as it sorts places of words. So each place goes into the lower bits of its
    key; keys that differ only in the bits that had to make way are sorted once more.
    """
    place_bits = len(keys).bit_length()
    hidden_bits = max(int(keys.max(initial=0)).bit_length() + place_bits - 64, 0)
    words = keys >> np.uint64(hidden_bits) << np.uint64(place_bits) | np.arange(len(keys), dtype=np.uint64)
    words.sort()
    order = (words & np.uint64((1 << place_bits) - 1)).astype(np.int64)
    if hidden_bits:
        alike = np.diff(words >> np.uint64(place_bits)) == 0
        ordered = keys[order]
        confused = np.flatnonzero(alike & (ordered[1:] != ordered[:-1]))
        if len(confused):
            group = np.concatenate(([0], np.cumsum(~alike)))
            again = np.flatnonzero(np.isin(group, group[confused]))
            places = np.sort(order[again])
            order[again] = places[np.argsort(keys[places], kind="stable")]
    return order


def beginnings(*keys: npt.NDArray[Any]) -> Ints:
    """Return the places where a stretch begins in which none of `keys` changes."""
    changes = np.zeros(len(keys[0]), bool)
    changes[:1] = True
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changes)
