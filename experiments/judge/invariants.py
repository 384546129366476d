"""Can a run's numbers be trusted? Invariants that hold on any real network, checked on what was measured.

To add one, write a check that takes evidence and returns the reasons it fails, a line each with the amount, and list it
here: the documentation, the report and the tests follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.judge import machine, network, replay
from experiments.judge.evidence import Evidence, ProgramEvidence, ReplayEvidence


@dataclass(frozen=True)
class Invariant:
    """What must hold: `says` it for people, and `check` returns the reasons why it does not, none where it does.

    `broken` says in a few words that it did not, and `remedy` what to try then; {slower} in it stands for the keys that
    make the fabric half as fast. `of` is the kind of evidence it can be asked of.
    """

    name: str
    says: str
    broken: str
    remedy: str
    check: Callable[[Any], list[str]]
    of: type[Evidence[Any]] = Evidence


INVARIANTS = (
    Invariant(
        "shaping",
        "the shaping read back from the kernel is what was asked, on every port",
        "ports not shaped as asked",
        "spraylab doctor",
        network.shaping_is_as_asked,
    ),
    Invariant(
        "conservation",
        "on every hop, packets in = packets out + drops that a counter admits to, those of faults included",
        "packets lost without a trace",
        "{slower}",
        network.packets_are_conserved,
    ),
    Invariant(
        "work conservation",
        "a port whose queue never emptied sent at its rate, and no port ever exceeded it",
        "a port off its rate",
        "{slower}",
        network.ports_work_at_their_rate,
    ),
    Invariant(
        "machine",
        "the machine kept up: idle CPU in every second, nothing waits long for a switch process or a core, no late "
        "wake-ups",
        "machine busy",
        "{slower}",
        machine.machine_kept_up,
    ),
    Invariant(
        "replay",
        "what sends the traffic waits for the network, not the network for it",
        "senders too slow for the network",
        "{slower}",
        machine.replay_kept_up,
        ReplayEvidence,
    ),
    Invariant(
        "timers",
        "what ranks compute ends when it is due, to within a hundredth of the run",
        "computations ended late",
        "{slower}",
        replay.computations_end_in_time,
        ReplayEvidence,
    ),
    Invariant(
        "bytes",
        "the bytes that arrived are the bytes that were asked for, and no run beats its bound",
        "bytes not as asked",
        "the run again, and report it with manifest.json if it stays so",
        replay.bytes_are_as_asked,
        ReplayEvidence,
    ),
    Invariant(
        "length",
        "a run is long enough to be judged: its bound is a quarter of a second at least, and full token buckets "
        "explain no more than a tenth of it",
        "too short to judge",
        "twice the size",
        replay.run_is_long_enough,
        ReplayEvidence,
    ),
    Invariant(
        "senders",
        "a sender with bytes to send keeps a link on their way busy",
        "senders with bytes left a link idle",
        "a deeper queue",
        replay.senders_are_held_by_the_network,
        ReplayEvidence,
    ),
    Invariant(
        "traffic",
        "a program sent something",
        "nothing was sent",
        "spraylab shell, to see what the program does",
        network.something_was_sent,
        ProgramEvidence,
    ),
    Invariant(
        "captures",
        "what was to be captured was, and no packet is missing",
        "captures incomplete",
        "captures: uplinks, or {slower}",
        network.captures_are_complete,
    ),
    Invariant(
        "faults",
        "every fault came about and was over when it was due, and the kernel said so",
        "faults not as asked",
        "faults that last longer",
        network.faults_are_as_asked,
    ),
)
"""In the order in which a run's reasons are listed."""


def failures(evidence: Evidence[Any]) -> dict[str, list[str]]:
    """Return the invariants that fail, by name, each with its reasons."""
    asked = (each for each in INVARIANTS if isinstance(evidence, each.of))
    return {each.name: reasons for each in asked if (reasons := each.check(evidence))}


def summary(failed: Mapping[str, Sequence[str]]) -> str:
    """Return the invariants that failed in one line, each with its first reason."""
    return "; ".join(
        f"{name}: {reasons[0]}" + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "")
        for name, reasons in failed.items()
    )
