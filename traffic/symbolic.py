"""Does a schedule keep its collective's promise? Played on symbols, whatever order the network delivers in.

`prove` shows it for every order: no two flows that touch the same bytes are left unordered, so that all legal orders
end alike, and one legal order ends as promised (traffic/promises.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from random import Random

from traffic.collectives.collective import Contents, Holding
from traffic.collectives.layout import Span, SpanMap
from traffic.promises import buffer_bytes, promise_of
from traffic.schedule import Flow, Schedule


class PromiseError(ValueError):
    """A schedule that can end with something else than its collective promises; the message says where."""


def prove(schedule: Schedule) -> None:
    """Raise PromiseError unless every legal order of the flows ends with what the collective promises."""
    check_any_order(schedule)
    check_promise(schedule)


def check_promise(schedule: Schedule, seed: int = 0) -> None:
    """Play the flows in one random legal order and compare what each rank ends with to what it is promised."""
    holdings = play(schedule, seed)
    for rank, held in enumerate(holdings):
        for span, due in promise_of(schedule).due(schedule, rank):
            for part, contents in held.get(span):
                if contents != due:
                    raise PromiseError(
                        f"{schedule.collective} by {schedule.algorithm}: bytes {_bytes(part)} of rank {rank} end with "
                        f"{_describe(part, contents)} instead of {_describe(part, due)}"
                    )


def play(schedule: Schedule, seed: int = 0) -> list[SpanMap[Contents]]:
    """What each rank holds after all flows, started and finished in a random order that respects what waits for what.

    Raises PromiseError for a flow that sends bytes its rank does not hold, whose bytes change while they are being
    sent, that adds a contribution a second time or overwrites one with less, and when no flow can proceed.
    """
    _check_shape(schedule)
    holdings: list[SpanMap[Contents]] = [SpanMap(frozenset()) for _ in range(schedule.ranks)]
    for rank, held in enumerate(holdings):
        for span, contents in promise_of(schedule).held(schedule, rank):
            held.put(span, contents)

    random = Random(seed)
    missing = [len(set(flow.waits_for)) for flow in schedule.flows]
    waiting: defaultdict[int, list[int]] = defaultdict(list)
    for flow in schedule.flows:
        for earlier in set(flow.waits_for):
            waiting[earlier].append(flow.id)
    sending: dict[int, Holding] = {}
    choices = [flow.id for flow in schedule.flows if not missing[flow.id]]
    while choices:
        place = random.randrange(len(choices))
        flow = schedule.flows[choices[place]]
        if flow.id not in sending:
            sending[flow.id] = _start(flow, holdings)
            continue
        choices[place] = choices[-1]
        choices.pop()
        _finish(flow, sending.pop(flow.id), holdings)
        for later in waiting[flow.id]:
            missing[later] -= 1
            if not missing[later]:
                choices.append(later)
    stuck = [flow for flow in schedule.flows if missing[flow.id]]
    if stuck:
        raise PromiseError(
            f"{len(stuck)} flows can never start, the first {_name(stuck[0])}, "
            f"which waits for {', '.join(map(str, stuck[0].waits_for))}"
        )
    return holdings


def check_any_order(schedule: Schedule) -> None:
    """Raise PromiseError if two flows touch the same bytes of a rank and it matters which comes first, yet neither
    waits, directly or through others, for the other. Two that only read, or only add, may come in any order.
    """
    _check_shape(schedule)
    before: list[int] = []  # one bit for every flow that has arrived once this one starts
    touches: list[list[tuple[Span, str, int]]] = [[] for _ in range(schedule.ranks)]
    for flow in schedule.flows:
        arrived = 0
        for earlier in flow.waits_for:
            if earlier >= flow.id:
                raise PromiseError(f"{_name(flow)} waits for flow {earlier}, which is listed after it")
            arrived |= before[earlier] | 1 << earlier
        before.append(arrived)
        touches[flow.src].append((_sent(flow), "read", flow.id))
        touches[flow.dst].append((_landed(flow), "add" if flow.reduce else "write", flow.id))
    for rank, accesses in enumerate(touches):
        for (span, kind, first), (other_span, other_kind, second) in _overlapping(accesses):
            early, late = sorted((first, second))
            if (kind != other_kind or kind == "write") and not before[late] >> early & 1:
                both = range(max(span.start, other_span.start), min(span.stop, other_span.stop))
                raise PromiseError(
                    f"{_name(schedule.flows[late])} does not wait for {_name(schedule.flows[early])}, "
                    f"though both touch bytes {_bytes(both)} of rank {rank}"
                )


def _overlapping(
    accesses: list[tuple[Span, str, int]],
) -> Iterator[tuple[tuple[Span, str, int], tuple[Span, str, int]]]:
    """Every pair of accesses that share a byte."""
    accesses = sorted(accesses, key=lambda access: access[0].start)
    for place, access in enumerate(accesses):
        for other in accesses[place + 1 :]:
            if other[0].start >= access[0].stop:
                break
            yield access, other


def _check_shape(schedule: Schedule) -> None:
    sizes = [buffer_bytes(schedule, rank) for rank in range(schedule.ranks)]
    for place, flow in enumerate(schedule.flows):
        if flow.id != place:
            raise PromiseError(f"flow {flow.id} is listed at place {place}")
        if not (0 <= flow.src < schedule.ranks and 0 <= flow.dst < schedule.ranks and flow.src != flow.dst):
            raise PromiseError(f"{_name(flow)} is not between two of the {schedule.ranks} ranks")
        if flow.size_bytes < 1:
            raise PromiseError(f"{_name(flow)} carries {flow.size_bytes} bytes")
        if flow.src_offset_bytes < 0 or _sent(flow).stop > sizes[flow.src]:
            raise PromiseError(f"{_name(flow)} leaves the {sizes[flow.src]} bytes of its sender's buffer")
        if flow.dst_offset_bytes < 0 or _landed(flow).stop > sizes[flow.dst]:
            raise PromiseError(f"{_name(flow)} leaves the {sizes[flow.dst]} bytes of its receiver's buffer")
        if any(not 0 <= earlier < len(schedule.flows) for earlier in flow.waits_for):
            raise PromiseError(f"{_name(flow)} waits for a flow that is not listed")


def _start(flow: Flow, holdings: list[SpanMap[Contents]]) -> Holding:
    carried = holdings[flow.src].get(_sent(flow))
    for part, contents in carried:
        if not contents:
            raise PromiseError(f"{_name(flow)} sends bytes {_bytes(part)}, which rank {flow.src} does not hold yet")
    return carried


def _finish(flow: Flow, carried: Holding, holdings: list[SpanMap[Contents]]) -> None:
    moved_by = flow.dst_offset_bytes - flow.src_offset_bytes
    for part, contents in carried:
        if any(now != contents for _, now in holdings[flow.src].get(part)):
            raise PromiseError(f"bytes {_bytes(part)} of rank {flow.src} change while {_name(flow)} sends them")
        brought = frozenset((origin, offset - moved_by) for origin, offset in contents)
        for landing, held in holdings[flow.dst].get(range(part.start + moved_by, part.stop + moved_by)):
            if flow.reduce and held & brought:
                twice = _describe(landing, held & brought)
                raise PromiseError(f"{_name(flow)} adds {twice} to rank {flow.dst} a second time")
            if not flow.reduce and held - brought:
                lost = _describe(landing, held - brought)
                raise PromiseError(f"{_name(flow)} overwrites {lost} at rank {flow.dst}, which it does not bring")
            holdings[flow.dst].put(landing, held | brought)


def _sent(flow: Flow) -> Span:
    return range(flow.src_offset_bytes, flow.src_offset_bytes + flow.size_bytes)


def _landed(flow: Flow) -> Span:
    return range(flow.dst_offset_bytes, flow.dst_offset_bytes + flow.size_bytes)


def _name(flow: Flow) -> str:
    return f"flow {flow.id} (rank {flow.src} -> {flow.dst}, bytes {_bytes(_sent(flow))})"


def _bytes(span: Span) -> str:
    return f"{span.start}-{span.stop - 1}"


def _describe(span: Span, contents: Contents) -> str:
    ranks: defaultdict[int, list[int]] = defaultdict(list)
    for rank, offset in sorted(contents):
        ranks[offset].append(rank)
    parts = [
        f"bytes {_bytes(range(span.start + offset, span.stop + offset))} of ranks {', '.join(map(str, origins))}"
        for offset, origins in ranks.items()
    ]
    return " and ".join(parts) or "nothing"
