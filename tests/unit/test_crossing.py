"""The search for a crossing: where it was planted, as sure as it says, however ratios scatter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.theory.crossing import Crossing, Observe, Side, bet, find_crossing

LIMIT = 1.05


def planted(place: float, noise: float, seed: int) -> Observe:
    """A scheme whose median passes LIMIT at `place`, with a long tail of seeds that are slower."""

    def observe(value: float, first: int, count: int) -> list[float]:
        draws = [np.random.default_rng((seed, int(value * 1e9), each)) for each in range(first, first + count)]
        scatter = [draw.exponential(1) - np.log(2) for draw in draws]  # a median of 0
        return [float(LIMIT * np.exp(0.2 * (value - place) + noise * each)) for each in scatter]

    return observe


def holds(found: Crossing, place: float) -> bool:
    return (found.low is None or found.low <= place) and (found.high is None or place <= found.high)


@pytest.mark.parametrize("noise", [0.003, 0.03, 0.1])
def test_a_planted_crossing_is_within_the_stated_interval_in_19_of_20_seeds(noise: float) -> None:
    right = 0
    for seed in range(20):
        place = float(np.random.default_rng(seed).uniform(0.05, 0.95))
        right += holds(find_crossing(planted(place, noise, seed), 0, 1, LIMIT), place)
    assert right >= 19


def test_without_scatter_it_is_found_to_a_256th_of_the_axis_with_few_seeds() -> None:
    found = find_crossing(planted(0.3, 0.0, 1), 0, 1, LIMIT)
    assert found.low is not None and found.high is not None
    assert holds(found, 0.3) and found.high - found.low == 1 / 256
    assert max(len(each.ratios) for each in found.tried) <= 11 and not found.unclear_at


def test_more_scatter_takes_more_seeds_and_widens_the_interval_instead_of_missing() -> None:
    near, far = (find_crossing(planted(0.6, noise, 3), 0, 1, LIMIT, most_seeds=20) for noise in (0.003, 0.1))
    assert near.low is not None and near.high is not None
    width = (1.0 if far.high is None else far.high) - (far.low or 0.0)
    assert width > near.high - near.low and far.unclear_at
    assert max(len(each.ratios) for each in far.tried) == 20


def test_what_never_crosses_and_what_always_has_are_said() -> None:
    never = find_crossing(lambda *_: [1.0] * 11, 0, 1, LIMIT)
    assert (never.low, never.high) == (1.0, None)
    always = find_crossing(lambda *_: [1.2] * 11, 0, 1, LIMIT)
    assert (always.low, always.high) == (None, 0.0) and len(always.tried) == 1
    at_limit = find_crossing(lambda *_: [LIMIT] * 11, 0, 1, LIMIT)
    assert at_limit.high is None, "at the limit is within it"


def test_of_several_crossings_it_is_the_first_that_the_grid_tells_apart() -> None:
    def there_and_back(value: float, first: int, count: int) -> list[float]:
        return [1.2 if 0.3 < value < 0.6 or value > 0.9 else 1.0] * count

    assert holds(find_crossing(there_and_back, 0, 1, LIMIT), 0.3)


def test_seeds_that_cannot_be_trusted_are_replaced_until_there_are_no_more() -> None:
    def every_third(value: float, first: int, count: int) -> Sequence[float]:
        return [1.0 for each in range(first, first + count) if each % 3 == 0]

    found = find_crossing(every_third, 0, 1, LIMIT)
    assert {each.side for each in found.tried} == {Side.WITHIN} and len(found.tried[0].ratios) >= 11
    none = find_crossing(lambda *_: [], 0, 1, LIMIT)
    assert (none.low, none.high) == (None, None) and len(none.unclear_at) == 5


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 40), st.integers(0, 40))
def test_a_bet_is_the_integral_it_stands_for(above: int, not_above: int) -> None:
    seeds = above + not_above
    shares = np.linspace(0.5, 1, 20_001)
    stakes = 2.0 ** (seeds + 1) * shares**above * (1 - shares) ** not_above
    assert bet(above, seeds) == pytest.approx(np.trapezoid(stakes, shares), rel=1e-4)


def test_a_fair_coin_seldom_ever_wins_the_bet() -> None:
    """At most one in 20 is ever worth 20, though it is looked at after every seed."""
    won = 0
    for number in range(400):
        above = np.cumsum(np.random.default_rng(number).integers(0, 2, 60))
        won += any(bet(int(each), seeds) >= 20 for seeds, each in enumerate(above, start=1))
    assert won <= 0.05 * 400 + 3 * np.sqrt(0.05 * 0.95 * 400)


@pytest.mark.parametrize("near", [(0.25, 0.35), (0.05, 0.1), (0.7, 0.8), (0.3,)])
def test_where_it_is_expected_saves_values_and_never_misleads(near: Sequence[float]) -> None:
    for seed in range(10):
        assert holds(find_crossing(planted(0.3, 0.01, seed), 0, 1, LIMIT, near=near), 0.3)
    anywhere, there = (find_crossing(planted(0.3, 0.0, 1), 0, 1, LIMIT, near=each) for each in ((), (0.25, 0.35)))
    assert anywhere.low is not None and anywhere.high is not None and there.low is not None and there.high is not None
    assert len(there.tried) < len(anywhere.tried) or there.high - there.low < anywhere.high - anywhere.low
    assert min(each.value for each in there.tried) == 0.25


def test_no_halvings_leave_the_stretch_of_the_grid() -> None:
    found = find_crossing(planted(0.3, 0.0, 1), 0, 1, LIMIT, halvings=0, near=(0.28, 0.35))
    assert (found.low, found.high, len(found.tried)) == (0.28, 0.35, 2)
