"""Whether the machine kept up: what waits for a core or for the switch's process delays what a wire would not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.judge.evidence import Evidence, ReplayEvidence
from experiments.judge.windows import averages, least_idle, samples_within, seconds, within
from experiments.judge.wording import apart

MIN_IDLE = 0.02
"""Least part of all cores idle in every second."""

MAX_WAITING_BUCKETS = 2
"""Most that may wait at a port, on average over any second, for a userspace switch to take it, in depths of the port's
token bucket. A bucket makes up for packets that come late by its depth, and the kernel counts up to two bytes for every
byte that waits. What the switch process uses of a core tells nothing: it looks for packets without a pause long before
it is late (16 hosts at 20 and 30 Mb/s: never asleep, 10 kB waiting, 1.03 of the bound; at 35: 34 kB and 1.1; at 40:
46 kB and 1.25)."""

MIN_REPLAY_WAITS = 0.08
"""Least part of every second that a process of the replay waits for the network. It drives all sockets of its hosts: if
it never waits, some of them run dry, and the number is its own, not the fabric's (16 hosts, single frames, one process:
where it waited 0.2 of the time, CCTs were within 1.03 of the bound; at 0.07, 1.13 to 1.29; at 0.05, 1.26 to 1.33, with
a quarter of the machine idle)."""

MAX_SAMPLER_LATE_S = 0.1
"""Latest a sampler's wake-up may come; what the sampler suffers, shaping suffers too."""


def machine_kept_up(run: Evidence[Any]) -> list[str]:
    """The machine had idle CPU in every second, no pegged switch process, the sampler's own wake-ups on time."""
    reasons = []
    cpu = samples_within(run)
    idle = least_idle(cpu)
    if idle < MIN_IDLE:
        busy, most = apart(1 - idle, 1 - MIN_IDLE, "%")
        reasons.append(f"the machine was {busy} busy for a second: at most {most} is trusted")
    reasons += packets_wait_for_the_switch(run)
    lost = (run.measured.after - run.measured.before).rx_drops.to_numpy()
    if lost.any():
        reasons.append(
            f"{lost.sum()} packets were dropped on arrival, most at {run.ports[int(lost.argmax())].name}: more waited "
            "for a core than net.core.netdev_max_backlog allows"
        )
    late = float(cpu.late_s.max())
    if late > MAX_SAMPLER_LATE_S:
        came, latest = apart(late * 1e3, MAX_SAMPLER_LATE_S * 1e3)
        reasons.append(f"a sample came {came} ms late: at most {latest} ms is trusted")
    return reasons


def packets_wait_for_the_switch(run: Evidence[Any]) -> list[str]:
    """A switch in user space takes packets as they come."""
    worst, reason = 1.0, ""
    for number, samples in within(run, run.measured.samples.waiting).groupby("port"):
        port = run.ports[int(number)]
        time_s, waiting = (samples[name].to_numpy(float) for name in ("time_s", "waiting_bytes"))
        average = averages(time_s, waiting)
        allowed = MAX_WAITING_BUCKETS * port.shaping.burst_bytes
        if len(average) and average.max() > worst * allowed:
            worst = average.max() / allowed
            waited, most = apart(average.max() / 1e3, allowed / 1e3)
            reason = (
                f"the switch process is too slow: {waited} kB waited for it at {port.name} for a second, at most "
                f"{most} kB is trusted"
            )
    return [reason] if reason else []


def _least_waited(account: Sequence[tuple[float, float]]) -> float:
    """Least part of any second that a process waited for the network."""
    time_s, waited_s = np.array(account).T
    starts, ends = seconds(time_s)
    return float(((waited_s[ends] - waited_s[starts]) / (time_s[ends] - time_s[starts])).min(initial=1.0))


def replay_kept_up(run: ReplayEvidence) -> list[str]:
    """What sends the traffic waits for the network, not the network for it."""
    least = min((_least_waited(account) for account in run.measured.result.waited), default=1.0)
    if least >= MIN_REPLAY_WAITS:
        return []
    waited, enough = apart(least, MIN_REPLAY_WAITS, "%", 1)
    return [
        f"the replay waited for the network for {waited} of a second: less than {enough}, and it is the replay that is "
        "measured"
    ]
