"""Recursive halving and doubling: log2(n) exchanges between pairs (Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005).

Halving begins with the rank furthest away (n/2) and half the message, doubling with the neighbour and one piece; so
rank r ends with, or begins from, piece r, and every exchange moves one consecutive block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from traffic.collectives.collective import algorithm
from traffic.collectives.draft import Draft
from traffic.collectives.kinds import ALLGATHER, ALLREDUCE, REDUCESCATTER
from traffic.collectives.layout import ScheduleError, Span


@algorithm(ALLREDUCE, "halving-doubling", flows=lambda n: 2 * n * (n.bit_length() - 1))
def allreduce(draft: Draft) -> None:
    """ReduceScatter by halving, then AllGather by doubling: 2(n-1)/n of the message from every rank."""
    exchanges = _exchanges(draft.ranks, "halving-doubling")
    draft.require_pieces(channels=draft.channels, ranks=draft.ranks)
    for channel, part in enumerate(draft.divide(draft.message, draft.channels)):
        pieces = draft.divide(part, draft.ranks)
        for step in range(exchanges):
            for rank in range(draft.ranks):
                partner, block = _halve(pieces, rank, exchanges - 1 - step)
                draft.send(step, rank, partner, block, channel=channel, reduce=True)
            for rank in range(draft.ranks):
                partner, block = _double(pieces, rank, step)
                draft.send(exchanges + step, rank, partner, block, channel=channel)


@algorithm(ALLGATHER, "recursive-doubling", flows=lambda n: n * (n.bit_length() - 1))
def allgather(draft: Draft) -> None:
    """By doubling; each block is divided among the channels. (n-1)/n of the message from every rank."""
    exchanges = _exchanges(draft.ranks, "recursive-doubling")
    _in_pairs(draft, [partial(_double, bit=step) for step in range(exchanges)], reduce=False)


@algorithm(REDUCESCATTER, "recursive-halving", flows=lambda n: n * (n.bit_length() - 1))
def reducescatter(draft: Draft) -> None:
    """By halving; each block is divided among the channels. (n-1)/n of the message from every rank."""
    exchanges = _exchanges(draft.ranks, "recursive-halving")
    _in_pairs(draft, [partial(_halve, bit=bit) for bit in reversed(range(exchanges))], reduce=True)


def _in_pairs(draft: Draft, exchanges: Sequence[Callable[..., tuple[int, Span]]], *, reduce: bool) -> None:
    """Send in each exchange what it says: of the pieces and a rank, the partner and the block."""
    draft.require_pieces(ranks=draft.ranks, channels=draft.channels)
    pieces = draft.divide(draft.message, draft.ranks)
    for step, exchange in enumerate(exchanges):
        for rank in range(draft.ranks):
            partner, block = exchange(pieces, rank)
            for channel, part in enumerate(draft.divide(block, draft.channels)):
                draft.send(step, rank, partner, part, channel=channel, reduce=reduce)


def _exchanges(ranks: int, algorithm: str) -> int:
    """log2(ranks)."""
    below = 1 << (ranks.bit_length() - 1)
    if ranks != below:
        raise ScheduleError(
            f"{algorithm} needs a power of two of ranks, not {ranks}: use {below} or {2 * below}, or the ring"
        )
    return ranks.bit_length() - 1


def _halve(pieces: list[Span], rank: int, bit: int) -> tuple[int, Span]:
    """The partner across `bit`, and its half of the block that both still sum."""
    partner = rank ^ (1 << bit)
    return partner, _block(pieces, partner, bit)


def _double(pieces: list[Span], rank: int, bit: int) -> tuple[int, Span]:
    """The partner across `bit`, and the block that this rank holds by then."""
    return rank ^ (1 << bit), _block(pieces, rank, bit)


def _block(pieces: list[Span], rank: int, bits: int) -> Span:
    """The pieces of all ranks that agree with `rank` above the lowest `bits` bits."""
    first = rank >> bits << bits
    return range(pieces[first].start, pieces[first + (1 << bits) - 1].stop)
