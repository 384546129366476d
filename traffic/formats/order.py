"""The order in which tasks can be listed that wait for each other, whatever order a file has them in."""

from __future__ import annotations

from collections.abc import Collection, Sequence


class CircleError(ValueError):
    """Tasks wait for each other in a circle; `place` is one of them."""

    def __init__(self, place: int) -> None:
        super().__init__(f"task {place} waits for itself, through others")
        self.place = place


def in_order(waits: Sequence[Collection[int]]) -> list[int]:
    """Return the places of `waits` in their order, but each after all that it waits for. Raises CircleError."""
    unseen, under_way, listed = 0, 1, 2
    state, found = [unseen] * len(waits), list[int]()
    for first in range(len(waits)):
        stack = [first]
        while stack:
            place = stack[-1]
            if state[place] == unseen:
                state[place] = under_way
                missing = [other for other in waits[place] if state[other] != listed]
                if any(state[other] == under_way for other in missing):
                    raise CircleError(place)
                stack += sorted(missing, reverse=True)
            else:
                stack.pop()
                if state[place] == under_way:
                    state[place] = listed
                    found.append(place)
    return found
