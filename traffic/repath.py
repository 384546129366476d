"""Hosts that move a connection to another path once it brings nothing any more, as senders of Ethereal do.

Both ends are given the new path's tag, as acknowledgements die on the old one too. What TCP had under way is sent again
when TCP finds out, and not before: moving a connection sends nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import count

from traffic.connections import Connections, tag
from traffic.plan import UNTAGGED
from traffic.schemes.scheme import Scheme
from traffic.tcpinfo import data_segments_sent

_LOOKS = 4  # within the time after which a connection is moved


@dataclass(frozen=True, kw_only=True)
class Repath:
    """A connection that brings nothing for `after_s` is moved, and its path masked for its leaves for `mask_s`."""

    after_s: float
    mask_s: float

    @property
    def look_s(self) -> float:
        """Return how often connections are looked at."""
        return self.after_s / _LOOKS


@dataclass(slots=True)
class _Seen:
    """What a connection still had to bring when it last brought something, and when that was; what it had sent by then.

    `sent` is None but for a connection that was moved and has sent nothing since.
    """

    awaited: Hashable
    since_s: float
    sent: int | None = None


class Mover:
    """Moves connections of one replay. Those that the scheme sends over many paths stay as they are."""

    def __init__(self, repath: Repath, connections: Connections) -> None:
        self._repath, self._connections = repath, connections
        self._fabric, planned = connections.fabric, connections.plan.connections
        self._leaves = [(self._fabric.leaf_of(each.src_host), self._fabric.leaf_of(each.dst_host)) for each in planned]
        self._tags = [each.path_tag for each in planned]
        single = _has_single_paths(connections.plan.scheme)
        self._movable = [number for number, (near, far) in enumerate(self._leaves) if single and near != far]
        self._seen: dict[int, _Seen] = {}
        self._masked_until_s: dict[tuple[tuple[int, int], int], float] = {}
        self._turns: dict[tuple[int, int], count[int]] = defaultdict(count)
        self._next_look_s = 0.0
        self.moves = [0] * len(planned)
        """How often each connection was moved."""

    def look(self, now_s: float, awaited: Callable[[int], Hashable | None]) -> None:
        """Move what has brought nothing for too long.

        `awaited` says what a connection has still to bring of what was sent: another answer whenever it brought
        something, and None where nothing is to come.
        """
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + self._repath.look_s
        for number in self._movable:
            there = awaited(number)
            seen = self._seen.get(number)
            if there is None:
                self._seen.pop(number, None)
            elif seen is None or seen.awaited != there:
                self._seen[number] = _Seen(there, now_s)
            elif seen.sent is not None:  # a path on which nothing was sent is not to blame
                if data_segments_sent(self._connections.senders[number]) != seen.sent:
                    self._seen[number] = _Seen(there, now_s)
            elif now_s - seen.since_s >= self._repath.after_s:
                self._move(number, now_s)
                self._seen[number] = _Seen(there, now_s, data_segments_sent(self._connections.senders[number]))

    def _move(self, number: int, now_s: float) -> None:
        leaves, old = self._leaves[number], self._tags[number]
        if old != UNTAGGED:
            self._masked_until_s[leaves, old] = now_s + self._repath.mask_s
        tags = [spine + 1 for spine in self._fabric.live_spines(*leaves) if spine + 1 != old]
        fit = [each for each in tags if self._masked_until_s.get((leaves, each), 0.0) <= now_s] or tags
        if not fit:
            return
        self._tags[number] = new = fit[next(self._turns[leaves]) % len(fit)]
        for end in (self._connections.senders[number], self._connections.receivers[number]):
            tag(end, new)
        self.moves[number] += 1


def _has_single_paths(scheme: Scheme) -> bool:
    return not (scheme.spreads or scheme.kernel_subflows or scheme.switch or scheme.nic)
