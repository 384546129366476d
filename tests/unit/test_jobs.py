"""Training jobs: the bytes that formulas say, the order that frameworks keep, and what hides behind computing."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

from emulator.topology import LeafSpine
from experiments.spec.traffic import read_entry
from experiments.theory.fluid import simulate
from experiments.theory.loads import choose_spines
from experiments.theory.told import critical_path_s
from traffic.jobs import JOBS, MODELS, JobError, Scale, Training, draw_up
from traffic.jobs.job import buckets
from traffic.jobs.split import shares
from traffic.plan import plan_traffic
from traffic.schedule import Flow, Schedule
from traffic.schemes import scheme_of

RANKS = 16


def drawn(job: str, model: str, iterations: int = 1, ranks: int = RANKS, **training: Any) -> Schedule:
    return draw_up(JOBS[job], Training(MODELS[model], 1.0, **training), ranks, iterations=iterations)


def sent_gb(schedule: Schedule) -> float:
    """What the rank sends that sends most."""
    sent: Counter[int] = Counter()
    for flow in schedule.flows:
        sent[flow.src] += flow.size_bytes
    return max(sent.values()) / 1e9


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("resnet50", 25_557_032),
        ("gpt2-small", 124_439_808),
        ("dit-xl2", 674_834_720),
        ("llama3-8b", 8_030_261_248),
        ("llama3-70b", 70_553_706_496),
        ("llama3.2-3b", 3_212_749_824),
        ("qwen2.5-3b", 3_085_938_688),
        ("mixtral", 46_702_792_704),
    ],
)
def test_models_have_their_published_parameters(model: str, parameters: int) -> None:
    assert MODELS[model].parameters == parameters


def test_the_buckets_of_resnet50_are_those_of_public_traces() -> None:
    found = buckets(Training(MODELS["resnet50"], 1.0))
    assert [bucket.elements for bucket in found] == [2_049_000, 7_875_584, 6_563_840, 6_637_568, 2_431_040]
    assert sum(bucket.backward_s for bucket in found) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("job", "model", "training", "gb"),
    [  # a ring sends 2 (n - 1) / n of an AllReduce, (n - 1) / n of anything else
        ("ddp", "dit-xl2", {}, 2 * 15 / 16 * 4 * 0.674834720),
        ("ddp", "dit-xl2", {"gradient_bytes": 2}, 2 * 15 / 16 * 2 * 0.674834720),
        ("zero1", "dit-xl2", {}, 15 / 16 * (4 + 2) * 0.674834720),
        ("tp", "llama3-8b", {"group": 16}, 32 * 4 * 2 * 15 / 16 * 4096 * 4096 * 2e-9),
        ("tp", "llama3-8b", {"group": 16, "sequence_parallel": True}, 32 * 4 * 2 * 15 / 16 * 4096 * 4096 * 2e-9),
    ],
)
def test_a_rank_sends_what_the_formula_says(job: str, model: str, training: dict[str, Any], gb: float) -> None:
    assert sent_gb(drawn(job, model, **training)) == pytest.approx(gb, rel=1e-3)


def test_fsdp_gathers_twice_and_scatters_once_and_its_root_is_gathered_once() -> None:
    model = MODELS["llama3-8b"]
    blocks = sum(layer.parameters for layer in model.blocks)
    root = model.parameters - blocks
    expected = 15 / 16 * (2 * (2 * blocks + root) + 2 * model.parameters) / 1e9
    assert sent_gb(drawn("fsdp", "llama3-8b", gradient_bytes=2)) == pytest.approx(expected, rel=1e-3)
    assert expected == pytest.approx(45.2, rel=0.05)


def test_experts_are_sent_four_times_a_layer() -> None:
    schedule = drawn("ep", "mixtral", group=8)
    exchanged: Counter[int] = Counter()
    for flow in schedule.flows:
        if flow.channel == 0:
            exchanged[flow.src] += flow.size_bytes
    assert exchanged[0] / 1e9 == pytest.approx(32 * 4 * 7 / 8 * 4096 * 2 * 4096 * 2e-9, rel=1e-3)


def test_with_skew_the_first_rank_of_experts_receives_so_many_times_the_mean() -> None:
    received: Counter[int] = Counter()
    for flow in draw_up(JOBS["ep"], Training(MODELS["mixtral"], 1.0, group=4, skew=2.0), 4).flows:
        if flow.channel == 0 and flow.step == 0:  # the first exchange of all
            received[flow.dst] += flow.size_bytes
    assert received[0] / received[1] == pytest.approx(3 * 2 / (2 / 3 * 3), rel=1e-3)
    assert sum(shares(8, 3.0)) == pytest.approx(1.0)


def test_a_pipeline_has_the_bubble_of_1f1b() -> None:
    """Of p equal stages and m parts, a step is 1 + (p - 1) / m times what a stage computes."""
    schedule = draw_up(JOBS["pp"], Training(MODELS["dit-xl2"], 1.0, group=4, microbatches=8), 4)
    computing: dict[int, float] = defaultdict(float)
    for compute in schedule.computes:
        computing[compute.rank] += compute.seconds
    assert sum(computing.values()) == pytest.approx(4.0)
    slowest = max(computing.values())
    assert slowest < critical_path_s(schedule) <= slowest * (1 + 3 / 8) * 1.001
    sizes = {flow.size_bytes for flow in schedule.flows if flow.size_bytes == 4096 // 8 * 1152 * 2}
    assert len(sizes) == 1


@pytest.mark.parametrize("job", sorted(JOBS))
def test_every_job_computes_what_it_was_asked_to_in_every_iteration(job: str) -> None:
    model = "mixtral" if job == "ep" else "dit-xl2"
    schedule = drawn(job, model, iterations=2, ranks=4, group=2, update=0.1)
    computing: Counter[tuple[int, int]] = Counter()
    for compute in schedule.computes:
        computing[compute.rank, compute.iteration] += compute.seconds  # type: ignore[assignment]
    each_iteration = {iteration: sum(computing[rank, iteration] for rank in range(4)) for iteration in (0, 1)}
    assert each_iteration == {0: pytest.approx(4.0), 1: pytest.approx(4.0)}
    ends = [max(c.id for c in schedule.computes if c.rank == rank and c.label == "update") for rank in range(4)]
    assert len(ends) == 4 and len(schedule.order) == len(schedule.tasks)


def test_a_straggler_holds_all_in_every_step() -> None:
    training = Training(MODELS["resnet50"], 1.0)
    plain = draw_up(JOBS["ddp"], training, 4, iterations=2)
    slowed = draw_up(JOBS["ddp"], training, 4, iterations=2, scale=Scale(slower={2: 1.5}))
    assert critical_path_s(plain) == pytest.approx(2.0) and critical_path_s(slowed) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("job", "model", "training", "sentence"),
    [
        ("tp", "llama3-8b", {"group": 3}, "group 3 does not divide 16 ranks"),
        ("pp", "gpt2-small", {"group": 16}, "group 16 is more stages than the 14 layers of gpt2-small"),
        ("ep", "llama3-8b", {"group": 4}, "llama3-8b has no experts: use a model such as mixtral"),
        ("ep", "mixtral", {"group": 4, "skew": 5.0}, "skew 5 of 4 ranks: write 1 to 4"),
    ],
)
def test_what_no_job_can_be_is_refused(job: str, model: str, training: dict[str, Any], sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        drawn(job, model, **training)


# As an entry of an experiment


def test_bytes_and_computing_are_scaled_so_that_their_ratio_stays() -> None:
    entry = read_entry({"job": "ddp", "model": "resnet50", "compute": "1s", "scale": 0.1, "network": "400gbit"})
    schedule = entry.schedule(LeafSpine(4, 4, 4, host_rate_bps=50_000_000), "packed", 1)
    computing = sum(each.seconds for each in schedule.computes if each.rank == 0 and each.iteration == 0)
    assert computing == pytest.approx(0.1 * 8000)
    assert sent_gb(schedule) == pytest.approx(2 * 0.1 * 2 * 15 / 16 * 4 * 0.025557032, rel=1e-3)


def test_without_a_time_computing_follows_from_parameters_and_tokens() -> None:
    entry = read_entry({"job": "fsdp", "model": "llama3-8b", "tokens": 8192})
    schedule = entry.schedule(LeafSpine(1, 1, 2), "packed", 1)
    computing = sum(each.seconds for each in schedule.computes if each.rank == 0 and each.iteration == 0)
    assert computing == pytest.approx(6 * 8_030_261_248 * 8192 / 400e12)
    for job, model, sharing in (("tp", "llama3-8b", 2), ("pp", "llama3-8b", 2), ("ep", "mixtral", 1)):
        split = read_entry({"job": job, "model": model, "group": 2, "microbatches": 2})
        tasks = split.schedule(LeafSpine(1, 1, 2), "packed", 1).computes
        work = 6 * MODELS[model].active * 4096 / 400e12 / sharing
        assert sum(each.seconds for each in tasks if each.iteration == 0) == pytest.approx(2 * work)
    with pytest.raises(JobError, match="nothing says how long resnet50 computes: write compute"):
        read_entry({"job": "ddp", "model": "resnet50"}).schedule(LeafSpine(1, 1, 2), "packed", 1)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"job": "dpd", "model": "resnet50"}, "unknown job 'dpd': use one of ddp, fsdp"),
        ({"job": "ddp", "model": "resnet"}, "unknown model 'resnet': use one of resnet50"),
        ({"job": "ddp", "model": "resnet50", "scale": 0}, "0 is not above 0; write a number such as 0.025"),
        ({"job": "ddp", "model": "resnet50", "update": 1}, "1 is not a part of computing"),
        ({"job": "ddp", "model": "resnet50", "algorithm": "rong"}, "unknown algorithm 'rong' of allreduce"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_entry(entry)


def test_several_jobs_are_on_ranks_of_their_own_and_none_waits_for_another() -> None:
    job = {"job": "ddp", "model": "resnet50", "compute": "1s", "ranks": 4}
    both = read_entry({"together": [job, job | {"job": "zero1"}]})
    fabric = LeafSpine(2, 2, 4, host_rate_bps=50_000_000)
    schedule = both.schedule(fabric, "packed", 1)
    alone = [read_entry(each).schedule(fabric, "packed", 1) for each in (job, job | {"job": "zero1"})]
    assert both.label == "ddp-resnet50+zero1-resnet50"
    assert schedule.ranks == 8 and len(schedule.tasks) == sum(len(each.tasks) for each in alone)
    assert [task.id for task in schedule.tasks] == list(range(len(schedule.tasks))) and schedule.order
    tasks = schedule.tasks
    for flow in schedule.flows:
        assert (flow.src < 4) == (flow.dst < 4)
        for other in flow.waits_for:
            earlier = tasks[other]
            assert ((earlier.src if isinstance(earlier, Flow) else earlier.rank) < 4) == (flow.src < 4)
    first = [(f.src, f.dst, f.size_bytes) for f in alone[1].flows]
    assert [(f.src - 4, f.dst - 4, f.size_bytes) for f in schedule.flows if f.src >= 4] == first
    with pytest.raises(ValueError, match="is not a list of 1 to 64 entries"):
        read_entry({"together": []})


def on(places: list[str], ranks: int = 3) -> list[int]:
    """The hosts of two jobs of so many ranks at `places`, on two leaves of four hosts."""
    job = {"job": "ddp", "model": "resnet50", "compute": "1s", "ranks": ranks}
    content = {"together": [job] * len(places), "hosts": places}
    hosts = read_entry(content).schedule(LeafSpine(2, 2, 4), "random", 1).hosts
    assert hosts is not None
    return list(hosts)


@pytest.mark.parametrize(
    ("places", "hosts"),
    [
        (["0-2", "5-7"], [0, 1, 2, 5, 6, 7]),
        (["6,0,4", "packed"], [6, 0, 4, 1, 2, 3]),
        (["packed", "spread"], [0, 1, 2, 3, 4, 5]),
        (["spread", "packed"], [0, 4, 1, 2, 3, 5]),
    ],
)
def test_every_job_lives_where_it_is_put(places: list[str], hosts: list[int]) -> None:
    assert on(places) == hosts


@pytest.mark.parametrize(
    ("places", "ranks", "sentence"),
    [
        (["0-2", "2-4"], 3, "hosts 2-4: host 2 is taken already: a host has one rank"),
        (["0,1,1", "packed"], 3, "hosts 0,1,1: host 1 is taken already"),
        (["0-3", "packed"], 3, "hosts 0-3 are 4, and ddp-resnet50 has 3 ranks: they must be as many"),
        (["6-8", "packed"], 3, "hosts 6-8: the fabric has hosts 0 to 7"),
        (["packed", "spread"], 5, "hosts spread are 3, and ddp-resnet50 has 5 ranks"),
    ],
)
def test_jobs_that_cannot_live_there_are_refused(places: list[str], ranks: int, sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        on(places, ranks)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"hosts": ["0-3", "near"]}, "'near' is no place; write hosts such as 0-7 or 0,4,8-9, or packed or spread"),
        ({"hosts": ["3-0", "packed"]}, "'3-0' is no place"),
        ({"hosts": ["packed"]}, "a list of 1 for 2 entries; write one for each"),
        ({"start": ["1s"]}, "a list of 1 for 2 entries; write one for each"),
    ],
)
def test_places_and_starts_that_are_none_are_refused(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_entry({"together": [{"requests": 4, "clients": 2, "pool": 2}] * 2} | keys)


def test_a_job_that_starts_later_does_everything_so_much_later() -> None:
    job = {"job": "fsdp", "model": "gpt2-small", "compute": "1s", "ranks": 2, "scale": 0.001}
    asked = {"requests": 4, "clients": 1, "pool": 1, "serve": "1s"}
    fabric = LeafSpine(2, 2, 2, 10_000_000, 10_000_000)
    for entry in (job, asked):
        at_once, later = (
            read_entry({"together": [entry], "start": [start]}).schedule(fabric, "packed", 1) for start in ("0s", "2s")
        )
        plans = [plan_traffic(each, fabric, range(each.ranks), scheme_of("spray")) for each in (at_once, later)]
        first, second = (simulate(plan, fabric, choose_spines(plan, fabric, 1)) for plan in plans)
        count = len(at_once.tasks)
        assert read_entry({"together": [entry], "start": ["2s"]}).settings()["start"] == "2.0"
        assert list(second.end_s[:count]) == pytest.approx([end + 2 for end in first.end_s])
