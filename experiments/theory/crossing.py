"""Where along an axis a ratio's median passes a limit: a search that asks for as many seeds as it takes to be sure.

At a value of the axis each seed's ratio is above the limit or not. If the median is at or below it, at most half of all
seeds are above. A bet against that, whose stake is spread evenly over all shares from a half to one, is worth

    2^(n+1) x the integral from 1/2 to 1 of p^above (1-p)^(n-above) dp

after n seeds, and with a probability of at most 1/w it is ever worth w, however often one looks (J. Ville, "Etude
critique de la notion de collectif", 1939; H. Robbins, "Statistical methods related to the law of the iterated
logarithm", 1970). So seeds may be added until it, or the bet on the other side, is worth enough. Nothing is assumed of
how ratios scatter. Errors of all values that may be tried are allowed for together (Bonferroni): the interval that is
returned holds the crossing with `confidence`, provided the median passes the limit once between its ends.

The values of a coarse grid are tried upwards, so that of several crossings it is the first that is found, as far as the
grid tells them apart; then the stretch that holds it is halved, around what seeds cannot tell. Where it is known about
where the crossing is to be expected, the grid has these values too, and is tried from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Observe = Callable[[float, int, int], Sequence[float]]
"""The ratios at a value of the axis, of so many seeds after the first so many; fewer where not all can be trusted."""

_STRETCHES = 4  # of the grid
HALVINGS = 6
_MORE_SEEDS = 4  # at a time


class Side(StrEnum):
    """Where the median is, as far as seeds tell."""

    WITHIN = "within"
    BEHIND = "behind"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Tried:
    """One value of the axis: the ratio of every trusted seed, and which side of the limit their median is on."""

    value: float
    ratios: tuple[float, ...]
    side: Side


@dataclass(frozen=True)
class Crossing:
    """Between which values the median passes the limit, with `confidence`.

    `low` is None where it is above the limit from the start on, `high` where it is nowhere seen to be above.
    """

    low: float | None
    high: float | None
    confidence: float
    tried: tuple[Tried, ...] = field(repr=False)

    @property
    def unclear_at(self) -> list[float]:
        """Return the values at which all seeds that were allowed did not tell."""
        return [each.value for each in self.tried if each.side is Side.UNCLEAR]


def find_crossing(
    observe: Observe,
    low: float,
    high: float,
    limit: float,
    *,
    confidence: float = 0.95,
    most_seeds: int = 40,
    near: Sequence[float] = (),
    halvings: int = HALVINGS,
) -> Crossing:
    """Find the first place between `low` and `high` from which on the median of what is observed is above `limit`.

    It is expected between the values `near`, if there are any; it is found as surely if it is elsewhere.
    """
    grid = sorted({*(low + (high - low) * place / _STRETCHES for place in range(_STRETCHES + 1)), *near})
    worth = (len(grid) + halvings) / (1 - confidence)
    tried: list[Tried] = []

    def side(value: float) -> Side:
        tried.append(_decided(observe, value, limit, worth, most_seeds))
        return tried[-1].side

    def found(within: float | None, behind: float | None) -> Crossing:
        return Crossing(within, behind, confidence, tuple(sorted(tried, key=lambda each: each.value)))

    start = grid.index(min(near)) if near else 0
    for value in grid[start:]:
        if side(value) is Side.BEHIND:
            break
    if tried[0].side is not Side.WITHIN:
        for value in reversed(grid[:start]):
            if side(value) is Side.WITHIN:
                break
    within, doubt, behind = _stretch(tried)
    for _ in range(halvings):
        if within is None or behind is None:
            break
        # Where seeds do not tell, the crossing is near: what can be told is to its left and right.
        below, above = (min(doubt), max(doubt)) if doubt else (behind, behind)
        left = below - within >= behind - above
        side((within + below) / 2 if left else (above + behind) / 2)
        within, doubt, behind = _stretch(tried)
    return found(within, behind)


def _stretch(tried: Sequence[Tried]) -> tuple[float | None, list[float], float | None]:
    """The last value that is within before the first that is behind, what is unclear between them, and the latter."""
    behind = min((each.value for each in tried if each.side is Side.BEHIND), default=None)
    before = [each for each in tried if behind is None or each.value < behind]
    within = max((each.value for each in before if each.side is Side.WITHIN), default=None)
    doubt = [each.value for each in before if each.side is Side.UNCLEAR and (within is None or each.value > within)]
    return within, doubt, behind


def _decided(observe: Observe, value: float, limit: float, worth: float, most_seeds: int) -> Tried:
    asked, ratios = 0, list[float]()
    more = next(n for n in range(1, 1000) if bet(n, n) >= worth)  # fewer cannot tell, even if all agree
    while asked < most_seeds:
        more = min(more, most_seeds - asked)
        ratios += observe(value, asked, more)
        asked, more = asked + more, _MORE_SEEDS
        above = sum(ratio > limit for ratio in ratios)
        if bet(above, len(ratios)) >= worth:
            return Tried(value, tuple(ratios), Side.BEHIND)
        if bet(len(ratios) - above, len(ratios)) >= worth:
            return Tried(value, tuple(ratios), Side.WITHIN)
    return Tried(value, tuple(ratios), Side.UNCLEAR)


def bet(above: int, seeds: int) -> float:
    """Return what the bet of this page is worth when `above` of `seeds` are above the limit.

    The integral is the tail of a beta distribution, which is a sum of binomial coefficients.
    """
    least = sum(math.comb(seeds + 1, k) for k in range(above + 1))
    return least / ((seeds + 1) * math.comb(seeds, above))
