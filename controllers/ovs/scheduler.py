"""Hedera's controller for Open vSwitch: a thread of the OpenFlow controller that polls flow counters.

Leaves learn a rule for every connection that comes from their hosts, which does nothing but count. Every period each is
asked for those counts (flow statistics of OpenFlow), and told what `controllers.rounds` makes of them: an exact rule
above all others for every connection that is placed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

from controllers.ovs.openflow import COUNTED_TABLE, placement
from controllers.rounds import Change, FiveTuple, Rounds
from emulator.errors import EmulatorError
from emulator.topology import LeafSpine

_REPLY_TIMEOUT_S = 5.0


class Scheduler:
    """The scheduling thread; it polls from `schedule` to `rest`. Replies are for `take`."""

    def __init__(self) -> None:
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._resting = threading.Event()
        self._thread: threading.Thread | None = None
        self._problem: str | None = None

    def schedule(self, fabric: LeafSpine, leaves: Mapping[int, Any], period_s: float) -> None:
        """Begin to place connections; `leaves` are the connections to switches, which hold their tables."""
        self._resting.clear()
        self._replies = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._poll, args=(fabric, leaves, period_s), daemon=True)
        self._thread.start()

    def rest(self) -> str | None:
        """Change nothing any more. Return what a round failed of, if one did."""
        self._resting.set()
        self._replies.put(None)
        if self._thread:
            self._thread.join()
        problem, self._thread, self._problem = self._problem, None, None
        return problem

    @property
    def polls(self) -> bool:
        """Whether it polls: it has been told to, and no round has failed."""
        return self._thread is not None and self._thread.is_alive()

    def take(self, reply: Any) -> None:
        """Take a switch's reply, or a part of it, to what it was asked last."""
        self._replies.put(reply)

    def _poll(self, fabric: LeafSpine, leaves: Mapping[int, Any], period_s: float) -> None:
        """Place connections every period."""
        rounds, due_s = Rounds(fabric), time.monotonic() + period_s
        try:
            while not self._resting.wait(max(0.0, due_s - time.monotonic())):
                rounds.begin()
                sent_bytes = self._sent_bytes(fabric, leaves)
                if sent_bytes is None:
                    return
                for leaf, change in rounds.decide(sent_bytes).items():
                    _tell(leaves[leaf], fabric, change)
                rounds.end()
                due_s = max(due_s + period_s, time.monotonic())
        except EmulatorError as error:
            self._problem = str(error)

    def _sent_bytes(self, fabric: LeafSpine, leaves: Mapping[int, Any]) -> dict[FiveTuple, int] | None:
        """Ask all leaves; None: to rest comes first. Raises EmulatorError if one does not answer in time."""
        awaited: dict[int, int] = {}
        for leaf, datapath in leaves.items():
            request = datapath.ofproto_parser.OFPFlowStatsRequest(datapath, table_id=COUNTED_TABLE)
            datapath.set_xid(request)
            awaited[request.xid] = leaf
            datapath.send_msg(request)
        sent_bytes: dict[FiveTuple, int] = {}
        deadline_s = time.monotonic() + _REPLY_TIMEOUT_S
        while awaited:
            try:
                reply = self._replies.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                silent = ", ".join(fabric.leaf_name(leaf) for leaf in awaited.values())
                raise EmulatorError(f"no flow counters from {silent} in {_REPLY_TIMEOUT_S:g} s") from None
            if reply is None:
                return None
            if reply.xid in awaited:
                sent_bytes.update(_counts(reply))
                if not reply.flags & reply.datapath.ofproto.OFPMPF_REPLY_MORE:
                    del awaited[reply.xid]
        return sent_bytes


def _counts(reply: Any) -> dict[FiveTuple, int]:
    """What each connection has sent, from its own rule; the one that learns the others is of none."""
    matches = ((dict(rule.match.items()), rule.byte_count) for rule in reply.body)
    return {
        (match["ipv4_src"], match["ipv4_dst"], match["tcp_src"], match["tcp_dst"]): count
        for match, count in matches
        if "tcp_src" in match
    }


def _tell(datapath: Any, fabric: LeafSpine, change: Change) -> None:
    """What takes the place of another placement does so at once."""
    for flow in change.before.keys() - change.now.keys():
        datapath.send_msg(placement(datapath, fabric, flow, None))
    for flow, spine in change.now.items():
        if change.before.get(flow) != spine:
            datapath.send_msg(placement(datapath, fabric, flow, spine))
