"""Forwarding tables as OpenFlow 1.3 messages of Open vSwitch.

The hash is Nicira's `multipath` action: unlike a select group's, its result follows from the packet and a basis alone,
so a seed fixes every path, on both datapaths of Open vSwitch. It writes the choice into a register, and a second table
(one for each set of live spines) sends each choice to its port.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from os_ken.ofproto import nicira_ext

from controllers.tables import Action, Deliver, Downlink, Drop, Hash, Rule, Uplink, leaf_table, spine_table
from emulator.topology import SPINE_DPID_BASE, LeafSpine


def switch_table(fabric: LeafSpine, dpid: int) -> list[Rule]:
    """Return the table of the switch with this datapath id."""
    if dpid > SPINE_DPID_BASE:
        return spine_table(fabric, dpid - SPINE_DPID_BASE - 1)
    return leaf_table(fabric, dpid - 1)


def program(datapath: Any, fabric: LeafSpine, rules: Sequence[Rule], seed: int) -> list[Any]:
    """Make the messages that replace whatever `datapath` holds by `rules`, ending with a barrier request."""
    ofp, parser = datapath.ofproto, datapath.ofproto_parser
    messages: list[Any] = [
        parser.OFPFlowMod(
            datapath, command=ofp.OFPFC_DELETE, table_id=ofp.OFPTT_ALL, out_port=ofp.OFPP_ANY, out_group=ofp.OFPG_ANY
        )
    ]
    spine_sets: list[tuple[int, ...]] = []
    for rank, rule in enumerate(rules):
        match: dict[str, Any] = {"eth_type": 0x0800}
        if rule.destination:
            address, _, length = rule.destination.partition("/")
            mask = (0xFFFFFFFF << (32 - int(length))) & 0xFFFFFFFF
            match["ipv4_dst"] = (address, ".".join(str(mask >> shift & 255) for shift in (24, 16, 8, 0)))
        if rule.path_tag is not None:
            match["ip_dscp"] = rule.path_tag
        instructions = _instructions(datapath, fabric, rule.action, seed, spine_sets)
        messages.append(
            parser.OFPFlowMod(
                datapath,
                table_id=0,
                priority=len(rules) - rank,
                match=parser.OFPMatch(**match),
                instructions=instructions,
            )
        )
    for number, spines in enumerate(spine_sets):
        for choice, spine in enumerate(spines):
            out = parser.OFPActionOutput(fabric.leaf_port_to_spine(spine))
            messages.append(
                parser.OFPFlowMod(
                    datapath,
                    table_id=1 + number,
                    priority=1,
                    match=parser.OFPMatch(reg0=choice),
                    instructions=[parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, [out])],
                )
            )
    messages.append(parser.OFPBarrierRequest(datapath))
    return messages


def _instructions(
    datapath: Any, fabric: LeafSpine, action: Action, seed: int, spine_sets: list[tuple[int, ...]]
) -> list[Any]:
    ofp, parser = datapath.ofproto, datapath.ofproto_parser

    def apply(*actions: Any) -> Any:
        return parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, list(actions))

    match action:
        case Deliver(host):
            return [
                apply(
                    parser.OFPActionSetField(eth_dst=fabric.host_mac(host)),
                    parser.OFPActionOutput(fabric.leaf_port_to_host(host)),
                )
            ]
        case Uplink(spine):
            return [apply(parser.OFPActionOutput(fabric.leaf_port_to_spine(spine)))]
        case Downlink(leaf):
            return [apply(parser.OFPActionOutput(fabric.spine_port_to_leaf(leaf)))]
        case Hash(spines):
            if spines not in spine_sets:
                spine_sets.append(spines)
            choose = parser.NXActionMultipath(
                fields=nicira_ext.NX_HASH_FIELDS_SYMMETRIC_L4,
                basis=seed,
                algorithm=nicira_ext.NX_MP_ALG_MODULO_N,
                max_link=len(spines) - 1,
                arg=0,
                ofs_nbits=nicira_ext.ofs_nbits(0, 31),
                dst="reg0",
            )
            return [apply(choose), parser.OFPInstructionGotoTable(1 + spine_sets.index(spines))]
        case Drop():
            return []
