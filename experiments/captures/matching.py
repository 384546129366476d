"""The same packet in two captures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.captures.ordering import Ints, beginnings, stable_order

_WORDS = (  # fields and their bits
    (("src_ip", 32), ("dst_ip", 32)),
    (("src_port", 16), ("dst_port", 16), ("ip_id", 16), ("tcp_flags", 8)),
    (("seq", 32), ("ack", 32)),
    (("ts_val", 32), ("ts_ecr", 32)),
    (("payload_bytes", 32),),
)
IDENTITY = [name for word in _WORDS for name, _ in word]
"""What a packet keeps from hop to hop; not its DSCP, which the sending host's NIC may write."""


@dataclass(frozen=True)
class Match:
    """TCP packets of one capture found in another.

    `partner` has for each row of the first frame the row in the second, or -1. Rows of the second that are nobody's
    partner are `duplicates` of packets of the first, or `strays` that the first does not have at all.
    """

    partner: Ints
    duplicates: npt.NDArray[np.intp]
    strays: npt.NDArray[np.intp]


def match_packets(before: pd.DataFrame, after: pd.DataFrame) -> Match:
    """Find the packets of `before` in `after`.

    The k-th of several packets alike in all of `IDENTITY` is the k-th in the other capture. Hosts that number their
    packets (Linux: the IP id of a connection goes up by one a packet) never send two alike, even when retransmitting.
    """
    rows = [np.flatnonzero(frame["is_tcp"].to_numpy()) for frame in (before, after)]
    packets = [_Identities.of(frame, row) for frame, row in zip((before, after), rows, strict=True)]
    sent, found, duplicates, strays = _pair(packets[0].mixed(), packets[1].mixed())
    same = np.ones(len(sent), bool)  # different packets may, just, be mixed to the same
    for one, other in zip(packets[0].words, packets[1].words, strict=True):
        same &= one[sent] == other[found]
    if not same.all():
        duplicates = np.sort(np.concatenate((duplicates, found[~same])))
        sent, found = sent[same], found[same]
    partner = np.full(len(before), -1, np.int64)
    partner[rows[0][sent]] = rows[1][found]
    return Match(partner, rows[1][duplicates], rows[1][strays])


class _Identities(NamedTuple):
    """Packets by all that makes them alike or not, in five words each."""

    words: list[npt.NDArray[np.uint64]]

    @classmethod
    def of(cls, frame: pd.DataFrame, row: Ints) -> _Identities:
        def word(*fields: tuple[str, int]) -> npt.NDArray[np.uint64]:
            joined = np.zeros(len(row), np.uint64)
            for name, bits in fields:
                joined <<= np.uint64(bits)
                joined |= frame[name].to_numpy()[row].astype(np.uint64)
            return joined

        return cls([word(*fields) for fields in _WORDS])

    def mixed(self) -> npt.NDArray[np.uint64]:
        """A number of each packet, by the mixing of Steele et al., "Fast Splittable Pseudorandom Number Generators"."""
        number = np.zeros(len(self.words[0]), np.uint64)
        for word in self.words:
            number ^= word
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                number ^= number >> np.uint64(shift)
                number *= np.uint64(factor)
            number ^= number >> np.uint64(31)
        return number


def _pair(before: npt.NDArray[np.uint64], after: npt.NDArray[np.uint64]) -> tuple[Ints, Ints, Ints, Ints]:
    """Places of equal numbers: in `before`, in `after`; and of what is too much, or not at all in `before`, in `after`.

    Equal numbers are paired in their order.
    """
    both = np.concatenate((before, after))
    order = stable_order(both)  # of equal numbers those before come before those after
    first = beginnings(both[order])
    counts = np.diff(np.append(first, len(order)))
    is_before = order < len(before)
    so_far = np.concatenate(([0], np.cumsum(is_before)))
    sources = np.repeat(so_far[first + counts] - so_far[first], counts)  # equal numbers in `before`
    later = np.flatnonzero(~is_before)
    earlier = later - sources[later]
    paired = is_before[earlier]  # none too much: the k-th stands as many places behind as there are before it
    place = order[later] - len(before)
    extra, known = place[~paired], sources[later[~paired]] > 0
    return order[earlier[paired]], place[paired], np.sort(extra[known]), np.sort(extra[~known])
