"""Files that were right once: a seed of the corpus, spoilt a few times as disks, editors and hands spoil files.

Every choice is hypothesis's, so what breaks a reader is shrunk to little, and the same seed finds it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "corpus"

_NUMBERS = b"0 -1 5 1e400 nan 99999999999999999999 4294967296 65536 5bit 100kB 10Gb/s -> [1] {a:b} [subflow-64]"
_YAML = b"*a &a <<: !!bool !!set !x ' \" \\ud800 ? | --- %YAML : - , # {} [] { } [ ] null ~ true auto fabric traffic.0"
_MATRIX = (
    b"Nodes Connections 0->1 id start size trigger send_done_trigger oneshot multishot barrier count Triggers failure"
)
_ODD = b"\n \n\x20\x20 \r\n \t \0 \xff \x80 \xed\xa0\x80 \xef\xbb\xbf \xe5\xae\x9e [/red] =1+1 /dev/zero \xc2\x85"
WORDS = [word for line in (_NUMBERS, _YAML, _MATRIX, _ODD) for word in line.split(b" ")] + [b" "]

_TO_THE_END = 2**31


class Change(NamedTuple):
    """At a place (as a part of the file), bytes go, and others come: given ones, or a few from elsewhere in it."""

    place: float
    removed: int
    inserted: bytes | float


_place = st.floats(0, 1, exclude_max=True)
_inserted = st.just(b"") | st.sampled_from(WORDS) | st.binary(max_size=4) | _place
_changes = st.lists(st.builds(Change, _place, st.sampled_from([0, 1, 2, 4, 8, 40, _TO_THE_END]), _inserted), max_size=6)


def seeds(reader: str) -> list[bytes]:
    """Return the files of the corpus for `reader`: some that are right, and those that broke it once."""
    return [path.read_bytes() for path in sorted((CORPUS / reader).iterdir())]


@st.composite
def spoilt(draw: st.DrawFn, reader: str) -> bytes:
    """Return a file of the corpus with up to six changes; with none, as it is."""
    data = draw(st.sampled_from(seeds(reader)))
    for place, removed, inserted in draw(_changes):
        at = round(place * len(data))
        if isinstance(inserted, float):
            source = round(inserted * len(data))
            inserted = data[source : source + 40]
        data = data[:at] + inserted + data[at + removed :]
    return data
