"""What the bytes of a replay are: anything at all, or real numbers whose sums are checked at the end."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from traffic.plan import Piece, TrafficPlan
from traffic.promises import check_buffer, initial_buffer
from traffic.schedule import Flow

CHUNK_BYTES = 1 << 20


class Anything:
    """Zeros; what arrives is dropped by the kernel instead of copied (MSG_TRUNC, tcp(7))."""

    receive_flags: int = socket.MSG_TRUNC

    def __init__(self) -> None:
        self._zeros = memoryview(bytes(CHUNK_BYTES))

    def release(self, piece: Piece) -> None:
        """`piece` is next on its subflow, and everything its flow waits for has arrived."""

    def next(self, connection: int, limit: int) -> memoryview:
        """At most `limit` of the bytes that `subflow` is to send next."""
        return self._zeros[:limit]

    def sent(self, connection: int, count: int) -> None:
        """The first `count` of them are on their way."""

    def arrived(self, flow: int, offset: int, data: memoryview) -> None:
        """Bytes of `flow` from `offset` on; not called where `receive_flags` had the kernel drop them."""

    def complete(self, flow: int) -> None:
        """All of `flow` has arrived."""

    def problems(self, ranks: Iterable[int]) -> list[str] | None:
        """What is wrong with the buffers of `ranks` now that the collective has ended; None where nobody looked."""
        return None


class RealData(Anything):
    """int32 from a seed in every rank's buffer; flows copy or add them as the schedule says (traffic.promises)."""

    receive_flags = 0

    def __init__(self, plan: TrafficPlan, seed: int) -> None:
        """Raises ScheduleError for a schedule that promises nothing of its data."""
        self._schedule, self._seed = plan.schedule, seed
        self._flows: Sequence[Flow] = plan.schedule.flows
        self._buffers = [initial_buffer(plan.schedule, rank, seed) for rank in range(plan.schedule.ranks)]
        self._outgoing: list[deque[memoryview]] = [deque() for _ in plan.connections]
        self._incoming: dict[int, bytearray] = {}

    def release(self, piece: Piece) -> None:
        flow = self._flows[piece.flow]
        start = flow.src_offset_bytes + piece.offset_bytes
        # A copy: what follows may arrive in the same place before the last of this has left.
        data = self._buffers[flow.src].view(np.uint8)[start : start + piece.size_bytes].tobytes()
        self._outgoing[piece.connection].append(memoryview(data))

    def next(self, connection: int, limit: int) -> memoryview:
        return self._outgoing[connection][0][:limit]

    def sent(self, connection: int, count: int) -> None:
        queue = self._outgoing[connection]
        rest = queue.popleft()[count:]
        if rest:
            queue.appendleft(rest)

    def arrived(self, flow: int, offset: int, data: memoryview) -> None:
        landing = self._incoming.setdefault(flow, bytearray(self._flows[flow].size_bytes))
        landing[offset : offset + len(data)] = data

    def complete(self, flow: int) -> None:
        whole = self._flows[flow]
        place = slice(whole.dst_offset_bytes, whole.dst_offset_bytes + whole.size_bytes)
        target = self._buffers[whole.dst].view(np.uint8)[place]
        data = np.frombuffer(self._incoming.pop(flow, b""), np.uint8)  # nothing ever arrives of a flow of no bytes
        if whole.reduce:
            target.view(np.int32)[:] += data.view(np.int32)
        else:
            target[:] = data

    def problems(self, ranks: Iterable[int]) -> list[str]:
        checked = (check_buffer(self._schedule, rank, self._buffers[rank], self._seed) for rank in ranks)
        return [problem for problem in checked if problem]
