"""A number beside the limit that it breaks is never said to be that limit."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from experiments.judge.wording import apart

numbers = st.floats(0, 10_000, allow_nan=False)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(numbers, numbers, st.sampled_from(["f", "%", "g"]), st.integers(0, 3))
def test_what_differs_is_said_to_differ_and_in_the_same_order(a: float, b: float, kind: str, digits: int) -> None:
    assume(abs(a - b) > 0.02)
    said = apart(a, b, kind, digits)
    first, second = (float(text.removesuffix("%")) for text in said)
    assert first != second and (first < second) == (a < b)


@pytest.mark.parametrize(
    ("value", "limit", "kind", "digits", "said"),
    [
        (0.9804, 0.98, "%", 0, ("98.04%", "98.00%")),
        (0.995, 0.98, "%", 0, ("100%", "98%")),
        (100.2, 100.0, "f", 0, ("100.2", "100.0")),
        (0.2499, 0.25, "g", 2, ("0.2499", "0.25")),
        (1.0504, 1.05, "f", 2, ("1.0504", "1.0500")),
        (0.98, 0.98, "%", 0, ("98%", "98%")),
    ],
)
def test_as_few_digits_as_will_do(value: float, limit: float, kind: str, digits: int, said: tuple[str, str]) -> None:
    assert apart(value, limit, kind, digits) == said
