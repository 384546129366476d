"""Shares of paths by the rates of their links: as small whole numbers, and as turns that packets or flows take."""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST_TURNS = 256
"""Of one turn: a NIC's rules name each place of it."""


def weights(rates_bps: Sequence[int]) -> list[int]:
    """Return the smallest whole numbers in the proportion of `rates_bps`, whose sum is MOST_TURNS at most.

    Where that takes larger ones, they are the nearest whose sum is MOST_TURNS (by the largest remainder, A. Hamilton's
    apportionment); a rate that is less than about 1/512 of all may then have none.
    """
    common = math.gcd(*rates_bps)
    exact = [rate_bps // common for rate_bps in rates_bps]
    total = sum(exact)
    if total <= MOST_TURNS:
        return exact
    found = [each * MOST_TURNS // total for each in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: -(exact[place] * MOST_TURNS % total))
    for place in by_remainder[: MOST_TURNS - sum(found)]:
        found[place] += 1
    return found


def turn(spines: Sequence[int], weight: Sequence[int]) -> list[int]:
    """Return an order in which each spine comes as often as its weight, as evenly spread as whole places allow.

    It is smooth weighted round-robin: every spine gains its weight, the richest is next and pays the sum of all. Where
    all weights are 1, it is `spines`.
    """
    total, credit = sum(weight), [0] * len(spines)
    order = []
    for _ in range(total):
        credit = [have + gain for have, gain in zip(credit, weight, strict=True)]
        richest = max(range(len(spines)), key=credit.__getitem__)
        credit[richest] -= total
        order.append(spines[richest])
    return order
