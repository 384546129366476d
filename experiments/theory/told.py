"""What is in a schedule, whoever wrote it: collectives and groups, bytes, computing and its longest chain."""

from __future__ import annotations

from collections import defaultdict

from experiments.spec.units import format_size_bytes
from traffic.schedule import Schedule


def told(schedule: Schedule) -> dict[str, str]:
    """Return it in words, by what it is about."""
    sent: dict[int, int] = defaultdict(int)
    for flow in schedule.flows:
        sent[flow.src] += flow.size_bytes
    most = max(sent, key=lambda rank: (sent[rank], -rank))
    words = {"ranks": str(schedule.ranks)}
    if schedule.collectives:
        words["collectives"] = "; ".join(_collectives(schedule))
    words["sent"] = (
        f"{_bytes(sum(sent.values()))} in {len(schedule.flows):,} flows, at most {_bytes(sent[most])} by a rank "
        f"(rank {most})"
    )
    if schedule.computes:
        iterations = 1 + max(compute.iteration for compute in schedule.computes)
        computing: dict[int, float] = defaultdict(float)
        for compute in schedule.computes:
            computing[compute.rank] += compute.seconds
        slowest = max(computing, key=lambda rank: (computing[rank], -rank))
        words["iterations"] = str(iterations)
        words["computing"] = f"at most {computing[slowest]:.6g} s by a rank (rank {slowest})"
        words["critical path"] = f"{critical_path_s(schedule):.6g} s of computing, if all were sent in no time"
    words["repaired"] = "; ".join(schedule.repairs) or "nothing"
    return words


def critical_path_s(schedule: Schedule) -> float:
    """Return the longest chain of computations that wait for each other."""
    tasks, ends = schedule.tasks, [0.0] * len(schedule.tasks)
    seconds = [*([0.0] * len(schedule.flows)), *(compute.seconds for compute in schedule.computes)]
    for id in schedule.order:
        ends[id] = max((ends[other] for other in tasks[id].waits_for), default=0.0) + seconds[id]
    return max(ends, default=0.0)


def _collectives(schedule: Schedule) -> list[str]:
    """Return, of each collective and size of group, how many there are and of how many bytes together."""
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    for placed in schedule.collectives:
        found[placed.collective, placed.ranks].append(placed.size_bytes)
    return [f"{len(sizes)} {name} of {_bytes(sum(sizes))} among {ranks}" for (name, ranks), sizes in found.items()]


def _bytes(size_bytes: int) -> str:
    """Return a size to four digits."""
    return format_size_bytes(int(float(f"{size_bytes:.4g}"))) if size_bytes else "0B"
