"""What is too much to list, open or run on one machine: found by arithmetic, before it is begun.

Each function returns a sentence that names the limit and what to change, or None where there is room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from emulator.doctor.resources import FILES_BESIDE_SUBFLOWS, most_open_files
from emulator.topology import LeafSpine
from experiments.spec.scale import Scale
from experiments.spec.units import format_size_bytes
from traffic.jobs.graph import MAX_TASKS
from traffic.plan import FIRST_SOURCE_PORT
from traffic.schedule import Schedule
from traffic.schemes import Scheme

MAX_FLOWS = MAX_TASKS
"""Of one collective, as of one job: to list as many, and to find their bound, takes some seconds and half a gigabyte.
"""

MAX_PIECES = 1_000_000
"""Of one run: a quarter of a gigabyte."""

MAX_ALL_PIECES = 4_000_000
"""Of all runs of an experiment, which are planned before the first begins: about a gigabyte."""

MAX_SWEPT_FLOWS = 1_000_000
"""Of all points of a sweep, each of which is checked: some seconds."""

MAX_RUNS = 100_000
MAX_SCALED_S = 120.0
"""Of a run's bound where the tool itself chose how slow links are."""

MAX_CONNECTIONS_PER_HOST = 65_536 - FIRST_SOURCE_PORT  # each has a source port of its own


def too_many_flows(flows: int) -> str | None:
    if flows <= MAX_FLOWS:
        return None
    return (
        f"{flows:,} flows are more than can be listed (at most {MAX_FLOWS:,}): use fewer hosts, channels or chunks, "
        "or leave out window and chunks, without which predict counts what it need not list"
    )


def too_many_pieces(schedule: Schedule, fabric: LeafSpine, hosts: Sequence[int], scheme: Scheme) -> str | None:
    pieces = scheme.most_pieces(schedule, fabric, hosts)
    if pieces <= MAX_PIECES:
        return None
    return (
        f"{scheme} would cut {len(schedule.flows):,} flows in {pieces:,} pieces, of which at most {MAX_PIECES:,} can "
        "be listed: use fewer hosts, channels, chunks or spines, or another scheme"
    )


def too_many_in_all(pieces: int, runs: int) -> str | None:
    if pieces <= MAX_ALL_PIECES:
        return None
    return (
        f"{runs:,} runs of {pieces:,} flows and pieces of flows in all are more than can be planned together (at most "
        f"{MAX_ALL_PIECES:,}): use fewer hosts, channels, seeds or values, or several experiments"
    )


def too_many_swept(flows: int, points: int) -> str | None:
    """Of `points` of a sweep, whose traffic has `flows` flows and computations in all."""
    if flows <= MAX_SWEPT_FLOWS:
        return None
    return (
        f"{points:,} points of {flows:,} flows in all are more than can be checked (at most {MAX_SWEPT_FLOWS:,}): "
        "write fewer values, or use fewer hosts or channels"
    )


def fewest_connections(schedule: Schedule, hosts: Sequence[int], scheme: Scheme) -> Counter[int]:
    """Return, by sending host, the least number of connections that a plan has: found sooner than the plan."""
    lanes: dict[tuple[int, int, int], int] = {}
    for flow in schedule.flows:
        lane, most = (flow.src, flow.dst, flow.channel), min(flow.size_bytes, scheme.connections_per_flow)
        lanes[lane] = max(most, lanes.get(lane, 0))
    senders: Counter[int] = Counter()
    for (src, _, _), connections in lanes.items():
        senders[hosts[src]] += connections
    return senders


def too_many_connections(scheme: Scheme, senders: Counter[int], fabric: LeafSpine) -> str | None:
    """Refuse more than one host has ports for, or what this process may open: two sockets a connection."""
    host, most = max(senders.items(), key=lambda item: item[1])
    if most > MAX_CONNECTIONS_PER_HOST:
        return (
            f"{scheme} opens {most:,} connections from {fabric.host_name(host)}, and a host has ports for "
            f"{MAX_CONNECTIONS_PER_HOST:,}: use fewer channels, or a scheme of fewer connections"
        )
    files, limit = 2 * senders.total() + FILES_BESIDE_SUBFLOWS, most_open_files()
    if files > limit:
        return (
            f"{scheme} opens {senders.total():,} connections, which take {files:,} open files, and this "
            f"machine allows {limit:,} (ulimit -Hn): raise that, or use fewer hosts, channels or connections a flow"
        )
    return None


def too_long(scale: Scale, schedule: Schedule, bound_s: float) -> str | None:
    """Warn of a fabric that is slower than what was asked for, whose runs may take longer than anybody expects."""
    if scale.factor == 1 or bound_s <= MAX_SCALED_S:
        return None
    fitting = int(schedule.size_bytes * MAX_SCALED_S / bound_s)
    digit = 10 ** (len(str(fitting)) - 1)
    fits = format_size_bytes(max(1, fitting // digit * digit))
    return (
        f"at {scale}, a run takes {bound_s:,.0f} s at least, more than {MAX_SCALED_S:.0f} s: a size of {fits} "
        "would fit, or fewer hosts, whose links may be faster; predict takes it"
    )


def too_many_runs(traffic: int, schemes: int, seeds: int) -> str | None:
    if traffic * schemes * seeds <= MAX_RUNS:
        return None
    return (
        f"{traffic} entries of traffic x {schemes} schemes x {seeds} seeds are {traffic * schemes * seeds:,} runs, "
        f"more than the {MAX_RUNS:,} of one experiment: write fewer of each"
    )
