"""A packet capture as a pandas frame: one row a packet, one column a header field."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from emulator.proc import available_memory_bytes
from experiments.captures import headers, odd, pcap, pcapng
from experiments.captures.containers import Bytes, Container, Records, cut
from experiments.captures.files import OTHER_COMPRESSION, CaptureError, contents, open_capture

CHUNK_RECORDS = 1 << 14  # headers of one chunk stay in the processor's cache
BYTES_A_PACKET = 800  # of memory that the frame and every analysis of it take at most


@dataclass
class Capture:
    """A decoded capture.

    `frame` has a row for every record, in file order, so that `wire_bytes` adds up to what the interface carried:

    - `time_ns` since 1970; `link`, `direction`: categories, as the caller named them; `wire_bytes`: the frame's length
      before any cut to the snap length;
    - `ip_version` (4, 6, 0 for anything else), `protocol`, `dscp`, `ip_id`, `src_ip`, `dst_ip` (as numbers; an IPv6
      address as a label in 240.0.0.0/4, see `ipv6_addresses`), `src_port`, `dst_port`;
    - `is_tcp`: the packet is TCP and the fields that follow are valid: `seq`, `ack`, `payload_bytes`, `tcp_flags`;
      `ts_val`, `ts_ecr` (RFC 7323); `sack_start`, `sack_end` of the first SACK block (RFC 2018) and `dsack`, whether it
      reports a duplicate (RFC 2883).

    Of headers in headers the outermost count: a tunnel, or a packet quoted by ICMP, is payload. What a packet lacks is
    0. `problems` says, one sentence each, what could not be read. `counts` is of `packets`, and of those that are
    `tcp`, `ipv6`, `not_ip`, `odd` (of a layout decoded one by one, at a tenth of the speed or less), `cut` within a
    header, `contradictory` (a version, size or length that cannot be).
    """

    frame: pd.DataFrame
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    ipv6_addresses: dict[int, str] = field(default_factory=dict)


def read_capture(source: Path | str | BinaryIO, link: str = "", direction: str = "") -> Capture:
    """Decode a pcap or pcapng file, its path or opened; `link` and `direction` say where it was taken.

    Compressed with gzip or not. A damaged or truncated file gives the packets before the damage and a problem that says
    where it is. Raises CaptureError if the file is no capture at all, or one too large for this machine's memory,
    OSError if it cannot be read.
    """
    path = Path(source if isinstance(source, Path | str) else source.name)
    try:
        with open_capture(path) if isinstance(source, Path | str) else contextlib.nullcontext(source) as file:
            data, problems = contents(file)
        container = _find_records(data)
        packets = sum(len(run.positions) for run in container.runs)
        _check_memory(packets)
    except CaptureError as error:
        raise CaptureError(f"{path}: {error}") from None
    container.problems += problems
    columns = {name: np.zeros(packets, kind) for name, kind in headers.COLUMNS.items()}
    capture = Capture(pd.DataFrame(), container.problems, Counter({"packets": packets}))
    strangers: Counter[int] = Counter()
    done = 0
    for run in container.runs:
        for first in range(0, len(run.positions), CHUNK_RECORDS):
            records = run.read(run.positions[first : first + CHUNK_RECORDS])
            past = done + len(records.start)
            chunk = {name: column[done:past] for name, column in columns.items()}
            _decode_chunk(data, records, chunk, capture, strangers)
            done = past

    for link_type, count in strangers.items():
        problem = f"{count} packets have the link type {link_type}, which is not understood"
        capture.problems.append(f"{problem}: only their time and length are known")
    if capture.counts["cut"]:
        problem = f"{capture.counts['cut']} of {packets} packets were captured too short for all their headers"
        capture.problems.append(f"{problem}: what was not captured is 0 (use a larger snap length)")
    if capture.counts["contradictory"]:
        problem = f"{capture.counts['contradictory']} of {packets} packets have headers that cannot be"
        capture.problems.append(f"{problem} (a version, size or length): what makes no sense of them is left out")
    capture.problems = [f"{path}: {problem}" for problem in capture.problems]
    capture.counts |= {
        "tcp": int(columns["is_tcp"].sum()),
        "ipv6": int((columns["ip_version"] == 6).sum()),
        "not_ip": int((columns["ip_version"] == 0).sum()),
    }
    everywhere = {name: _category(value, packets) for name, value in (("link", link), ("direction", direction))}
    capture.frame = pd.DataFrame({"time_ns": columns.pop("time_ns")} | everywhere | columns, copy=False)
    return capture


def join(captures: Iterable[Capture]) -> Capture:
    """Join captures, one after the other. For what needs no single point of capture, such as shares of paths."""
    captures = list(captures)
    joined = Capture(pd.concat([each.frame for each in captures], ignore_index=True))
    for name in ("link", "direction"):
        joined.frame[name] = union_categoricals([each.frame[name] for each in captures])
    for each in captures:
        joined.problems += each.problems
        joined.counts.update(each.counts)
        joined.ipv6_addresses |= each.ipv6_addresses
    return joined


def _find_records(data: Bytes) -> Container:
    magic = bytes(data[:4])
    if len(magic) < 4:
        return Container(problems=[cut("the file header", 0, len(magic)) if magic else "the file is empty"])
    if magic in pcap.MAGICS:
        return pcap.find_records(data)
    if magic == pcapng.MAGIC:
        return pcapng.find_records(data)
    hint = "; decompress it first" if bytes(data[:6]).startswith(OTHER_COMPRESSION) else ""
    raise CaptureError(f"not a pcap or pcapng file, it starts with the bytes {magic.hex(' ')}{hint}")


def _check_memory(packets: int) -> None:
    """Raises CaptureError where the machine has less memory left than the analyses of so many packets may take."""
    left_bytes, needed_bytes = available_memory_bytes(), packets * BYTES_A_PACKET
    if needed_bytes > left_bytes:
        sizes = f"{needed_bytes / 1e9:.1f} GB of memory, {left_bytes / 1e9:.1f} GB are left"
        raise CaptureError(f"{packets} packets may take {sizes}: split it, as editcap -c does")


def _decode_chunk(
    data: Bytes, records: Records, columns: headers.Columns, capture: Capture, strangers: Counter[int]
) -> None:
    """Fill `columns` from `records`; count what was odd in `capture`, and in `strangers` unknown link types."""
    columns["time_ns"][:] = records.time_ns
    columns["wire_bytes"][:] = records.wire_bytes
    is_odd, is_cut, contradictory = headers.decode(data, records, columns)
    for link_type in np.unique(records.link_type[is_odd]):
        if not odd.knows(int(link_type)):
            strange = is_odd & (records.link_type == link_type)
            is_odd &= ~strange
            strangers[int(link_type)] += int(strange.sum())
    for row in np.flatnonzero(is_odd):
        start = records.start[row]
        packet = data[start : start + records.captured_bytes[row]].tobytes()
        decoded = odd.decode(packet, int(records.wire_bytes[row]), int(records.link_type[row]))
        is_cut[row], contradictory[row] = decoded.cut, decoded.contradictory
        capture.ipv6_addresses |= decoded.ipv6_addresses
        for name, value in decoded.values.items():
            columns[name][row] = value
    for name, which in (("odd", is_odd), ("cut", is_cut), ("contradictory", contradictory)):
        capture.counts[name] += int(which.sum())


def _category(value: str, rows: int) -> pd.Categorical:
    return pd.Categorical.from_codes(np.zeros(rows, np.int8), [value])
