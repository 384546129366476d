"""Point-to-point patterns: every rank sends to one rank and receives from one."""

from __future__ import annotations

from traffic.collectives.collective import Collective, Holding, Pattern, Promise, Shift, algorithm, own_message
from traffic.collectives.draft import Draft
from traffic.collectives.layout import ScheduleError
from traffic.schedule import Schedule


def _shifted(schedule: Schedule, rank: int) -> Holding:
    """The message of the rank before, behind the own one; the first flow says how far before."""
    shift = schedule.flows[0].dst - schedule.flows[0].src if schedule.flows else 0
    size = schedule.size_bytes
    return [(range(size, 2 * size), frozenset({((rank - shift) % schedule.ranks, -size)}))]


PERMUTATION = Collective("permutation", busbw_factor=lambda n: 1.0, promise=Promise(held=own_message, due=_shifted))


@algorithm(
    PERMUTATION,
    "shift",
    flows=lambda n, shift: n,
    pattern=lambda n, shift: Pattern(to=shift, rounds=1, pieces=1),
)
def permutation(draft: Draft, *, shift: Shift = 1) -> None:
    """Rank i sends its message to rank i + shift, one flow a channel, all at once.

    With ranks packed on hosts and `shift` = hosts per leaf, every host sends to the one in the same place of the next
    leaf: one step of a ring that crosses leaves at every hop.
    """
    if shift % draft.ranks == 0:
        raise ScheduleError(f"a shift of {shift} among {draft.ranks} ranks sends every rank to itself: use 1 or more")
    draft.require_pieces(channels=draft.channels)
    parts = draft.divide(draft.message, draft.channels)
    for src in range(draft.ranks):
        for channel, part in enumerate(parts):
            offset = draft.size_bytes + part.start
            draft.send(0, src, (src + shift) % draft.ranks, part, channel=channel, dst_offset_bytes=offset)
