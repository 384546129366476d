"""How much full token buckets can hide of a training job, whose links they meet once a collective."""

from __future__ import annotations

import pytest

from emulator.ports import shaping_for
from emulator.topology import LeafSpine
from experiments.judge.floor import head_start_s, too_short
from experiments.theory.bound import bound_s
from traffic.collectives import build_schedule
from traffic.jobs import JOBS, MODELS, Scale, Training, draw_up
from traffic.placement import place
from traffic.schedule import Schedule
from traffic.strain import strained
from traffic.strain.background import Background

FABRIC = LeafSpine(4, 4, 4, 50_000_000, 50_000_000)
HOSTS = place("interleaved", FABRIC, 16)
BUCKET_S = shaping_for(50_000_000, FABRIC).burst_bytes * 8 / 50_000_000


def drawn(job: str) -> Schedule:
    """About a second on the wire."""
    model, scale, group = (
        ("mixtral", 0.002, 4) if job == "ep" else ("gpt2-small", 0.02, 4 if job in ("tp", "pp") else 1)
    )
    training = Training(MODELS[model], 20.0, group=group, tokens=512)
    return draw_up(JOBS[job], training, 16, scale=Scale(scale, scale))


@pytest.mark.parametrize("job", JOBS)
def test_full_buckets_hide_at_least_one_and_at_most_one_a_link_between_two_computations(job: str) -> None:
    schedule = drawn(job)
    sooner_s = head_start_s(schedule, FABRIC, HOSTS, bound_s(schedule, FABRIC, HOSTS))
    of_a_rank = max(sum(each.rank == rank for each in schedule.computes) for rank in range(16))
    steps = 1 + max(flow.step for flow in schedule.flows)
    assert 0.999 * BUCKET_S <= sooner_s <= BUCKET_S * max(of_a_rank, steps)


@pytest.mark.parametrize("job", ["ddp", "fsdp", "zero1"])
def test_a_ring_keeps_its_links_busy_from_step_to_step_so_that_its_buckets_are_full_but_once(job: str) -> None:
    schedule = drawn(job)
    least_s = bound_s(schedule, FABRIC, HOSTS)
    assert head_start_s(schedule, FABRIC, HOSTS, least_s) <= 1.01 * BUCKET_S * (1 + len(schedule.collectives))
    assert too_short(schedule, FABRIC, HOSTS, least_s) is None


def test_what_another_tenant_sends_raises_no_floor_that_our_own_arrivals_have_to_keep() -> None:
    schedule = build_schedule("permutation", "shift", ranks=16, size_bytes=2_000_000, channels=4, shift=4)
    least_s = bound_s(schedule, FABRIC, HOSTS)
    beside = strained(schedule, [Background(load=3.0)], bound_s=least_s, seed=1)
    assert len(beside.flows) > len(schedule.flows) and bound_s(beside, FABRIC, HOSTS) > 2 * least_s
    assert head_start_s(beside, FABRIC, HOSTS, least_s) == head_start_s(schedule, FABRIC, HOSTS, least_s) > 0
