"""The OpenFlow controller, a process of its own that calls `main` with its socket and port.

A thin os-ken application. Over the Unix socket it is told what the fabric is, which seed to hash with and what leaves
do instead, a JSON object a line, and answers each line once every switch has confirmed its table with a barrier. A
switch that holds it already is not told again: of one that connects later, or was there before this process was, it
asks what it holds, and gives it what is in force only if that is something else.
"""

from __future__ import annotations

import json
import logging
import socketserver
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from os_ken import cfg
from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.ofproto import ofproto_v1_3

from controllers.ovs.openflow import Table, flow_count, program, question, switch_table
from controllers.ovs.scheduler import Scheduler
from controllers.tables import Place
from emulator.forwarding import Forwarding, Scheduling, restored
from emulator.topology import SPINE_DPID_BASE, LeafSpine

LOG = logging.getLogger("spraylab.controller")


@dataclass(frozen=True)
class Intent:
    """What every switch should hold: the tables of `fabric`, hashing with `seed`, or what leaves do instead.

    `protected`: for each of its uplinks, a leaf holds another way.
    """

    fabric: LeafSpine
    seed: int
    forwarding: Forwarding | None
    protected: bool = False

    @property
    def switches(self) -> int:
        return self.fabric.leaves + self.fabric.spines

    def is_alike(self, other: Intent, dpid: int) -> bool:
        """Whether both have a switch hold the same: not where it has learned and been told more since."""
        table = self.table(dpid)
        scheduled = any(isinstance(rule.action, Place) for rule in table.rules)
        return table == other.table(dpid) and not scheduled

    def table(self, dpid: int) -> Table:
        rules = switch_table(self.fabric, dpid, self.forwarding)
        return Table(rules, self.seed, self.protected and dpid <= SPINE_DPID_BASE)


class Programmer(app_manager.OSKenApp):
    """Keeps every connected switch at the present intent and knows which have confirmed it."""

    OFP_VERSIONS = (ofproto_v1_3.OFP_VERSION,)
    control_socket: Path

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._changed = threading.Condition()
        self._intent: Intent | None = None
        self._datapaths: dict[int, Any] = {}
        self._awaited: dict[tuple[int, int], Intent] = {}  # (dpid, xid of a barrier or question) -> what it answers
        self._confirmed: dict[int, Intent] = {}
        self._error: str | None = None
        self._scheduler = Scheduler()

    def start(self) -> None:
        super().start()
        server = _ControlServer(str(self.control_socket), _ControlHandler)
        server.programmer = self
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def apply(self, intent: Intent, timeout_s: float) -> str | None:
        """Program every switch and wait for all to confirm. Return what went wrong, or None."""
        if problem := self._scheduler.rest():
            return problem
        with self._changed:
            self._intent, self._error = intent, None
            known = set(self._confirmed)
            alike = [dpid for dpid, before in self._confirmed.items() if intent.is_alike(before, dpid)]
            self._confirmed = dict.fromkeys(alike, intent)
            for dpid, datapath in self._datapaths.items():
                if dpid not in known:
                    self._ask(dpid, datapath)
                elif dpid not in self._confirmed:
                    self._program(dpid, datapath)
            self._changed.wait_for(lambda: self._error or len(self._confirmed) >= intent.switches, timeout_s)
            confirmed = len(self._confirmed)
            if self._error or confirmed < intent.switches:  # nobody knows who holds what
                self._awaited.clear()
                self._confirmed.clear()
                return (
                    self._error or f"{confirmed} of {intent.switches} switches confirmed their table in {timeout_s:g} s"
                )
            if isinstance(intent.forwarding, Scheduling):
                fabric = intent.fabric
                leaves = {leaf: self._datapaths[fabric.leaf_dpid(leaf)] for leaf in range(fabric.leaves)}
                self._scheduler.schedule(fabric, leaves, intent.forwarding.period_s)
            return None

    def _ask(self, dpid: int, datapath: Any) -> None:
        """Find out whether a switch holds its table already."""
        if self._intent is None:
            return
        asked = question(datapath, self._intent.table(dpid))
        datapath.set_xid(asked)
        self._awaited[dpid, asked.xid] = self._intent
        datapath.send_msg(asked)

    def _program(self, dpid: int, datapath: Any) -> None:
        intent = self._intent
        if intent is None:
            return
        messages = program(datapath, intent.fabric, intent.table(dpid))
        for message in messages:
            datapath.set_xid(message)
        self._awaited[dpid, messages[-1].xid] = intent
        for message in messages:
            datapath.send_msg(message)

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def _on_state_change(self, event: Any) -> None:
        datapath, dpid = event.datapath, event.datapath.id
        with self._changed:
            if event.state == MAIN_DISPATCHER:
                LOG.info("switch %#x connected", dpid)
                self._datapaths[dpid] = datapath
                self._ask(dpid, datapath)
            elif self._datapaths.get(dpid) is datapath:
                LOG.info("switch %#x left", dpid)
                del self._datapaths[dpid]
                self._confirmed.pop(dpid, None)

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def _on_barrier(self, event: Any) -> None:
        dpid, xid = event.msg.datapath.id, event.msg.xid
        with self._changed:
            intent = self._awaited.pop((dpid, xid), None)
            if intent is not None and intent is self._intent:
                self._confirmed[dpid] = intent
                self._changed.notify_all()

    @set_ev_cls(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def _on_flow_counters(self, event: Any) -> None:
        self._scheduler.take(event.msg)

    @set_ev_cls(ofp_event.EventOFPAggregateStatsReply, MAIN_DISPATCHER)
    def _on_count(self, event: Any) -> None:
        datapath, found = event.msg.datapath, event.msg.body.flow_count
        with self._changed:
            intent = self._awaited.pop((datapath.id, event.msg.xid), None)
            if intent is None or intent is not self._intent:
                return
            if found == flow_count(datapath, intent.fabric, intent.table(datapath.id)):
                self._confirmed[datapath.id] = intent
                self._changed.notify_all()
            else:
                self._program(datapath.id, datapath)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def _on_error(self, event: Any) -> None:
        message = event.msg
        with self._changed:
            self._error = f"switch {message.datapath.id:#x} refused a rule (type {message.type}, code {message.code})"
            LOG.error(self._error)
            self._changed.notify_all()


class _ControlServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    programmer: Programmer


class _ControlHandler(socketserver.StreamRequestHandler):
    server: _ControlServer

    def handle(self) -> None:
        for line in self.rfile:
            order = json.loads(line)
            content = order["fabric"]
            failed = frozenset((leaf, spine) for leaf, spine in content["failed"])
            fabric = LeafSpine(**{**content, "failed": failed, "spine_rates_bps": tuple(content["spine_rates_bps"])})
            forwarding = restored(order["forwarding"])
            intent = Intent(fabric, order["seed"], forwarding, order["protected"])
            error = self.server.programmer.apply(intent, order["timeout_s"])
            self.wfile.write(json.dumps({"error": error}).encode() + b"\n")


def main(arguments: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s controller %(levelname)s %(message)s")
    Programmer.control_socket = Path(arguments[0])
    cfg.CONF(
        args=["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", arguments[1]],
        project="spraylab",
        default_config_files=[],
        default_config_dirs=[],
    )
    app_manager.AppManager.run_apps(["controllers.ovs.app", "os_ken.controller.ofp_handler"])
