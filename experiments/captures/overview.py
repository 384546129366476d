"""What one capture of unknown origin can tell, in words, and its packets for others to analyse."""

from __future__ import annotations

import re
from ipaddress import IPv4Address

import numpy as np
import pandas as pd

from experiments.captures.decode import Capture
from experiments.captures.retransmission import retransmissions
from experiments.captures.streams import FLOW, Streams

_UNITS = ((1e9, "Gb/s"), (1e6, "Mb/s"), (1e3, "kb/s"), (1, "b/s"))


def overview(capture: Capture) -> dict[str, str]:
    """Return what there is to say of a capture, by what it is about."""
    frame, counts = capture.frame, capture.counts
    kinds = f"{counts['tcp']:,} of them TCP, {counts['ipv6']:,} IPv6, {counts['not_ip']:,} not IP"
    told = {
        "packets": f"{len(frame):,}; {kinds}",
        "bytes": f"{int(frame.wire_bytes.sum()):,} on the wire",
    }
    times_ns = frame.time_ns[frame.time_ns != 0]  # 0: the file does not say
    span_s = 0.0
    if len(times_ns):
        first, last = int(times_ns.min()), int(times_ns.max())
        span_s = (last - first) / 1e9
        told |= {"first": _utc(first), "last": f"{_utc(last)}, {span_s:,.6f} s later"}
    with_ports = frame[(frame.src_port != 0) | (frame.dst_port != 0)]
    told["flows"] = f"{len(with_ports[['protocol', *FLOW]].drop_duplicates()):,}, each way counts"
    told |= _tcp(frame, span_s)
    if reasons := _reasons(capture):
        told["odd packets"] = ", ".join(reasons)
    return told


def _tcp(frame: pd.DataFrame, span_s: float) -> dict[str, str]:
    """Goodput (RFC 2647) and what was sent again, as far as a capture at one point can tell."""
    streams = Streams.of(frame)
    segments = len(streams.row)
    if not segments:
        return {"goodput": "no TCP data"}
    again = retransmissions(streams)
    again_bytes = int(again.retransmitted_bytes.sum())
    new_bytes = int(streams.new_bytes.sum())
    said = f"{new_bytes:,} bytes of TCP data, each counted once"
    if span_s:
        said = f"{_rate(new_bytes * 8 / span_s)}: {said}"
    shown = f"{len(again):,} of {segments:,} data segments ({len(again) / segments:.2%})"
    shown += f", {again_bytes:,} bytes seen before" if len(again) else ""
    if spurious := int(again.spurious.sum()):
        shown += f"; {spurious:,} spurious, as the receiver said (DSACK)"
    return {"goodput": said, "retransmitted": shown}


def _reasons(capture: Capture) -> list[str]:
    """How many packets are not as most are, by the reason."""
    reasons = {
        "odd": "of an uncommon layout",
        "cut": "captured too short",
        "contradictory": "with headers that cannot be",
    }
    return [f"{capture.counts[name]:,} {reason}" for name, reason in reasons.items() if capture.counts[name]]


def with_addresses(capture: Capture, file: str) -> pd.DataFrame:
    """The packets with `file`, where they are from, and `src` and `dst`, their addresses as text ("" for none)."""
    frame = capture.frame.drop(columns=["link", "direction"])
    frame.insert(0, "file", file)
    for name in ("src", "dst"):
        number, known = pd.factorize(frame[f"{name}_ip"])
        texts = [capture.ipv6_addresses.get(label) or str(IPv4Address(label)) for label in known.tolist()]
        frame[name] = np.where(frame.ip_version != 0, np.array([*texts, ""], object)[number], "")
    return frame


def in_utf8(text: str) -> str:
    """Return a file's name as it can be shown and written, whatever its bytes."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def _utc(time_ns: int) -> str:
    return str(np.datetime64(time_ns, "ns").astype("datetime64[us]")).replace("T", " ") + " UTC"


def _rate(rate_bps: float) -> str:
    least, unit = next((each for each in _UNITS if rate_bps >= each[0]), _UNITS[-1])
    return f"{rate_bps / least:.4g} {unit}"
