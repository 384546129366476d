"""The collectives that several files have algorithms for: what each promises, and how its speed is counted.

Buffers are laid out as traffic/collectives/layout.py says.
"""

from __future__ import annotations

from traffic.collectives.collective import Collective, Promise, own_message, summed_message
from traffic.collectives.layout import pieces

ALLREDUCE = Collective(
    "allreduce",
    busbw_factor=lambda n: 2 * (n - 1) / n,
    promise=Promise(held=own_message, due=lambda s, rank: summed_message(s, range(s.ranks))),
)
ALLGATHER = Collective(
    "allgather",
    busbw_factor=lambda n: (n - 1) / n,
    promise=Promise(
        held=lambda s, rank: [(pieces(s.size_bytes, s.ranks)[rank], frozenset({(rank, 0)}))],
        due=lambda s, rank: [
            (piece, frozenset({(owner, 0)})) for owner, piece in enumerate(pieces(s.size_bytes, s.ranks))
        ],
    ),
)
REDUCESCATTER = Collective(
    "reducescatter",
    busbw_factor=lambda n: (n - 1) / n,
    promise=Promise(
        held=own_message,
        due=lambda s, rank: [
            (pieces(s.size_bytes, s.ranks)[rank], frozenset((contributor, 0) for contributor in range(s.ranks)))
        ],
    ),
)
BROADCAST = Collective(
    "broadcast",
    busbw_factor=lambda n: 1.0,
    promise=Promise(
        held=lambda s, rank: own_message(s, 0) if rank == 0 else [],
        due=lambda s, rank: own_message(s, 0),
    ),
)
