"""Sent packet by packet: exact where that is known, near the fluid where shares are fair, never faster than links."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.ports import shaping_for
from emulator.topology import LeafSpine
from experiments.theory.bound import bound_s
from experiments.theory.capacity import Change
from experiments.theory.fluid import simulate
from experiments.theory.loads import choose_spines, link_capacities_bps
from experiments.theory.packets import simulate_packets
from experiments.theory.prediction import predict_run
from traffic.collectives import COLLECTIVES, ScheduleError, build_schedule
from traffic.placement import PLACEMENTS, place
from traffic.plan import TrafficPlan, plan_traffic
from traffic.schedule import Compute, Flow, Schedule
from traffic.schemes import scheme_of
from traffic.transport import Transport

FABRIC = LeafSpine(4, 4, 4, 50_000_000, 50_000_000)
SEGMENT_BYTES = FABRIC.mtu_bytes - 52
FRAME_S = FABRIC.wire_bytes(SEGMENT_BYTES) * 8 / FABRIC.host_rate_bps
SCHEMES = ("ecmp", "spray", "ethereal", "subflow-4")


def by_hand(flows: Sequence[Flow], computes: Sequence[Compute] = ()) -> Schedule:
    return Schedule("by hand", "by hand", 16, 1, sum(flow.size_bytes for flow in flows), flows, computes=computes)


def planned(
    schedule: Schedule, scheme: str = "ecmp", fabric: LeafSpine = FABRIC, placement: str = "packed"
) -> TrafficPlan:
    return plan_traffic(schedule, fabric, place(placement, fabric, schedule.ranks), scheme_of(scheme))


def sent(
    plan: TrafficPlan,
    fabric: LeafSpine = FABRIC,
    *,
    luck: int = 1,
    transport: Transport | None = None,
    changes: Sequence[Change] = (),
) -> float | None:
    spines = choose_spines(plan, fabric, 1)
    return simulate_packets(plan, fabric, spines, random.Random(luck), transport=transport, changes=changes)


def frames(count: int) -> int:
    return count * SEGMENT_BYTES


@pytest.mark.parametrize("dst", [1, 5])
def test_a_flow_alone_takes_a_frame_s_time_for_each_but_those_in_a_full_bucket(dst: int) -> None:
    assert sent(planned(by_hand([Flow(0, 0, dst, frames(100))]))) == pytest.approx(98 * FRAME_S)


def test_flows_to_one_host_take_turns_on_its_link() -> None:
    flows = [Flow(0, 1, 0, frames(50)), Flow(1, 2, 0, frames(50))]
    assert sent(planned(by_hand(flows))) == pytest.approx(98 * FRAME_S)


def test_a_connection_that_is_held_elsewhere_leaves_its_host_s_link_to_the_others() -> None:
    fabric = replace(FABRIC, fabric_rate_bps=FABRIC.host_rate_bps // 10)
    plan = planned(by_hand([Flow(0, 0, 5, frames(100)), Flow(1, 0, 1, frames(900))]), fabric=fabric)
    assert sent(plan, fabric) == pytest.approx(1000 * FRAME_S, rel=0.02)


def test_what_waits_starts_no_sooner_and_about_a_frame_later_at_most() -> None:
    computes = [Compute(2, 0, 1.0, (0,))]
    flows = [Flow(0, 0, 1, frames(10)), Flow(1, 0, 1, frames(10), waits_for=(2,))]
    took = sent(planned(by_hand(flows, computes)))
    assert took is not None
    assert 1.0 + 16 * FRAME_S - 1e-9 <= took <= 1.0 + 18 * FRAME_S + 1e-9
    later = by_hand([Flow(0, 0, 1, frames(10)), Flow(1, 2, 3, frames(10), start_s=2.0)])
    assert sent(planned(later)) == pytest.approx(2.0 + 8 * FRAME_S)


def test_a_flow_without_bytes_and_one_within_a_host_take_no_time() -> None:
    flows = [Flow(0, 0, 1, 0), Flow(1, 2, 3, frames(10_000), waits_for=(0,))]
    plan = replace(planned(by_hand(flows)), hosts=range(16))
    alone = replace(plan, connections=[replace(made, dst_host=made.src_host) for made in plan.connections])
    took = sent(alone)
    assert took is not None and took <= FRAME_S


def test_a_link_that_is_slower_for_a_while_holds_what_crosses_it() -> None:
    plan = planned(by_hand([Flow(0, 0, 5, frames(100))]))
    half = Change(50 * FRAME_S, link_capacities_bps(FABRIC) / 2)
    assert sent(plan, changes=[half]) == pytest.approx((50 + 2 * 48) * FRAME_S, rel=0.05)


def test_a_queue_that_overflows_has_no_answer() -> None:
    many = by_hand([Flow(number, number + 1, 0, frames(50)) for number in range(15)])
    shallow = replace(FABRIC, queue_bytes=frames(40))
    assert sent(planned(many)) is not None
    assert sent(planned(many, fabric=shallow), shallow, transport=Transport(windows="default")) is None
    assert sent(planned(many, fabric=shallow), shallow) is not None  # fitted to half of it


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_even_load_takes_what_fair_shares_take(scheme: str) -> None:
    schedule = build_schedule("permutation", ranks=16, size_bytes=4_000_000, channels=4, shift=4)
    plan = planned(schedule, scheme)
    fluid_s = simulate(plan, FABRIC, choose_spines(plan, FABRIC, 1)).cct_s
    assert sent(plan) == pytest.approx(fluid_s, rel=0.02)


def test_luck_is_all_that_differs() -> None:
    plan = planned(build_schedule("allreduce", "double-binary-tree", ranks=16, size_bytes=4_000_000), "ethereal")
    assert sent(plan) == sent(plan)
    assert len({sent(plan, luck=luck) for luck in range(4)}) > 1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(COLLECTIVES)),
    scheme=st.sampled_from(SCHEMES),
    placement=st.sampled_from(PLACEMENTS),
    shape=st.sampled_from([(2, 2, 2), (4, 1, 2), (2, 4, 4)]),
    size_bytes=st.integers(1, 400_000),
    burst_frames=st.integers(1, 3),
)
def test_no_plan_is_sent_faster_than_its_links_and_full_buckets_allow(
    kind: str, scheme: str, placement: str, shape: tuple[int, int, int], size_bytes: int, burst_frames: int
) -> None:
    fabric = LeafSpine(*shape, burst_frames=burst_frames)
    try:
        schedule = build_schedule(kind, ranks=fabric.hosts, size_bytes=size_bytes)
    except ScheduleError:
        return
    hosts = place(placement, fabric, schedule.ranks)
    plan = plan_traffic(schedule, fabric, hosts, scheme_of(scheme))
    took = sent(plan, fabric)
    steps = 1 + max(flow.step for flow in schedule.flows)
    # Each step may find each of four buckets on its way full.
    gift_s = 4 * steps * shaping_for(fabric.host_rate_bps, fabric).burst_bytes * 8 / fabric.host_rate_bps
    assert took is not None and took >= bound_s(schedule, fabric, hosts) - gift_s


# In the range of a prediction


def test_a_range_holds_what_packets_take_and_never_begins_below_the_bound() -> None:
    schedule = build_schedule("allgather", "recursive-doubling", ranks=16, size_bytes=4_000_000)
    plan = planned(schedule, "subflow-4", placement="interleaved")
    spines = choose_spines(plan, FABRIC, 1)
    took = [simulate_packets(plan, FABRIC, spines, random.Random(f"1/{time}")) for time in range(3)]
    told = predict_run(plan, FABRIC, 1)
    assert told is not None and told.low_s is not None and told.high_s is not None
    least_s = bound_s(schedule, FABRIC, plan.hosts)
    assert least_s * (1 - 1e-9) <= told.low_s
    assert all(each is not None and told.low_s <= max(each, least_s) <= told.high_s for each in took)


def test_packets_tell_of_acknowledgements_that_go_first_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(build_schedule("alltoall", ranks=16, size_bytes=400_000))
    monkeypatch.setattr("experiments.theory.prediction.simulate_packets", lambda *_, **__: 1000.0)
    ways = Transport(), Transport(acknowledgements="in-turn")
    first, in_turn = (predict_run(plan, FABRIC, 1, transport=way) for way in ways)
    assert first is not None and first.high_s == 1000.0
    assert in_turn is not None and in_turn.high_s is not None and in_turn.high_s < 10.0
