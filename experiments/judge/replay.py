"""What holds of a replay, whose bytes are known: they arrive, no sooner than can be, and nothing of ours holds them."""

from __future__ import annotations

from collections import defaultdict

from experiments.judge.evidence import ReplayEvidence
from experiments.judge.floor import head_start_s, too_short
from experiments.judge.network import RATE_TOLERANCE, packets_are_conserved
from experiments.judge.senders import longest_unheld
from experiments.judge.wording import apart
from experiments.theory.loads import NO_SPINE, Ints, choose_spines

MAX_UNHELD, LEAST_UNHELD_S = 0.1, 0.4
"""Most of a run's time, and of any run, that a sender may have bytes while no link on their way is full."""

MAX_LATE = 0.01
"""Most that the ends of a rank's computations may come late, all together, as a share of a run's time."""


def computations_end_in_time(run: ReplayEvidence) -> list[str]:
    """What a rank computes takes as long as it was asked to: lateness would count as the network's."""
    result = run.measured.result
    late_s: dict[int, float] = defaultdict(float)
    for compute in run.plan.schedule.computes:
        if compute.seconds:
            late_s[compute.rank] += result.finished_s[compute.id] - result.started_s[compute.id] - compute.seconds
    if not late_s or max(late_s.values()) <= MAX_LATE * result.cct_s:
        return []
    rank, seconds = max(late_s.items(), key=lambda item: item[1])
    return [
        f"computations of rank {rank} ended {seconds:.2g} s late of {result.cct_s:.3g} s: at most {MAX_LATE:.0%} is "
        "trusted"
    ]


def bytes_are_as_asked(run: ReplayEvidence) -> list[str]:
    """The bytes received are what the schedule asked for, real data is right, and no run beats its bound."""
    reasons = []
    asked = [0] * len(run.plan.connections)
    for piece in run.plan.pieces:
        asked[piece.connection] += piece.size_bytes
    got = [result.received_bytes for result in run.measured.result.connections]
    wrong = [number for number, (a, b) in enumerate(zip(asked, got, strict=True)) if a != b]
    if wrong:
        first = wrong[0]
        reasons.append(
            f"{len(wrong)} connections received other than was asked, the first {got[first]} of {asked[first]} bytes"
        )
    sooner_s = head_start_s(run.plan.schedule, run.topology, run.plan.hosts, run.bound_s, run.faults)
    if run.measured.result.cct_s < run.bound_s * (1 - RATE_TOLERANCE) - sooner_s:
        took, bound = apart(run.measured.result.cct_s, run.bound_s, digits=4)
        reasons.append(f"CCT {took} s is below the bound of {bound} s")
    return [*reasons, *(run.measured.result.data_problems or ())]


def _spines(run: ReplayEvidence) -> Ints:
    """The spine of every connection; none where it may have taken several."""
    spines = choose_spines(run.plan, run.topology, run.seed).copy()
    for connection in run.plan.connections:
        ends = {run.topology.leaf_of(connection.src_host), run.topology.leaf_of(connection.dst_host)}
        if ends & run.leaves_told_of or run.measured.result.connections[connection.id].moves:
            spines[connection.id] = NO_SPINE
    return spines


def run_is_long_enough(run: ReplayEvidence) -> list[str]:
    """A run too short for its windows and its buckets says nothing."""
    reason = too_short(run.plan.schedule, run.topology, run.plan.hosts, run.bound_s, run.faults)
    return [reason] if reason else []


def senders_are_held_by_the_network(run: ReplayEvidence) -> list[str]:
    """A sender with bytes keeps its link busy, unless a receiver, the fabric or its schedule is the limit.

    Where packets are lost on the way, conservation fails, and TCP's own rules hold senders back; and so they do where a
    fault had connections time out.
    """
    if packets_are_conserved(run):
        return []
    replay, cct_s = run.measured.result, run.measured.result.cct_s
    spines = _spines(run)
    # Unequal paths, by a fault or from the start, reorder sprayed packets beyond what TCP takes for anything but loss.
    unequal = run.timeline.changed or (run.plan.scheme.spreads and run.topology.rates_differ)
    timed_out = {number for number, each in enumerate(replay.connections) if each.timeouts and unequal}
    held = longest_unheld(
        run.plan, run.ports, run.topology, spines, run.measured.samples.queues, replay.started_s, replay.finished_s,
        run.timeline, timed_out,
    )  # fmt: skip
    most_s = max(MAX_UNHELD * cct_s, LEAST_UNHELD_S)
    if held.seconds <= most_s:
        return []
    seconds, most = apart(held.seconds, most_s, digits=1)
    return [
        f"{run.topology.host_name(held.host)} had bytes to send and no link on their way was full for "
        f"{seconds} s of {cct_s:.1f} s: at most {most} s is trusted"
    ]
