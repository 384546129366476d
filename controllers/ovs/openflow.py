"""Forwarding tables as OpenFlow 1.3 messages of Open vSwitch.

The hash is Nicira's `multipath` action: unlike a select group's, its result follows from the packet and a basis alone,
so a seed fixes every path, on both datapaths of Open vSwitch. It writes the choice into a register, and a second table
(one for each set of live spines) sends each choice to its port.

What changes from packet to packet has to be remembered, and the one thing that OpenFlow lets a packet write for the
next one, without asking anybody, is its connection's mark in the connection tracker (ovs-actions(7), `ct`). Under
`Rotate` it is where the last packet went, spine + 1; each leaf has a zone of its own, as all may share one datapath.
The userspace datapath does each action to up to 32 waiting packets before the next action, so that of one connection
all would read the same mark; a test of a packet's length is the action that it does to each packet alone, together with
all that follows.

Under `Place` leaves learn a rule for every connection, which counts it (ovs-actions(7), `learn`); where a connection is
placed, an exact rule comes before all others.

A protected leaf sends up by fast-failover groups, one a spine: to that spine, or else the next one whose signal, a port
of its own that carries nothing, is up. What waits at a real port would be lost uncounted if that were set down.

Every flow bears a cookie that is a digest of its whole table: so a controller that has come back finds out, by
counting, whether a switch holds what it should.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

from os_ken.ofproto import nicira_ext
from os_ken.ofproto.ofproto_common import NX_EXPERIMENTER_ID

from controllers.rounds import FiveTuple
from controllers.tables import (
    Action,
    Deliver,
    Downlink,
    Drop,
    Hash,
    Place,
    Redraw,
    Rotate,
    Rule,
    Uplink,
    leaf_table,
    spine_table,
)
from emulator.forwarding import Forwarding
from emulator.topology import SPINE_DPID_BASE, LeafSpine

COUNTED_TABLE = 0xFD  # the last that Open vSwitch leaves to others: a rule a connection, of those from a leaf's hosts

_IPV4 = {"eth_type": 0x0800}  # asked for before anything that only IPv4 has
_TCP = _IPV4 | {"ip_proto": 6}
_PLACED_PRIORITY = 0xFFFF
_FORGOTTEN_S = 60  # a connection that has been silent for so long is learned anew
_COMMIT = 1  # of the flags of `ct`
_BUNDLE = 1  # one at a time
_NO_TABLE = 0xFF  # `ct` goes on with the next action
CHECK_PKT_LARGER = 49  # of Nicira's actions; os-ken has no name for it
_REGISTER_2 = 0x00010404  # as NXM names it: class 1, field 2, 4 bytes
_WHOLE_COOKIE = (1 << 64) - 1
_FIRST_SIGNAL = 1 << 12  # of a leaf's ports, above all that carry packets


def switch_table(fabric: LeafSpine, dpid: int, forwarding: Forwarding | None = None) -> list[Rule]:
    """Return the table of the switch with this datapath id."""
    if dpid > SPINE_DPID_BASE:
        return spine_table(fabric)
    return leaf_table(fabric, dpid - 1, forwarding)


def signal_port(spine: int) -> int:
    """Return the number of the port of a protected leaf that is down when its uplink to `spine` is."""
    return _FIRST_SIGNAL + spine


@dataclass(frozen=True)
class Table:
    """What a switch is to hold: `rules`, hashing with `seed`; if `protected`, for each uplink of a leaf another way."""

    rules: Sequence[Rule]
    seed: int
    protected: bool = False

    @property
    def cookie(self) -> int:
        """The cookie of all its flows."""
        content = repr((list(self.rules), self.seed, self.protected)).encode()
        return int.from_bytes(blake2b(content, digest_size=7).digest(), "big")


def program(datapath: Any, fabric: LeafSpine, table: Table) -> list[Any]:
    """Make the messages that replace whatever `datapath` holds by `table`, ending with a barrier request.

    They are one transaction (a bundle, as ONF's extension 230 adds to OpenFlow 1.3): no packet meets half of a table.
    """
    return _Program(datapath, fabric, table).messages()


def question(datapath: Any, table: Table) -> Any:
    """Make the request that has `datapath` count which of its flows are of `table`: all, if `flow_count` are."""
    ofp, parser = datapath.ofproto, datapath.ofproto_parser
    return parser.OFPAggregateStatsRequest(
        datapath, 0, ofp.OFPTT_ALL, ofp.OFPP_ANY, ofp.OFPG_ANY, table.cookie, _WHOLE_COOKIE, parser.OFPMatch()
    )


def flow_count(datapath: Any, fabric: LeafSpine, table: Table) -> int:
    """Return how many flows `table` makes."""
    return len(list(_Program(datapath, fabric, table).flows()))


class _Program:
    """What `program` makes: the table of rules, and a table for each set of spines that one of them chooses among."""

    def __init__(self, datapath: Any, fabric: LeafSpine, table: Table) -> None:
        self._datapath, self._ofp, self._parser = datapath, datapath.ofproto, datapath.ofproto_parser
        self._fabric, self._rules, self._seed = fabric, table.rules, table.seed
        self._protected, self._cookie = table.protected, table.cookie
        choices = (rule.action for rule in table.rules if isinstance(rule.action, Hash | Rotate | Place))
        self._tables = {action: 1 + number for number, action in enumerate(dict.fromkeys(choices))}
        self._tracks = any(isinstance(action, Rotate) for action in self._tables)

    def messages(self) -> list[Any]:
        ofp, datapath, parser = self._ofp, self._datapath, self._parser
        control = partial(parser.ONFBundleCtrlMsg, datapath, _BUNDLE, flags=_all_at_once(ofp), properties=[])
        return [
            control(type_=ofp.ONF_BCT_OPEN_REQUEST),
            *(parser.ONFBundleAddMsg(datapath, _BUNDLE, _all_at_once(ofp), change, []) for change in self._changes()),
            control(type_=ofp.ONF_BCT_COMMIT_REQUEST),
            parser.OFPBarrierRequest(datapath),
        ]

    def _changes(self) -> Iterator[Any]:
        ofp, parser = self._ofp, self._parser
        yield parser.OFPFlowMod(
            self._datapath,
            command=ofp.OFPFC_DELETE,
            table_id=ofp.OFPTT_ALL,
            out_port=ofp.OFPP_ANY,
            out_group=ofp.OFPG_ANY,
        )
        if self._protected:
            yield parser.OFPGroupMod(self._datapath, ofp.OFPGC_DELETE, ofp.OFPGT_ALL, ofp.OFPG_ALL, [])
            yield from map(self._failover, self._uplinks())
        yield from self.flows()

    def _uplinks(self) -> list[int]:
        """The spines that it sends to."""
        return sorted({rule.action.spine for rule in self._rules if isinstance(rule.action, Uplink)})

    def _failover(self, spine: int) -> Any:
        """Send to `spine`, or else to the next one that can be reached."""
        uplinks, parser, ofp = self._uplinks(), self._parser, self._ofp
        place = uplinks.index(spine)
        buckets = [
            parser.OFPBucket(
                watch_port=signal_port(each),
                watch_group=ofp.OFPG_ANY,
                actions=[self._output(self._fabric.leaf_port_to_spine(each))],
            )
            for each in (*uplinks[place:], *uplinks[:place])
        ]
        return parser.OFPGroupMod(self._datapath, ofp.OFPGC_ADD, ofp.OFPGT_FF, _group(spine), buckets)

    def flows(self) -> Iterator[Any]:
        """Return the messages that add its flows."""
        for rank, rule in enumerate(self._rules):
            yield self._flow(0, len(self._rules) - rank, _match(rule), self._instructions(rule.action))
        for action, table in self._tables.items():
            yield from self._rotated(action, table) if isinstance(action, Rotate) else self._hashed(action, table)
        if any(isinstance(action, Place) for action in self._tables):
            yield self._flow(COUNTED_TABLE, 1, _TCP, self._apply(self._learn()))

    def _instructions(self, action: Action) -> list[Any]:
        """What a rule of the first table does."""
        fabric, parser = self._fabric, self._parser
        match action:
            case Deliver(host):
                # The connection tracker wants to see both directions, and how a connection begins.
                seen = [self._keep()] if self._tracks else []
                mac = parser.OFPActionSetField(eth_dst=fabric.host_mac(host))
                return self._apply(*seen, mac, self._output(fabric.leaf_port_to_host(host)))
            case Uplink(spine):
                return self._apply(self._up(spine))
            case Downlink(leaf):
                return self._apply(self._output(fabric.spine_port_to_leaf(leaf)))
            case Hash(spines):
                go_on = parser.OFPInstructionGotoTable(self._tables[action])
                return [*self._apply(self._choose(len(spines))), go_on]
            case Rotate():
                return self._apply(self._one_by_one(), self._track(self._tables[action]))
            case Place(spines):
                go_on = parser.OFPInstructionGotoTable(self._tables[action])
                return [*self._apply(_count(parser), self._choose(len(spines))), go_on]
            case Drop() | Redraw():  # nobody asks Open vSwitch for the latter
                return []

    def _hashed(self, action: Hash | Place, table: int) -> list[Any]:
        """Send each choice to its port."""
        return [
            self._flow(table, 1, {"reg0": choice}, self._apply(self._up(spine)))
            for choice, spine in enumerate(action.spines)
        ]

    def _rotated(self, action: Rotate, table: int) -> list[Any]:
        """Send what has a mark to the spine after it; have the rest hashed, and come by once more."""
        parser, spines = self._parser, action.spines
        again = parser.NXActionResubmitTable(table_id=table)
        hashed = self._apply(parser.OFPActionSetField(reg1=1), self._choose(len(spines)), again)
        return [
            *(
                self._flow(table, 3, _IPV4 | {"reg1": 1, "reg0": choice}, self._apply(*self._marked(spine)))
                for choice, spine in enumerate(spines)
            ),
            *(
                self._flow(table, 2, _IPV4 | {"ct_mark": last + 1}, self._apply(*self._marked(spine)))
                for last, spine in action.turns
            ),
            self._flow(table, 1, _IPV4, hashed),
        ]

    def _marked(self, spine: int) -> list[Any]:
        """Keep in mind that the connection's last packet went up to `spine`, and send it there."""
        return [self._keep(self._parser.OFPActionSetField(ct_mark=spine + 1)), self._up(spine)]

    def _keep(self, *changes: Any) -> Any:
        """Have the connection tracker know the packet's connection from now on, with these changes to it."""
        return self._track(_NO_TABLE, _COMMIT, changes)

    def _track(self, table: int, flags: int = 0, changes: Sequence[Any] = ()) -> Any:
        """Ask the connection tracker, in this leaf's zone, and go on in `table`."""
        zone = {"zone_src": "", "zone_ofs_nbits": self._datapath.id}
        return self._parser.NXActionCT(flags=flags, **zone, recirc_table=table, alg=0, actions=list(changes))

    def _one_by_one(self) -> Any:
        """Ask whether a packet is longer than a byte, and tell register 2: `check_pkt_larger` of ovs-actions(7)."""
        asked = struct.pack("!HHHI6x", CHECK_PKT_LARGER, 1, 0, _REGISTER_2)
        return self._parser.OFPActionExperimenterUnknown(NX_EXPERIMENTER_ID, asked)

    def _learn(self) -> Any:
        """Have the packet's connection, this way, counted by a rule of its own."""
        parser, match = self._parser, self._parser.NXFlowSpecMatch
        ends = (("ipv4_src_nxm", 32), ("ipv4_dst_nxm", 32), ("tcp_src_nxm", 16), ("tcp_dst_nxm", 16))
        return parser.NXActionLearn(
            table_id=COUNTED_TABLE,
            priority=2,
            idle_timeout=_FORGOTTEN_S,
            specs=[
                match(src=_TCP["eth_type"], dst=("eth_type_nxm", 0), n_bits=16),
                match(src=_TCP["ip_proto"], dst=("ip_proto_nxm", 0), n_bits=8),
                *(match(src=(field, 0), dst=(field, 0), n_bits=bits) for field, bits in ends),
            ],
        )

    def _choose(self, links: int) -> Any:
        """Hash the packet to one of so many links, whose number a register then has."""
        return self._parser.NXActionMultipath(
            fields=nicira_ext.NX_HASH_FIELDS_SYMMETRIC_L4,
            basis=self._seed,
            algorithm=nicira_ext.NX_MP_ALG_MODULO_N,
            max_link=links - 1,
            arg=0,
            ofs_nbits=nicira_ext.ofs_nbits(0, 31),
            dst="reg0",
        )

    def _up(self, spine: int) -> Any:
        if self._protected:
            return self._parser.OFPActionGroup(_group(spine))
        return self._output(self._fabric.leaf_port_to_spine(spine))

    def _output(self, port: int) -> Any:
        return self._parser.OFPActionOutput(port)

    def _apply(self, *actions: Any) -> list[Any]:
        return [self._parser.OFPInstructionActions(self._ofp.OFPIT_APPLY_ACTIONS, list(actions))]

    def _flow(self, table: int, priority: int, match: dict[str, Any], instructions: list[Any]) -> Any:
        return self._parser.OFPFlowMod(
            self._datapath,
            cookie=self._cookie,
            table_id=table,
            priority=priority,
            match=self._parser.OFPMatch(**match),
            instructions=instructions,
        )


def placement(datapath: Any, fabric: LeafSpine, flow: FiveTuple, spine: int | None) -> Any:
    """Make the message that has a leaf send a connection's packets up to `spine`; None: again as it would without.

    Packets with a path tag keep to that.
    """
    ofp, parser = datapath.ofproto, datapath.ofproto_parser
    ends = dict(zip(("ipv4_src", "ipv4_dst", "tcp_src", "tcp_dst"), flow, strict=True))
    actions = [] if spine is None else [_count(parser), parser.OFPActionOutput(fabric.leaf_port_to_spine(spine))]
    return parser.OFPFlowMod(
        datapath,
        command=ofp.OFPFC_DELETE_STRICT if spine is None else ofp.OFPFC_ADD,
        priority=_PLACED_PRIORITY,
        out_port=ofp.OFPP_ANY,
        out_group=ofp.OFPG_ANY,
        match=parser.OFPMatch(**_TCP, ip_dscp=0, **ends),
        instructions=[parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, actions)],
    )


def _count(parser: Any) -> Any:
    return parser.NXActionResubmitTable(table_id=COUNTED_TABLE)


def _group(spine: int) -> int:
    return spine + 1


def _all_at_once(ofp: Any) -> int:
    return int(ofp.ONF_BF_ATOMIC | ofp.ONF_BF_ORDERED)


def _match(rule: Rule) -> dict[str, Any]:
    match: dict[str, Any] = dict(_IPV4)
    if rule.destination:
        address, _, length = rule.destination.partition("/")
        mask = (0xFFFFFFFF << (32 - int(length))) & 0xFFFFFFFF
        match["ipv4_dst"] = (address, ".".join(str(mask >> shift & 255) for shift in (24, 16, 8, 0)))
    if rule.path_tag is not None:
        match["ip_dscp"] = rule.path_tag
    return match
