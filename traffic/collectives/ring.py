"""Ring algorithms: every rank sends to the next rank only (NCCL's ring; Patarasuk and Yuan, JPDC 69(2), 2009).

With several channels each runs a ring of its own over its own part of the message, all in the same direction. A ring
whose pieces are cut in `chunks` forwards each chunk as soon as it is there, instead of the piece.
"""

from __future__ import annotations

from functools import partial

from traffic.collectives.collective import Chunks, Pattern, algorithm
from traffic.collectives.draft import PIPELINE_CHUNKS, Draft
from traffic.collectives.kinds import ALLGATHER, ALLREDUCE, BROADCAST, REDUCESCATTER
from traffic.collectives.layout import Span


def _to_the_next(rounds: int, ranks: int, chunks: int) -> Pattern | None:
    return Pattern(to=1, rounds=rounds, pieces=ranks) if chunks == 1 else None


_once_around = partial(
    algorithm,
    name="ring",
    flows=lambda n, chunks: n * (n - 1) * chunks,
    pattern=lambda n, chunks: _to_the_next(n - 1, n, chunks),
)
"""Declares the function below it as the algorithm of a collective whose pieces go around the ring once."""


@algorithm(
    ALLREDUCE,
    "ring",
    flows=lambda n, chunks: 2 * n * (n - 1) * chunks,
    pattern=lambda n, chunks: _to_the_next(2 * (n - 1), n, chunks),
)
def allreduce(draft: Draft, *, chunks: Chunks = 1) -> None:
    """ReduceScatter, then AllGather: 2(n-1)/n of the message from every rank."""
    draft.require_pieces(channels=draft.channels, ranks=draft.ranks, chunks=chunks)
    for channel, part in enumerate(draft.divide(draft.message, draft.channels)):
        pieces = [draft.divide(piece, chunks) for piece in draft.divide(part, draft.ranks)]
        _reduce_scatter(draft, pieces, channel)
        _all_gather(draft, pieces, channel, first_step=(draft.ranks - 1) * chunks)


@_once_around(ALLGATHER)
def allgather(draft: Draft, *, chunks: Chunks = 1) -> None:
    """(n-1)/n of the message from every rank."""
    for channel, pieces in enumerate(_pieces_by_channel(draft, chunks)):
        _all_gather(draft, pieces, channel, first_step=0)


@_once_around(REDUCESCATTER)
def reducescatter(draft: Draft, *, chunks: Chunks = 1) -> None:
    """(n-1)/n of the message from every rank."""
    for channel, pieces in enumerate(_pieces_by_channel(draft, chunks)):
        _reduce_scatter(draft, pieces, channel)


@algorithm(BROADCAST, "ring", flows=lambda n, chunks: (n - 1) * chunks)
def broadcast(draft: Draft, *, chunks: Chunks = PIPELINE_CHUNKS) -> None:
    """From rank 0 through all others, chunk behind chunk: the whole message from every rank but the last."""
    draft.require_pieces(channels=draft.channels, chunks=chunks)
    for channel, part in enumerate(draft.divide(draft.message, draft.channels)):
        for place, chunk in enumerate(draft.divide(part, chunks)):
            for rank in range(draft.ranks - 1):
                draft.send(rank + place, rank, rank + 1, chunk, channel=channel)


def _pieces_by_channel(draft: Draft, chunks: int) -> list[list[list[Span]]]:
    """[channel][rank][chunk]: every rank's piece is divided among the channels."""
    draft.require_pieces(ranks=draft.ranks, channels=draft.channels, chunks=chunks)
    parts = [draft.divide(piece, draft.channels) for piece in draft.divide(draft.message, draft.ranks)]
    return [[draft.divide(part[channel], chunks) for part in parts] for channel in range(draft.channels)]


def _reduce_scatter(draft: Draft, pieces: list[list[Span]], channel: int) -> None:
    """Piece p leaves rank p + 1 and gathers one contribution a hop until it reaches rank p."""
    for hop in range(draft.ranks - 1):
        for rank in range(draft.ranks):
            chunks = pieces[(rank - hop - 1) % draft.ranks]
            for place, chunk in enumerate(chunks):
                step = hop * len(chunks) + place
                draft.send(step, rank, (rank + 1) % draft.ranks, chunk, channel=channel, reduce=True)


def _all_gather(draft: Draft, pieces: list[list[Span]], channel: int, first_step: int) -> None:
    """Piece p leaves rank p and is copied hop by hop to all others."""
    for hop in range(draft.ranks - 1):
        for rank in range(draft.ranks):
            chunks = pieces[(rank - hop) % draft.ranks]
            for place, chunk in enumerate(chunks):
                step = first_step + hop * len(chunks) + place
                draft.send(step, rank, (rank + 1) % draft.ranks, chunk, channel=channel)
