"""No cell that a name made is taken for a formula, and every name comes back as it was."""

from __future__ import annotations

import csv
from io import StringIO

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.results.cells import guarded, unguarded

name = st.text("=+-@'a1 \t", min_size=1, max_size=5)


@given(st.lists(st.tuples(name, st.floats(-9, 9)), min_size=1))
def test_names_come_back_and_numbers_stay_numbers(rows: list[tuple[str, float]]) -> None:
    frame = pd.DataFrame(rows, columns=["name", "cct_s"])
    written = guarded(frame).to_csv(index=False)
    assert not [row for row in csv.reader(StringIO(written)) if row[0][0] in "=+-@\t\r"]
    read = unguarded(pd.read_csv(StringIO(written), dtype={"name": str}, keep_default_na=False))
    assert list(read.name) == list(frame.name)
    assert list(read.cct_s) == pytest.approx(list(frame.cct_s))
