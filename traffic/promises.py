"""What each collective promises: what every rank holds before and after, as symbols and as real numbers.

What a byte holds is a set of contributions, each a rank and where in that rank's buffer the byte came from: the sum of
those bytes. A `Collective` says what it starts from and must end with (traffic/collectives); traffic/symbolic.py proves
that a schedule gets there. `initial_buffer`, `expected_buffer` and `check_buffer` are the same promises in int32, for a
replay that carries real data.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from traffic.collectives import COLLECTIVES, ScheduleError
from traffic.collectives.collective import Contents, Holding, Promise
from traffic.collectives.layout import ELEMENT_BYTES, Span
from traffic.schedule import Schedule


def promise_of(schedule: Schedule) -> Promise:
    """Return what the schedule's collective promises; ScheduleError for one that promises nothing of its data."""
    promises = {name: each.promise for name, each in COLLECTIVES.items() if each.promise}
    if schedule.collective not in promises:
        raise ScheduleError(
            f"nothing is promised of the data of a {schedule.collective}: only {', '.join(promises)} can be verified"
        )
    return promises[schedule.collective]


def buffer_bytes(schedule: Schedule, rank: int) -> int:
    """Return the length of a rank's buffer: the message, and what is received behind it."""
    promise = promise_of(schedule)
    spans = [span for span, _ in (*promise.held(schedule, rank), *promise.due(schedule, rank))]
    return max(schedule.size_bytes, *(span.stop for span in spans))


def promised_span(schedule: Schedule, rank: int) -> Span:
    """Return the bytes of a rank's buffer that the collective makes a promise about."""
    due = promise_of(schedule).due(schedule, rank)
    return range(due[0][0].start, due[-1][0].stop)


# The same in numbers.


def initial_buffer(schedule: Schedule, rank: int, seed: int = 0) -> NDArray[np.int32]:
    """Return a rank's buffer before the collective: random int32 where it holds something, zeros elsewhere.

    Raises ScheduleError where `check_verifiable` does.
    """
    return _buffer(schedule, rank, promise_of(schedule).held(schedule, rank), seed)


def expected_buffer(schedule: Schedule, rank: int, seed: int = 0) -> NDArray[np.int32]:
    """The same buffer after it, in `promised_span`: int32 sums that wrap around. Nothing is promised of the rest."""
    return _buffer(schedule, rank, promise_of(schedule).due(schedule, rank), seed)


def check_buffer(schedule: Schedule, rank: int, buffer: NDArray[np.int32], seed: int = 0) -> str | None:
    """Return what differs in `buffer` from `expected_buffer` in `promised_span`, a sentence; None if nothing does."""
    span = promised_span(schedule, rank)
    checked = slice(span.start // ELEMENT_BYTES, span.stop // ELEMENT_BYTES)
    expected = expected_buffer(schedule, rank, seed)[checked]
    wrong = np.flatnonzero(buffer[checked] != expected)
    if not wrong.size:
        return None
    first = int(wrong[0])
    return (
        f"rank {rank}: {wrong.size} of {expected.size} int32 differ from what {schedule.collective} promises, the "
        f"first at byte {span.start + first * ELEMENT_BYTES}: {buffer[checked][first]} instead of {expected[first]}"
    )


def check_verifiable(schedule: Schedule) -> None:
    """Raises ScheduleError for a message not made of whole int32, and for a matrix, which promises nothing."""
    promise_of(schedule)
    if schedule.size_bytes % ELEMENT_BYTES:
        raise ScheduleError(
            f"size {schedule.size_bytes} bytes cannot be verified as int32: use a multiple of {ELEMENT_BYTES}"
        )


def _buffer(schedule: Schedule, rank: int, holding: Holding, seed: int) -> NDArray[np.int32]:
    check_verifiable(schedule)
    buffer = np.zeros(buffer_bytes(schedule, rank) // ELEMENT_BYTES, np.int32)
    for span, contents in holding:
        buffer[span.start // ELEMENT_BYTES : span.stop // ELEMENT_BYTES] = _sum(seed, contents, span)
    return buffer


@lru_cache(maxsize=1)  # every rank of an AllReduce ends with the same sum
def _sum(seed: int, contents: Contents, span: Span) -> NDArray[np.int32]:
    total = np.zeros(len(span) // ELEMENT_BYTES, np.uint32)
    for rank, offset in contents:
        total += _random_words(seed, rank, range(span.start + offset, span.stop + offset))
    return total.view(np.int32)


def _random_words(seed: int, rank: int, span: Span) -> NDArray[np.uint32]:
    """Words that depend on seed, rank and place only, so that any span of a buffer can be made by itself."""
    key = np.random.SeedSequence((seed, rank)).generate_state(1, np.uint32)
    words = np.arange(span.start // ELEMENT_BYTES, span.stop // ELEMENT_BYTES, dtype=np.uint32)
    _mix(words)
    words += key
    _mix(words)
    return words


def _mix(words: NDArray[np.uint32]) -> None:
    """MurmurHash3's 32-bit finaliser (Appleby), in place: every input bit reaches every output bit."""
    words ^= words >> 16
    words *= np.uint32(0x85EBCA6B)
    words ^= words >> 13
    words *= np.uint32(0xC2B2AE35)
    words ^= words >> 16
