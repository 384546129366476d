"""What a training step took: known values of a timeline made by hand, and of jobs that theory plays."""

from __future__ import annotations

import re
from typing import Any

import pytest

from emulator.topology import LeafSpine
from experiments.spec.traffic import read_entry
from experiments.theory.bound import bound_s
from experiments.theory.fluid import simulate
from experiments.theory.loads import choose_spines
from experiments.theory.steps import COLUMNS, step_columns
from traffic.collectives import build_schedule
from traffic.jobs import JOBS, MODELS, JobError, Scale, Training, draw_up
from traffic.jobs.requests import requests
from traffic.jobs.together import together
from traffic.plan import plan_traffic
from traffic.schedule import Compute, Flow, Schedule
from traffic.schemes import scheme_of

FABRIC = LeafSpine(2, 2, 2, 10_000_000, 10_000_000)


def timeline() -> tuple[Schedule, list[float], list[float]]:
    """Two iterations of two ranks. In the second, 10 s to 20 s, rank 0 computes 6 s and rank 1 for 3 s."""
    flows = [Flow(0, 0, 1, 100), Flow(1, 1, 0, 100)]
    computes = [Compute(2, 0, 10.0, iteration=0), Compute(3, 0, 6.0, iteration=1), Compute(4, 1, 3.0, iteration=1)]
    computes.append(Compute(5, 1, 0.0, iteration=1))
    schedule = Schedule("job", "test", 2, 1, 100, flows, computes=computes)
    #      flows: 12-18 and 13-16; computations: 0-10, 10-16, 11-14, the update at 20
    return schedule, [12.0, 13.0, 0.0, 10.0, 11.0, 20.0], [18.0, 16.0, 10.0, 16.0, 14.0, 20.0]


def test_a_step_is_told_from_its_timeline() -> None:
    columns = step_columns(*timeline(), bound_s=16.0)
    assert columns == {
        "step_s": 10.0,
        "step_over_bound": 10 * 2 / 16,
        "exposed_s": 7.0,
        "exposed_mean_s": (4.0 + 7.0) / 2,
        "overlap": (4.0 + 2.0) / (6.0 + 6.0),  # of 12 to 18, rank 0 computes up to 16 and rank 1 up to 14
        **dict.fromkeys(("job_steps", "request_p50_s", "request_p99_s")),
    }


def test_what_has_no_computations_has_no_steps() -> None:
    flows = build_schedule("alltoall", ranks=4, size_bytes=4000)
    assert step_columns(flows, [0.0] * 12, [1.0] * 12, 1.0) == dict.fromkeys(COLUMNS)


def predicted(job: str, training: Training, iterations: int = 3) -> dict[str, Any]:
    schedule = draw_up(JOBS[job], training, 4, iterations=iterations, scale=Scale(0.01, 1.0))
    plan = plan_traffic(schedule, FABRIC, range(4), scheme_of("spray"))
    result = simulate(plan, FABRIC, choose_spines(plan, FABRIC, 1))
    least_s = bound_s(schedule, FABRIC, range(4))
    assert least_s <= result.cct_s * (1 + 1e-9)
    return step_columns(schedule, result.start_s, result.end_s, least_s)


def test_without_overlap_communication_is_exposed_whole() -> None:
    wire_s = FABRIC.wire_bytes(2 * 3 / 4 * 25_557_032 * 4 * 0.01) * 8 / FABRIC.host_rate_bps
    columns = predicted("ddp", Training(MODELS["resnet50"], 1.0, overlap=False))
    assert columns["step_s"] == pytest.approx(1.0 + wire_s, rel=0.01)
    assert columns["exposed_s"] == pytest.approx(wire_s, rel=0.01)
    assert columns["overlap"] == pytest.approx(0.0, abs=1e-9)


