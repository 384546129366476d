"""Any schedule of any collective, and schedules with a fault planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from traffic.collectives import COLLECTIVES, algorithm_of, build_schedule
from traffic.schedule import Flow, Schedule

ALL = [(collective, algorithm) for collective, kind in COLLECTIVES.items() for algorithm in kind.algorithms]
POWERS_ONLY = ("halving-doubling", "recursive-halving", "recursive-doubling")
BANDWIDTH_OPTIMAL = [
    (collective, algorithm)
    for collective, algorithm in ALL
    if collective not in ("broadcast", "permutation") and algorithm != "double-binary-tree"
]

quick = settings(max_examples=120, deadline=None, derandomize=True)


@st.composite
def schedules(draw: st.DrawFn, even: bool = False) -> Schedule:
    """Any collective by any algorithm, any count it allows, any size that can be cut (even: in equal pieces)."""
    collective, algorithm = draw(st.sampled_from(ALL))
    ranks = draw(st.sampled_from((2, 4, 8, 16)) if algorithm in POWERS_ONLY else st.integers(2, 13))
    channels = draw(st.integers(1, 4))
    values: dict[str, st.SearchStrategy[Any]] = {
        "chunks": st.integers(1, 5),
        "window": st.none() | st.integers(1, 8),
        "order": st.sampled_from(("rotated", "synchronised", "shuffled")),
        "seed": st.integers(0, 9),
        "shift": st.integers(-20, 20).filter(lambda shift: shift % ranks),
    }
    options: dict[str, Any] = {name: draw(values[name]) for name in algorithm_of(collective, algorithm).options}
    parts = 2 * ranks * channels * options.get("chunks", 1)
    size_bytes = 4 * parts * draw(st.integers(1, 3)) if even else draw(st.integers(4 * parts, 20 * parts))
    return build_schedule(collective, algorithm, ranks=ranks, size_bytes=size_bytes, channels=channels, **options)


def small(collective: str, algorithm: str, **options: Any) -> Schedule:
    """Four ranks, two channels, uneven pieces."""
    if "chunks" in algorithm_of(collective, algorithm).options:
        options.setdefault("chunks", 2)
    return build_schedule(collective, algorithm, ranks=4, size_bytes=4 * 75, channels=2, **options)


def with_flows(schedule: Schedule, flows: list[Flow]) -> Schedule:
    return replace(schedule, flows=flows)


def without_flow(schedule: Schedule, gone: int) -> Schedule:
    """The schedule with one flow dropped and nobody waiting for it."""
    kept = [flow for flow in schedule.flows if flow.id != gone]
    new_id = {flow.id: place for place, flow in enumerate(kept)}
    return with_flows(
        schedule,
        [
            replace(flow, id=new_id[flow.id], waits_for=tuple(new_id[i] for i in flow.waits_for if i != gone))
            for flow in kept
        ],
    )


def ancestors(schedule: Schedule, flow: Flow, ignoring: int | None = None) -> set[int]:
    """All flows that must have arrived before `flow` starts, but for its own wait for `ignoring`."""
    found: set[int] = set()
    pending = [earlier for earlier in flow.waits_for if earlier != ignoring]
    while pending:
        earlier = pending.pop()
        if earlier not in found:
            found.add(earlier)
            pending += schedule.flows[earlier].waits_for
    return found
