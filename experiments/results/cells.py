"""Text in CSV files: what a spreadsheet would take for a formula has an apostrophe before it, as typed there."""

from __future__ import annotations

from typing import Any

import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def guarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `frame` as it is to be written: every text in it reads as text."""
    return _changed(frame, lambda text: f"'{text}" if text.startswith((*_FORMULA, "'")) else text)


def unguarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what `guarded` was given, from what was read back."""
    return _changed(frame, lambda text: text[1:] if text[:1] == "'" and text[1:2] in (*_FORMULA, "'") else text)


def _changed(frame: pd.DataFrame, change: Any) -> pd.DataFrame:
    texts = frame.select_dtypes(exclude="number")
    return frame.assign(
        **{column: [change(value) if isinstance(value, str) else value for value in texts[column]] for column in texts}
    )
