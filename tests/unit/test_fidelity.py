"""Every planted fault turns exactly its invariant to `fail`, with a reason that says where and how much."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import (
    EVERY_SCHEME,
    FABRIC,
    START_S,
    healthy_run,
    place,
    planted,
    sample_times,
    sent_at_rate,
    with_samples,
)

from emulator.ports import Shaping, shaping_for
from experiments.judge.evidence import ReplayEvidence
from experiments.judge.floor import head_start_s, too_short
from experiments.judge.invariants import INVARIANTS, failures
from experiments.judge.senders import longest_unheld
from experiments.theory.bound import bound_s
from experiments.theory.loads import choose_spines
from traffic.schedule import Flow, Schedule

PORT = "leaf1-eth3"  # to spine1
ASKED = shaping_for(FABRIC.fabric_rate_bps, FABRIC)

Fault = Callable[[ReplayEvidence], ReplayEvidence]


def reshaped(found: Shaping | None) -> Fault:
    return lambda run: planted(run, shaping={**run.measured.shaping, PORT: found})


def counted(column: str, name: str, packets: int) -> Fault:
    """A counter of one port is `packets` higher at the end than it would have been."""

    def plant(run: ReplayEvidence) -> ReplayEvidence:
        after = run.measured.after.copy()
        after.loc[place(run, name), column] += packets
        return planted(run, after=after)

    return plant


# What counts a packet of h1 on its way to h3, in turn: a port sends it, the other end of the link receives it.
PATH = [("tx_packets", "h1-eth0"), ("rx_packets", "leaf1-eth1"), ("tx_packets", PORT), ("rx_packets", "spine1-eth1"),
        ("tx_packets", "spine1-eth2"), ("rx_packets", "leaf2-eth3"), ("tx_packets", "leaf2-eth1"),
        ("rx_packets", "h3-eth0")]  # fmt: skip


def lost(packets: int, before: str, admitted: tuple[str, ...] = ()) -> Fault:
    """`packets` vanish before port `before` counts them; `admitted` are the counters of that port that say so."""

    def plant(run: ReplayEvidence) -> ReplayEvidence:
        first = [name for _, name in PATH].index(before)
        for column, name in PATH[first:]:
            run = counted(column, name, -packets)(run)
        if "interface" in admitted:
            run = counted("tx_drops", before, packets)(run)
        if "queue" in admitted:
            queues = run.measured.samples.queues.copy()
            late = (queues.port == place(run, before)) & (queues.time_s > START_S + 0.5)
            queues.loc[late, "drops_packets"] += packets
            run = with_samples(run, queues=queues)
        return run

    return plant


def sending(factor: float, load_bytes: float = 5e6) -> Fault:
    """One port sends `factor` times its rate while its queue is deep."""

    def plant(run: ReplayEvidence) -> ReplayEvidence:
        number, queues = place(run, PORT), run.measured.samples.queues
        times = np.sort(queues.time_s.unique())
        own = sent_at_rate(times, run.ports[number], load_bytes, factor).assign(port=number)
        return with_samples(run, queues=pd.concat([queues[queues.port != number], own], ignore_index=True))

    return plant


def during_a_second(**per_second: float) -> Fault:
    """From 0.3 s to 1.35 s of the run, CPU totals grow at these rates instead."""

    def plant(run: ReplayEvidence) -> ReplayEvidence:
        cpu = run.measured.samples.cpu.copy()
        steps = cpu.diff().fillna(0.0)
        within = (cpu.time_s > START_S + 0.3) & (cpu.time_s <= START_S + 1.35)
        for column, rate in per_second.items():
            steps.loc[within, column] = rate * steps.time_s[within]
            cpu[column] = cpu[column].iloc[0] + steps[column].cumsum()
        return with_samples(run, cpu=cpu)

    return plant


def late_by(seconds: float) -> Fault:
    def plant(run: ReplayEvidence) -> ReplayEvidence:
        cpu = run.measured.samples.cpu.copy()
        cpu.loc[12, "late_s"] = seconds
        return with_samples(run, cpu=cpu)

    return plant


def received_less(missing_bytes: int) -> Fault:
    def plant(run: ReplayEvidence) -> ReplayEvidence:
        replay = run.measured.result
        short = replace(replay.connections[5], received_bytes=replay.connections[5].received_bytes - missing_bytes)
        return planted(
            run, result=replace(replay, connections=[*replay.connections[:5], short, *replay.connections[6:]])
        )

    return plant


def finished_at(bounds: float) -> Fault:
    """The last flow ends after `bounds` times the bound."""

    def plant(run: ReplayEvidence) -> ReplayEvidence:
        replay = run.measured.result
        ends = [START_S + bounds * run.bound_s] * len(replay.finished_s)
        return planted(run, result=replace(replay, finished_s=ends))

    return plant


def waiting_bytes(buckets: float, lasting_s: float = 1.5) -> Fault:
    """So much waits for the switch at PORT, from 0.2 s on."""

    def plant(run: ReplayEvidence) -> ReplayEvidence:
        time_s = sample_times(run.measured.result.cct_s)
        late = (time_s > START_S + 0.2) & (time_s < START_S + 0.2 + lasting_s)
        waits = np.where(late, buckets * ASKED.burst_bytes, 0.0)
        frame = pd.DataFrame({"time_s": time_s, "port": place(run, PORT), "waiting_bytes": waits})
        return with_samples(run, waiting=frame)

    return plant


def busy_replay(part: float) -> Fault:
    """The replay waits for the network for `part` of 1.1 s from 0.2 s on, and most of the time before and after."""

    def plant(run: ReplayEvidence) -> ReplayEvidence:
        time_s = sample_times(run.measured.result.cct_s)
        busy = (time_s > START_S + 0.2) & (time_s < START_S + 1.3)
        waited_s = np.cumsum(np.where(busy, part, 0.8) * np.diff(time_s, prepend=time_s[0]))
        waited = list(zip(time_s.tolist(), waited_s.tolist(), strict=True))
        return planted(run, result=replace(run.measured.result, waited=[waited]))

    return plant


FAULTS: list[tuple[Fault, str, str]] = [
    (reshaped(replace(ASKED, rate_bps=19_000_000)), "shaping", r"leaf1-eth3: .*19 Mb/s.* 20 Mb/s"),
    (reshaped(replace(ASKED, burst_bytes=9014)), "shaping", r"leaf1-eth3: burst 9014 .*18028"),
    (reshaped(replace(ASKED, queue_bytes=1_000_000)), "shaping", r"leaf1-eth3: .*queue 1000000 .*4000000"),
    (reshaped(None), "shaping", r"leaf1-eth3: no shaping .*20 Mb/s"),
    (lost(3, "spine1-eth1"), "conservation", r"leaf1-eth3 -> spine1-eth1: 0\.36% \(3\) .*on the link"),
    (lost(1, "h3-eth0"), "conservation", r"leaf2-eth1 -> h3-eth0: 0\.12% \(1\) .*on the link"),
    (lost(-2, "h3-eth0"), "conservation", r"leaf2-eth1 -> h3-eth0: 2 packets more than the 842 sent"),
    (lost(5, PORT), "conservation", r"leaf1: 0\.15% \(5\) of packets left no trace in the switch"),
    (lost(7, "spine1-eth2"), "conservation", r"spine1: 0\.42% \(7\) of packets left no trace in the switch"),
    (sending(0.9), "work conservation", r"leaf1-eth3 stayed below its rate: 8\d\.\d% .*between \d\.\d\d s and \d\.\d"),
    (sending(1.1), "work conservation", r"leaf1-eth3 exceeded its rate: 11\d\.\d% .*between \d\.\d\d s and \d\.\d"),
    (during_a_second(idle_s=0.0, busy_s=2.0), "machine", r"100% busy for a second"),
    (during_a_second(idle_s=0.02, busy_s=1.98), "machine", r"99% busy for a second"),
    (waiting_bytes(2.1), "machine", r"too slow: 38 kB waited for it at leaf1-eth3 for a second, at most 36 kB"),
    (late_by(0.25), "machine", r"a sample came 250 ms late: at most 100 ms is trusted"),
    (busy_replay(0.03), "replay", r"the replay waited for the network for \d\.\d% of a second: less than 8\.0%"),
    (received_less(1_000), "bytes", r"1 connections .* 1665666 of 1666666 bytes"),
    (finished_at(0.95), "bytes", r"CCT 1\.9140 s is below the bound of 2\.0148 s"),
]  # fmt: skip

HARMLESS: list[Fault] = [
    lambda run: run,
    reshaped(replace(ASKED, burst_bytes=18_027)),  # as the kernel rounds it
    lost(5, PORT, admitted=("queue",)),
    lost(5, PORT, admitted=("interface",)),
    lost(5, PORT, admitted=("queue", "interface")),
    sending(1.0),
    sending(0.9, load_bytes=50_000),  # over before it could be called busy
    during_a_second(idle_s=0.06, busy_s=1.94),
    during_a_second(process_s=1.0),  # a switch that looks for packets without a pause
    waiting_bytes(1.9),
    waiting_bytes(20.0, lasting_s=0.05),
    late_by(0.05),
    finished_at(1.0),
]


@pytest.mark.parametrize(("fault", "invariant", "reason"), FAULTS)
def test_fault_fails_its_invariant_and_no_other(
    healthy: ReplayEvidence, fault: Fault, invariant: str, reason: str
) -> None:
    failed = failures(fault(healthy))
    assert list(failed) == [invariant], failed
    assert any(re.search(reason, line) for line in failed[invariant]), failed
    assert len(failed[invariant]) == 1, "one fault, one reason"


@pytest.mark.parametrize("harmless", HARMLESS)
def test_healthy_run_passes(healthy: ReplayEvidence, harmless: Fault) -> None:
    assert failures(harmless(healthy)) == {}


@pytest.mark.parametrize("scheme", EVERY_SCHEME)
def test_short_runs_pass_and_shorter_ones_are_not_judged(scheme: str) -> None:
    """A run of 50 ms has next to no samples: whatever else holds, it says nothing."""
    assert failures(healthy_run(scheme, 2_000_000)) == {}
    [reason] = failures(healthy_run(scheme, 100_000))["length"]
    assert reason.startswith("too short: its bound is 0.04 s and runs are judged from 0.25 s") and "650KB" in reason
    assert failures(healthy_run(scheme, 650_000)) == {}


def test_what_full_buckets_hide_is_a_tenth_at_most() -> None:
    """Their depth is two frames a link: one step of 20 KB is through in a fifth of its bound."""
    slow = replace(FABRIC, host_rate_bps=2_000_000, fabric_rate_bps=2_000_000)
    flows = [Flow(host, host, (host + 2) % 4, 20_000) for host in range(4)]
    schedule = Schedule("permutation", "shift", 4, 1, 20_000, flows)
    reason = too_short(schedule, slow, range(4), bound_s(schedule, slow, range(4)))
    assert reason and "the first frames of every port pass at once, 0.072 s of it" in reason
    [needed] = re.findall(r"at least (\d+)KB", reason)
    larger = replace(schedule, flows=[replace(flow, size_bytes=int(needed) * 1000) for flow in flows])
    assert too_short(larger, slow, range(4), bound_s(larger, slow, range(4))) is None
    assert head_start_s(larger, slow, range(4), bound_s(larger, slow, range(4))) == pytest.approx(0.0721, abs=1e-4)


def test_a_sender_that_holds_itself_back_is_found_out() -> None:
    """Everything arrives, no port is above its rate, nobody waits for a core: and the network was never the limit."""
    run = healthy_run()
    queues = run.measured.samples.queues
    lazy = queues.assign(sent_bytes=queues.sent_bytes * 0.6, backlog_bytes=0)
    assert list(failures(planted(run, samples=replace(run.measured.samples, queues=lazy)))) == ["senders"]
    in_one_queue = lazy.assign(backlog_bytes=9014.0 * (queues.port == place(run, "h1-eth0")))
    held = longest_unheld(
        run.plan, run.ports, FABRIC, choose_spines(run.plan, FABRIC, 1), in_one_queue,
        run.measured.result.started_s, run.measured.result.finished_s,
    )  # fmt: skip
    assert held.host != 0 and held.seconds > 1, "h1's packets wait at its own port, and h1 is not to blame"


def test_senders_whose_packets_were_dropped_are_held_by_tcp() -> None:
    run = healthy_run()
    queues = run.measured.samples.queues
    lazy = queues.assign(sent_bytes=queues.sent_bytes * 0.6, backlog_bytes=0)
    drops = lazy.assign(drops_packets=(lazy.time_s > START_S + 0.5).astype(int))
    held = longest_unheld(
        run.plan, run.ports, FABRIC, choose_spines(run.plan, FABRIC, 1), drops,
        run.measured.result.started_s, run.measured.result.finished_s,
    )  # fmt: skip
    assert held.seconds == 0


def test_port_that_was_reshaped_fails_for_its_shaping_alone(healthy: ReplayEvidence) -> None:
    assert list(failures(sending(0.5)(reshaped(replace(ASKED, rate_bps=10_000_000))(healthy)))) == ["shaping"]


@pytest.mark.parametrize(
    ("rate_bps", "mtu_bytes"), [(333_000_000, 1500), (1_000_000_000, 9000), (10_000_000_000, 9000)]
)
def test_bucket_in_whole_microseconds_is_as_asked(healthy: ReplayEvidence, rate_bps: int, mtu_bytes: int) -> None:
    """What the kernel holds after a bucket was set over netlink: its filling time, cut to microseconds."""
    asked = shaping_for(rate_bps, replace(FABRIC, mtu_bytes=mtu_bytes))
    fill_us = asked.burst_bytes * 8 // (rate_bps // 1_000_000)
    found = replace(asked, burst_bytes=fill_us * rate_bps // 8_000_000)
    ports = [replace(port, shaping=asked) for port in healthy.ports]
    run = replace(planted(healthy, shaping={port.name: found for port in ports}), ports=ports)
    assert found != asked and "shaping" not in failures(run)


def test_bursts_may_beat_the_bound_of_a_tiny_run() -> None:
    """A full bucket of two frames passes at once: a run of ten frames may take a fifth less than its rate allows."""
    run = healthy_run(size_bytes=90_000)
    assert list(failures(finished_at(0.85)(run))) == ["length"]
    assert list(failures(finished_at(0.5)(run))) == ["bytes", "length"]


def test_packets_that_no_core_took_in_time_are_the_machines_fault(healthy: ReplayEvidence) -> None:
    """Linux counts them as dropped by both ends of the link, and as sent by neither."""
    run = counted("tx_drops", PORT, 5)(counted("rx_drops", "spine1-eth1", 5)(lost(5, PORT)(healthy)))
    assert failures(run) == {
        "machine": [
            "5 packets were dropped on arrival, most at spine1-eth1: more waited for a core than "
            "net.core.netdev_max_backlog allows"
        ]
    }


def test_each_port_that_loses_is_named(healthy: ReplayEvidence) -> None:
    run = counted("rx_packets", "h1-eth0", -1)(counted("rx_packets", "h4-eth0", -2)(healthy))  # acknowledgements
    assert [line.partition(":")[0] for line in failures(run)["conservation"]] == [
        "leaf1-eth1 -> h1-eth0",
        "leaf2-eth2 -> h4-eth0",
    ]


def test_replay_that_waits_now_and_then_keeps_up(healthy: ReplayEvidence) -> None:
    assert failures(busy_replay(0.12)(healthy)) == {}


def test_the_readme_lists_every_invariant() -> None:
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    for number, invariant in enumerate(INVARIANTS, start=1):
        assert f"{number}. *{invariant.name}*: {invariant.says}" in text
