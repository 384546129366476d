"""Where bytes are shared ideally and time is lost all the same, the page says what for."""

from __future__ import annotations

from typing import Any

import pytest
from test_overview import runs_of

from experiments.results.overview import summary
from experiments.results.why import why


def said(**columns: Any) -> list[str]:
    given = {"congestion_ratio": 1.0, "retransmitted_segments": 0, "bound_s": 1.0, **columns}
    return list(why(summary(runs_of(schemes=("ecmp", "spray"), ratios=(1.2, 1.2), **given))))


@pytest.mark.parametrize(
    ("columns", "cause"),
    [
        ({}, "no counter tells"),
        ({"retransmitted_segments": 3}, "sent again"),
        ({"retransmitted_segments": 3, "timeouts": 1}, "time-outs"),
        ({"timeouts": 1, "faults": "loss leaf1-spine1"}, "a fault"),
        ({"predicted_cct_s": 1.2}, "theory expects it"),
        ({"predicted_cct_s": 1.2, "explained": "no"}, "no counter tells"),
        ({"predicted_cct_s": 1.0}, "no counter tells"),
        ({"step_s": 0.3}, "ranks compute"),
    ],
)
def test_the_likeliest_cause_is_named_once_for_all_schemes(columns: dict[str, Any], cause: str) -> None:
    [sentence] = said(**columns)
    assert sentence.startswith("ecmp, spray: bytes are shared ideally, yet CCT is 1.20 x the bound: ")
    assert cause in sentence


@pytest.mark.parametrize("columns", [{"congestion_ratio": 1.2}, {"cct_over_bound": 1.01}, {"fidelity": "fail"}])
def test_nothing_to_explain(columns: dict[str, Any]) -> None:
    assert said(**columns) == []
