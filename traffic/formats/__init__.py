"""Files that list flows, as other tools write them: a file a format, and a line in `FORMATS`."""

from __future__ import annotations

from traffic.formats import htsim
from traffic.formats.format import Format, FormatError

__all__ = ["FORMATS", "Format", "FormatError"]

FORMATS: dict[str, Format] = {each.key: each for each in (htsim.FORMAT,)}
"""By the key of an entry of `traffic`."""
