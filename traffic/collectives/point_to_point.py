"""Point-to-point patterns: every rank sends to one rank and receives from one."""

from __future__ import annotations

from traffic.collectives.draft import Draft
from traffic.collectives.layout import ScheduleError


def permutation(draft: Draft, *, shift: int = 1) -> None:
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