def test_with_overlap_only_what_computing_does_not_hide_is_exposed() -> None:
    hidden = predicted("ddp", Training(MODELS["resnet50"], 20.0))
    last_bucket_s = FABRIC.wire_bytes(2 * 3 / 4 * 2_431_040 * 4 * 0.01) * 8 / FABRIC.host_rate_bps
    assert hidden["exposed_s"] == pytest.approx(last_bucket_s, rel=0.02)
    assert hidden["overlap"] == pytest.approx(1 - 2_431_040 / 25_557_032, abs=0.02)
    assert hidden["step_over_bound"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("slower", [1.0, 1.3])
def test_a_straggler_of_a_job_delays_every_rank_as_if_all_were_as_slow(slower: float) -> None:
    """Nobody's gradients are summed before the slowest has computed its own: an iteration is as long as for it."""
    scale = Scale(0.01, 1.0)
    training = Training(MODELS["resnet50"], 20.0)
    late = draw_up(JOBS["ddp"], training, 4, iterations=2, scale=Scale(0.01, 1.0, {0: slower}))
    all_slow = draw_up(JOBS["ddp"], Training(MODELS["resnet50"], 20.0 * slower), 4, iterations=2, scale=scale)

    def ends(schedule: Schedule) -> list[float]:
        plan = plan_traffic(schedule, FABRIC, range(4), scheme_of("spray"))
        end_s = simulate(plan, FABRIC, choose_spines(plan, FABRIC, 1)).end_s
        return [end_s[each.id] for each in schedule.computes if each.label == "update"]

    assert ends(late) == pytest.approx(ends(all_slow), rel=1e-6)
    assert max(ends(late)) > 2 * 20.0 * slower


def asked(count: int = 40) -> Schedule:
    return requests(count, clients=2, pool=2, at_once=3, up_bytes=2000, down_bytes=2500, serve_s=0.5)


def test_requests_take_turns_and_are_timed_without_what_serves_them() -> None:
    schedule = asked()
    plan = plan_traffic(schedule, FABRIC, range(4), scheme_of("ecmp"))
    result = simulate(plan, FABRIC, choose_spines(plan, FABRIC, 1))
    columns = step_columns(schedule, result.start_s, result.end_s, 1.0)
    least_s = sum(FABRIC.wire_bytes(size) * 8 / FABRIC.host_rate_bps for size in (2000, 2500))
    assert columns["step_s"] is None and columns["job_steps"] is None
    assert isinstance(columns["request_p99_s"], float) and least_s * 0.999 <= columns["request_p99_s"] <= 4 * least_s
    under_way = [
        sum(result.start_s[each.sent] <= moment < result.end_s[each.answered] for each in schedule.requests)
        for moment in (0.1, 1.1, 5.1)
    ]
    assert under_way == [3, 3, 3]


def test_of_several_jobs_each_has_its_step_and_servers_have_none() -> None:
    first, second = (
        draw_up(JOBS["ddp"], Training(MODELS["resnet50"], seconds), 2, iterations=2, scale=Scale(0.001, 1.0))
        for seconds in (10.0, 20.0)
    )
    both = together([first, second], ["a", "b"])
    big = LeafSpine(2, 2, 4, 10_000_000, 10_000_000)

    def columns(schedule: Schedule) -> dict[str, Any]:
        plan = plan_traffic(schedule, big, range(schedule.ranks), scheme_of("spray"))
        result = simulate(plan, big, choose_spines(plan, big, 1))
        return dict(step_columns(schedule, result.start_s, result.end_s, 1.0))

    a_s, b_s = (columns(each)["step_s"] for each in (first, second))
    assert columns(both)["job_steps"] == f"a {a_s:.4g} s; b {b_s:.4g} s"
    later = columns(together([first, second], ["a", "b"], [0.0, 7.0]))
    assert later["job_steps"] == f"a {a_s:.4g} s; b {b_s:.4g} s"
    once = draw_up(JOBS["ddp"], Training(MODELS["resnet50"], 10.0), 2, scale=Scale(0.001, 1.0))
    of_one = columns(together([once, once], ["a", "b"], [0.0, 7.0]))["job_steps"]
    assert len(set(re.findall(r"[0-9.]+", of_one))) == 1
    beside = columns(together([first, asked()], ["a", "requests"]))
    assert beside["step_s"] == pytest.approx(a_s, rel=0.01) and beside["job_steps"] is None
    assert beside["exposed_s"] < 0.1 * a_s and beside["request_p99_s"] is not None


def test_several_collectives_on_the_same_ranks_are_each_what_it_is_alone_and_start_when_they_are_to() -> None:
    entries = [{"collective": "alltoall", "size": "1MB"}, {"collective": "permutation", "channels": 3, "size": "1MB"}]
    both = read_entry({"together": entries, "ranks": "same", "start": ["0s", "200ms"]})
    fabric = LeafSpine(2, 2, 4, host_rate_bps=50_000_000)
    schedule = both.schedule(fabric, "packed", 1)
    alone = [read_entry(each).schedule(fabric, "packed", 1) for each in entries]
    assert schedule.ranks == 8 and both.settings()["start"] == "0.0+0.2"
    assert {flow.start_s for flow in schedule.flows[: len(alone[0].flows)]} == {0.0}
    assert {flow.start_s for flow in schedule.flows[len(alone[0].flows) :]} == {0.2}
    cuts = [plan_traffic(each, fabric, range(8), scheme_of("ethereal")) for each in (*alone, schedule)]
    assert cuts[2].cut_flows == cuts[0].cut_flows + cuts[1].cut_flows > 0, "no scheme deals both at once"
    result = simulate(cuts[2], fabric, choose_spines(cuts[2], fabric, 1))
    took = str(step_columns(schedule, result.start_s, result.end_s, 1.0)["job_steps"])
    first_s, second_s = (float(part.split()[1]) for part in took.split("; "))
    assert took.startswith("alltoall ") and "; permutation " in took
    assert max(first_s, 0.2 + second_s) == pytest.approx(result.cct_s, rel=0.01), "to what starts are taken together"
    with pytest.raises(ValueError, match="a list of 1 for 2 entries; write one for each"):
        read_entry({"together": entries, "start": ["1s"]})
    computing = [{"job": "ddp", "model": "resnet50", "compute": "1s", "ranks": 4}]
    with pytest.raises(JobError, match="ranks: same is for what only sends"):
        read_entry({"together": computing, "ranks": "same"}).schedule(fabric, "packed", 1)
