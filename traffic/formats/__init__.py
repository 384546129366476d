"""Files that list flows, as other tools write them: a file a format, and a line in `FORMATS`."""

from __future__ import annotations

from traffic.formats import astra, chakra, goal, hpcc, htsim, inspector, plain, simai
from traffic.formats.format import Format, FormatError

__all__ = ["FORMATS", "Format", "FormatError"]

_ALL = (
    *(htsim.FORMAT, plain.FORMAT, hpcc.FORMAT, goal.FORMAT, astra.FORMAT, simai.FORMAT),
    *(inspector.FORMAT, chakra.FORMAT),
)

FORMATS: dict[str, Format] = {each.key: each for each in _ALL}
"""By the key of an entry of `traffic`."""
