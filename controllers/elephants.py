"""Where Hedera puts large flows (Al-Fares et al., NSDI 2010): demand estimation and global first fit.

Demands are what flows would send if the fabric were no limit, as shares of a host's rate: senders split theirs evenly,
receivers that are asked for more than they take cap what comes, and senders give what is capped to their other flows,
until nothing changes. A flow of more than a tenth is an elephant, and takes the first spine whose two links have room
for its demand beside those placed before it. What finds no room, as all smaller flows, stays where the hash puts it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from emulator.topology import LeafSpine

ELEPHANT_SHARE = 0.1
"""Of a host's rate: a flow that would send more is worth a place of its own."""

_TOLERANCE = 1e-9
_Flow = TypeVar("_Flow", bound=Hashable)


@dataclass
class _Estimate:
    """What is known of a flow's demand; `settled` once its receiver has capped it."""

    src: int
    dst: int
    share: float = 0.0
    settled: bool = False


def demands(ends: Sequence[tuple[int, int]]) -> list[float]:
    """Estimate the demand of each flow, given as its sender and its receiver, as a share of a host's rate."""
    flows = [_Estimate(src, dst) for src, dst in ends]
    by_sender: dict[int, list[_Estimate]] = defaultdict(list)
    by_receiver: dict[int, list[_Estimate]] = defaultdict(list)
    for flow in flows:
        by_sender[flow.src].append(flow)
        by_receiver[flow.dst].append(flow)
    settled = False
    while not settled:
        before = [flow.share for flow in flows]
        for sent in by_sender.values():
            _split(sent)
        for received in by_receiver.values():
            _cap(received)
        settled = all(abs(flow.share - share) < _TOLERANCE for flow, share in zip(flows, before, strict=True))
    return [flow.share for flow in flows]


def _split(sent: Sequence[_Estimate]) -> None:
    """Have a sender split evenly what its settled flows leave."""
    free = [flow for flow in sent if not flow.settled]
    left = max(0.0, 1 - sum(flow.share for flow in sent if flow.settled))
    for flow in free:
        flow.share = left / len(free)


def _cap(received: Sequence[_Estimate]) -> None:
    """Have a receiver that is asked for too much cap the largest of its flows alike."""
    if sum(flow.share for flow in received) <= 1 + _TOLERANCE:
        return
    left, rest = 1.0, sorted(received, key=lambda flow: flow.share)
    while rest[0].share < left / len(rest) - _TOLERANCE:
        left -= rest.pop(0).share
    for flow in rest:
        flow.share, flow.settled = left / len(rest), True


def placed(
    flows: Mapping[_Flow, tuple[int, int]], fabric: LeafSpine, kept: Mapping[_Flow, int] | None = None
) -> dict[_Flow, int]:
    """Place the elephants among `flows`, each a sender and a receiver: the spine of each that finds room.

    Those of `kept` stay on their spine, if it is alive and has room for what they demand now: to move is to reorder.
    """
    kept = kept or {}
    room: dict[tuple[int, int, bool], float] = defaultdict(
        float
    )  # what is taken of each link, by leaf, spine and whether upwards
    found: dict[_Flow, int] = {}
    elephants = [
        (flow, fabric.leaf_of(src), fabric.leaf_of(dst), share)
        for (flow, (src, dst)), share in zip(flows.items(), demands(list(flows.values())), strict=True)
        if share > ELEPHANT_SHARE and fabric.leaf_of(src) != fabric.leaf_of(dst)
    ]
    for flow, near, far, share in sorted(elephants, key=lambda each: each[0] not in kept):
        live = fabric.live_spines(near, far)
        order = [spine for spine in [kept[flow]] if spine in live] if flow in kept else []
        for spine in [*order, *live]:
            up, down = (near, spine, True), (far, spine, False)
            if max(room[up], room[down]) + share <= fabric.spine_rate_bps(spine) / fabric.host_rate_bps + _TOLERANCE:
                room[up] += share
                room[down] += share
                found[flow] = spine
                break
    return found
