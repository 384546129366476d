"""Direct algorithms: every rank sends to every other one, and no rank passes on for others."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from emulator.inputs import quote
from traffic.collectives.collective import (
    Collective,
    Contents,
    Order,
    Pattern,
    Promise,
    Seed,
    Window,
    algorithm,
    own_message,
)
from traffic.collectives.draft import Draft
from traffic.collectives.kinds import ALLGATHER, ALLREDUCE, REDUCESCATTER
from traffic.collectives.layout import ScheduleError, Span, pieces, received_piece
from traffic.schedule import Schedule

ORDERS = ("rotated", "synchronised", "shuffled")


def _gathered(schedule: Schedule, src: int, dst: int) -> tuple[Span, Contents]:
    """The piece of `src` for `dst`, where AllToAll puts it."""
    landing = received_piece(schedule.size_bytes, schedule.ranks, src, dst)
    return landing, frozenset({(src, pieces(schedule.size_bytes, schedule.ranks)[dst].start - landing.start)})


ALLTOALL = Collective(
    "alltoall",
    busbw_factor=lambda n: (n - 1) / n,
    promise=Promise(  # a rank's own piece is there from the start
        held=lambda s, rank: [*own_message(s, rank), _gathered(s, rank, rank)],
        due=lambda s, rank: [_gathered(s, src, rank) for src in range(s.ranks)],
    ),
)


def _to_all(rounds: int, ranks: int) -> Pattern:
    return Pattern(to=None, rounds=rounds, pieces=ranks)


@algorithm(ALLREDUCE, "direct", flows=lambda n: 2 * n * (n - 1), pattern=lambda n: _to_all(2, n))
def allreduce(draft: Draft) -> None:
    """Every rank sums one piece and sends the sum to all: two steps, 2(n-1)/n of the message from every rank."""
    draft.require_pieces(channels=draft.channels, ranks=draft.ranks)
    for channel, part in enumerate(draft.divide(draft.message, draft.channels)):
        cut = draft.divide(part, draft.ranks)
        for src, dst in _pairs(draft.ranks):
            draft.send(0, src, dst, cut[dst], channel=channel, reduce=True)
            draft.send(1, src, dst, cut[src], channel=channel)


@algorithm(ALLGATHER, "direct", flows=lambda n: n * (n - 1), pattern=lambda n: _to_all(1, n))
def allgather(draft: Draft) -> None:
    """Every rank sends its piece to all others, all at once."""
    parts = _parts(draft)
    for src, dst in _pairs(draft.ranks):
        for channel, part in enumerate(parts[src]):
            draft.send(0, src, dst, part, channel=channel)


@algorithm(REDUCESCATTER, "direct", flows=lambda n: n * (n - 1), pattern=lambda n: _to_all(1, n))
def reducescatter(draft: Draft) -> None:
    """Every rank sends each other rank that one's piece, all at once."""
    parts = _parts(draft)
    for src, dst in _pairs(draft.ranks):
        for channel, part in enumerate(parts[dst]):
            draft.send(0, src, dst, part, channel=channel, reduce=True)


@algorithm(
    ALLTOALL,
    "direct",
    flows=lambda n, **_: n * (n - 1),
    pattern=lambda n, window, **_: _to_all(1, n) if window is None else None,
    seeded=lambda order, **_: order == "shuffled",
)
def alltoall(draft: Draft, *, window: Window = None, order: Order = "rotated", seed: Seed = 0) -> None:
    """Every rank sends each other rank a piece of its own.

    `window` limits how many flows of one rank are under way at once: its k-th flow starts when its (k - window)-th has
    arrived. None: all at once. `order` is the order in which a rank serves the others: `rotated`, rank r begins with
    r + 1, so that senders spread over the receivers; `synchronised`, all begin with rank 0, the worst incast;
    `shuffled`, each in an order of its own drawn from `seed`.
    """
    if window is not None and window < 1:
        raise ScheduleError(f"window must be 1 or more flows, not {window}; leave it out for no limit")
    if order not in ORDERS:
        raise ScheduleError(f"unknown order {quote(order)} of an alltoall: use one of {', '.join(ORDERS)}")
    parts = _parts(draft)
    random = Random(seed)
    for src in range(draft.ranks):
        sent: list[int] = []
        for dst in _destinations(src, draft.ranks, order, random):
            moved_by = received_piece(draft.size_bytes, draft.ranks, src, dst).start - parts[dst][0].start
            for channel, part in enumerate(parts[dst]):
                place = len(sent)
                step = 0 if window is None else place // window
                after = sent[place - window] if window and step else None
                offset = part.start + moved_by
                sent.append(draft.send(step, src, dst, part, channel=channel, dst_offset_bytes=offset, after=after))


def _parts(draft: Draft) -> list[list[Span]]:
    """[rank][channel]: every rank's piece is divided among the channels."""
    draft.require_pieces(ranks=draft.ranks, channels=draft.channels)
    return [draft.divide(piece, draft.channels) for piece in draft.divide(draft.message, draft.ranks)]


def _pairs(ranks: int) -> Iterator[tuple[int, int]]:
    """Every (source, destination), in rotated order."""
    return ((src, (src + distance) % ranks) for distance in range(1, ranks) for src in range(ranks))


def _destinations(src: int, ranks: int, order: str, random: Random) -> list[int]:
    rotated = [(src + distance) % ranks for distance in range(1, ranks)]
    if order == "synchronised":
        return sorted(rotated)
    if order == "shuffled":
        random.shuffle(rotated)
    return rotated
