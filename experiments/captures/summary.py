"""All analyses of one run's captures: what was taken where decides what can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

import numpy as np
import pandas as pd

from emulator.files import Folder
from emulator.ports import Port
from emulator.topology import LeafSpine
from experiments.captures.concurrency import flow_starts, incast_degree
from experiments.captures.decode import Capture, join, read_capture
from experiments.captures.files import CaptureError
from experiments.captures.goodput import goodput
from experiments.captures.paths import path_share
from experiments.captures.queueing import queueing_delay
from experiments.captures.reordering import reorder_density, reordering
from experiments.captures.retransmission import retransmissions
from experiments.captures.streams import Streams

BIN_S = 0.05


@dataclass(frozen=True)
class CaptureSummary:
    """`wire_bytes` seen at each captured port, both ways; frames by the name under which results keep them."""

    wire_bytes: dict[str, int]
    problems: list[str]
    frames: dict[str, pd.DataFrame] = field(repr=False)


def analyse(directory: Folder, ports: Sequence[Port], fabric: LeafSpine) -> CaptureSummary:
    """Find everything that the captures in `directory` (one file a port, named as it) can tell of `ports`.

    These are the ports that were to be captured, as `capture_points` names them: one whose file is missing or cannot
    be read is a problem, and has no `wire_bytes`.

    Frames: `path_share` where uplinks were captured; `goodput`, `reordering`, `reorder_density`, `retransmissions`,
    `incast` and `flow_starts` where hosts were; with both, `queueing` of the leaves' queues to the spines.
    """
    captures: dict[Port, Capture] = {}
    problems = []
    for port in ports:
        try:
            with directory.open(f"{port.name}.pcap") as file:
                captures[port] = read_capture(file, link=port.name)
        except FileNotFoundError:
            problems.append(f"{port.name}: was to be captured, and its file is missing")
            continue
        except CaptureError as error:
            problems.append(f"{port.name}: {error}")
            continue
        except OSError as error:
            problems.append(f"{port.name}: its capture {error.strerror or error}")
            continue
        problems += [f"{port.name}: {problem}" for problem in captures[port].problems]
    wire_bytes = {port.name: int(capture.frame.wire_bytes.sum()) for port, capture in captures.items()}
    hosts = {port: capture for port, capture in captures.items() if port.host is not None}
    uplinks = {port: capture for port, capture in captures.items() if port.spine is not None}
    start_ns = min((int(c.frame.time_ns.min()) for c in captures.values() if len(c.frame)), default=None)
    frames: dict[str, pd.DataFrame] = {}
    if uplinks:
        frames["path_share"] = path_share(join(uplinks.values()).frame, BIN_S, by="link", start_ns=start_ns)
    if hosts:
        sent, received = (Streams.of(frame) for frame in _ends(hosts, fabric))
        # What the network reordered is told by the IP identification: a retransmission is not a packet that came late.
        frames["reordering"] = reordering(received, numbering="ip_id")
        frames["reorder_density"] = reorder_density(received, numbering="ip_id")
        frames["retransmissions"] = retransmissions(sent, received)
        frames["goodput"] = goodput(received, BIN_S, start_ns)
        frames["incast"] = incast_degree(received, BIN_S, start_ns)
        frames["flow_starts"] = flow_starts(sent)
    if hosts and uplinks:
        frames["queueing"] = _leaf_queues(hosts, uplinks, fabric)
    return CaptureSummary(wire_bytes, problems, frames)


def _ends(hosts: dict[Port, Capture], fabric: LeafSpine) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Packets as their senders sent them, and as their receivers received them: each flow at one point each."""
    sent, received = [], []
    for port, capture in hosts.items():
        assert port.host is not None
        own = int(IPv4Address(fabric.host_ip(port.host)))
        frame = capture.frame[capture.frame.is_tcp]
        sent.append(frame[frame.src_ip == own])
        received.append(frame[frame.dst_ip == own])
    return pd.concat(sent, ignore_index=True), pd.concat(received, ignore_index=True)


def _leaf_queues(hosts: dict[Port, Capture], uplinks: dict[Port, Capture], fabric: LeafSpine) -> pd.DataFrame:
    """What packets waited in each leaf's queues to the spines: from leaving the host to leaving the uplink."""
    rows = []
    for leaf in sorted({port.leaf for port in uplinks}):
        prefix = IPv4Network(fabric.leaf_prefix(leaf))
        low, high = int(prefix.network_address), int(prefix.broadcast_address)
        before = _sent(hosts, leaf, low, high)
        for port, capture in uplinks.items():
            if port.leaf != leaf:
                continue
            after = capture.frame[capture.frame.is_tcp & capture.frame.src_ip.between(low, high)]
            if not len(after) or not len(before):
                continue
            waited = queueing_delay(before, after, fabric.host_rate_bps).packets.queueing_ns.to_numpy() / 1e9
            if len(waited):
                p50, p99 = np.quantile(waited, [0.5, 0.99])
                rows.append(
                    {
                        "port": port.name,
                        "leaf": leaf,
                        "spine": port.spine,
                        "packets": len(waited),
                        "queueing_p50_s": p50,
                        "queueing_p99_s": p99,
                        "queueing_max_s": waited.max(),
                    }
                )
    return pd.DataFrame(rows)


def _sent(hosts: dict[Port, Capture], leaf: int, low: int, high: int) -> pd.DataFrame:
    """What the hosts of `leaf`, whose addresses are from `low` to `high`, sent to other leaves."""
    frames = []
    for port, capture in hosts.items():
        if port.leaf == leaf:
            frame = capture.frame[capture.frame.is_tcp]
            frames.append(frame[frame.src_ip.between(low, high) & ~frame.dst_ip.between(low, high)])
    return pd.concat(frames, ignore_index=True)
