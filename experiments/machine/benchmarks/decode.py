"""How fast captures become frames, beside tshark, dpkt and scapy on the same file. Each in a process of its own."""

from __future__ import annotations

import importlib
import json
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator.inherited import environment, which
from emulator.proc import peak_memory_bytes
from experiments.captures import headers, pcap
from experiments.captures.concurrency import flow_starts, incast_degree
from experiments.captures.containers import at_every_byte
from experiments.captures.decode import read_capture
from experiments.captures.goodput import goodput
from experiments.captures.paths import path_share
from experiments.captures.queueing import queueing_delay
from experiments.captures.reordering import reorder_density, reordering
from experiments.captures.retransmission import retransmissions
from experiments.captures.streams import Streams
from experiments.machine.benchmarks.alone import measured_alone

SNAP_BYTES = 128
SEGMENT_BYTES = 8948  # payload of a full segment: MTU 9000 less 52 bytes of IP, TCP and timestamps
HOSTS = 16
FLOWS_PER_HOST = 4
REPEATS = 3  # the fastest counts
PREFIX_PACKETS = {"tshark": 200_000, "dpkt": 100_000, "scapy": 5_000}  # slow tools get the start of the file
TIMEOUT_S = 600
TSHARK_FIELDS = {
    "frame": ("time_epoch", "len"),
    "ip": ("src", "dst", "dsfield.dscp", "id"),
    "tcp": ("srcport", "dstport", "seq_raw", "ack_raw", "len", "flags"),
    "tcp.options": ("timestamp.tsval", "timestamp.tsecr", "sack_le", "sack_re"),
}
TSHARK_OFF = ("analyze_sequence_numbers", "desegment_tcp_streams")  # stream analysis, which would slow it down

DATA_BYTES, ACK_BYTES, SACK_BYTES = SNAP_BYTES, 66, 78  # captured
_RECORD = {"s": (0, "<u4"), "us": (4, "<u4"), "captured": (8, "<u4"), "wire": (12, "<u4")}


def run(packets: int = 1_000_000) -> list[dict[str, Any]]:
    """Decode a generated header capture of `packets` packets with every tool at hand, on one core.

    A row a tool: `tool`, `version`, `packets` it decoded, `time_s` (the fastest of three; start-up of Python not
    included), `packets_per_s`, `peak_memory_bytes` (libraries and the mapped file included), `note`. A tool that is not
    installed has a row that says so. Tools other than ours stop at lists of fields, before any frame.
    """
    with tempfile.TemporaryDirectory(prefix="spraylab-bench-") as folder:
        path = Path(folder) / "all.pcap"
        write_capture(path, packets)
        rows = []
        for tool in TOOLS:
            some = min(packets, PREFIX_PACKETS.get(tool, packets))
            case = tool, path if some == packets else _prefix(path, some), some
            rows.append(measured_alone(__name__, *case, timeout_s=TIMEOUT_S))
    return rows


def _here(tool: str, path: Path, packets: int) -> dict[str, Any]:
    row: dict[str, Any] = {"tool": tool, "version": "", "packets": packets, "time_s": None, "packets_per_s": None}
    found = TOOLS[tool](path)
    if found is None:
        return row | {"peak_memory_bytes": None, "note": "not installed"}
    version, decode, note = found
    times_s = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        decoded = decode()
        times_s.append(time.perf_counter() - start)
        if decoded != packets:
            raise RuntimeError(f"{tool} decoded {decoded} of {packets} packets: its figure would mean nothing")
    row |= {"version": version, "time_s": min(times_s), "packets_per_s": packets / min(times_s)}
    return row | {"peak_memory_bytes": None if tool == "tshark" else peak_memory_bytes(), "note": note}


def _prefix(path: Path, packets: int) -> Path:
    """A file of the first `packets` packets of the capture at `path`."""
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)
    positions = np.append(pcap.find_records(data).runs[0].positions, len(data))
    prefix = path.with_name(f"{packets}.pcap")
    prefix.write_bytes(data[: positions[packets]].tobytes())
    return prefix


Tool = tuple[str, Callable[[], int], str]
"""A version, a function that decodes and returns the number of packets, and what to know about it."""


def _spraylab(path: Path) -> Tool:
    return "", lambda: len(read_capture(path).frame), "to a frame"


def _spraylab_analyses(path: Path) -> Tool:
    def analyse() -> int:
        frame = read_capture(path).frame
        path_share(frame, 0.1)
        streams = Streams.of(frame)
        for over_time in (goodput, incast_degree):
            over_time(streams, 0.1)
        for at_once in (flow_starts, reordering, reorder_density, retransmissions):
            at_once(streams)
        queueing_delay(frame, frame)
        return len(frame)

    return "", analyse, "to a frame, and every analysis of it"


def _tshark(path: Path) -> Tool | None:
    program = which("tshark")
    if program is None:
        return None
    fields = [word for layer, names in TSHARK_FIELDS.items() for name in names for word in ("-e", f"{layer}.{name}")]
    no_analysis = [word for name in TSHARK_OFF for word in ("-o", f"tcp.{name}:FALSE")]
    command = [program, "-n", "-r", str(path), *no_analysis, "-T", "fields", *fields]

    def decode() -> int:
        return _printed(command).count("\n")

    version = next((word for word in _printed([program, "--version"]).split() if word[0].isdigit()), "").rstrip(".")
    return version, decode, "-T fields, to text; its own start-up included"


def _printed(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S, env=environment())
    return done.stdout


def _dpkt(path: Path) -> Tool | None:
    try:
        dpkt = importlib.import_module("dpkt")
    except ImportError:
        return None

    def decode() -> int:
        rows = []
        with path.open("rb") as file:
            for when, data in dpkt.pcap.Reader(file):
                ip = dpkt.ethernet.Ethernet(data).data
                tcp = ip.data
                options = dict(dpkt.tcp.parse_opts(tcp.opts))
                sack, stamps = options.get(dpkt.tcp.TCP_OPT_SACK), options.get(dpkt.tcp.TCP_OPT_TIMESTAMP)
                address = (ip.src, ip.dst, tcp.sport, tcp.dport)
                rows.append((when, address, ip.tos, ip.id, ip.len, tcp.seq, tcp.ack, tcp.flags, sack, stamps))
        return len(rows)

    return dpkt.__version__, decode, "to a list of fields"


def _scapy(path: Path) -> Tool:
    scapy, inet, utils = (importlib.import_module(name) for name in ("scapy", "scapy.layers.inet", "scapy.utils"))
    importlib.import_module("scapy.layers.l2")

    def decode() -> int:
        rows = []
        with utils.PcapReader(str(path)) as packets:
            for packet in packets:
                ip, tcp = packet[inet.IP], packet[inet.TCP]
                options = dict(tcp.options)
                sack, stamps = options.get("SAck"), options.get("Timestamp")
                address = (ip.src, ip.dst, tcp.sport, tcp.dport)
                rows.append((packet.time, address, ip.tos, ip.id, ip.len, tcp.seq, tcp.ack, tcp.flags, sack, stamps))
        return len(rows)

    return scapy.__version__, decode, "to a list of fields"


TOOLS: dict[str, Callable[[Path], Tool | None]] = {
    "spraylab": _spraylab,
    "spraylab, with analyses": _spraylab_analyses,
    "tshark": _tshark,
    "dpkt": _dpkt,
    "scapy": _scapy,
}


def write_capture(path: Path, packets: int, seed: int = 1) -> None:
    """A header capture as a sprayed all-to-all gives: 60 % data, 30 % acks, 10 % acks with SACK, in mixed order."""
    rng = np.random.default_rng(seed)
    chunk_packets = 250_000
    sent = np.zeros(HOSTS * FLOWS_PER_HOST, np.int64)  # segments of each flow so far
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP_BYTES, 1))
        for first in range(0, packets, chunk_packets):
            file.write(_chunk(rng, first, min(chunk_packets, packets - first), sent).tobytes())


def _chunk(rng: np.random.Generator, first: int, count: int, sent: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    flow = rng.integers(0, len(sent), count)
    kind = rng.choice(3, count, p=[0.6, 0.3, 0.1])
    captured = np.array([DATA_BYTES, ACK_BYTES, SACK_BYTES])[kind]
    at = np.concatenate(([0], np.cumsum(captured + 16)))
    out = np.zeros(at[-1], np.uint8)
    segment = np.zeros(count, np.int64)
    for number in range(len(sent)):
        mine = np.flatnonzero(flow == number)
        data = mine[kind[mine] == 0]
        segment[mine] = sent[number] + np.cumsum(kind[mine] == 0)  # acks follow the data closely
        lateness = rng.uniform(0, 6, len(data))  # packets
        segment[data] = sent[number] + np.argsort(np.arange(len(data)) + lateness, kind="stable")
        sent[number] += len(data)
    time_us = 10 * (first + np.arange(count))
    for number, layout_bytes in enumerate((DATA_BYTES, ACK_BYTES, SACK_BYTES)):
        mine = np.flatnonzero(kind == number)
        rows = _packets(number, layout_bytes, flow[mine], segment[mine], time_us[mine], first + mine)
        opaque = np.dtype((np.void, layout_bytes + 16))
        at_every_byte(out, opaque)[at[mine]] = rows.view(opaque)
    return out


def _packets(
    kind: int,
    captured_bytes: int,
    flow: npt.NDArray[np.int64],
    segment: npt.NDArray[np.int64],
    time_us: npt.NDArray[np.int64],
    number: npt.NDArray[np.int64],
) -> npt.NDArray[np.void]:
    """Records of one kind: 0 data, 1 ack, 2 ack with one SACK block."""
    rows = np.zeros(len(flow), _layout(kind, captured_bytes))
    header_bytes = 44 if kind == 2 else 32
    payload = SEGMENT_BYTES if kind == 0 else 0
    source = 10 << 24 | flow // FLOWS_PER_HOST
    target = 10 << 24 | (flow // FLOWS_PER_HOST + 1) % HOSTS
    byte = segment * SEGMENT_BYTES
    data = kind == 0
    values: dict[str, Any] = {
        "s": 1_700_000_000 + time_us // 1_000_000,
        "us": time_us % 1_000_000,
        "captured": captured_bytes,
        "wire": 34 + header_bytes + payload,
        "ether_type": headers.IPV4_TYPE,
        "version_ihl": 0x45,
        "tos": (number % 4 + 1) << 2,
        "ip_length": 20 + header_bytes + payload,
        "ip_id": number & 0xFFFF,
        "protocol": headers.TCP,
        "src_ip": source if data else target,
        "dst_ip": target if data else source,
        "src_port": 40_000 + flow if data else 5001,
        "dst_port": 5001 if data else 40_000 + flow,
        "seq": byte & 0xFFFFFFFF if data else 1,
        "ack": 1 if data else byte & 0xFFFFFFFF,
        "data_offset": header_bytes << 2,
        "tcp_flags": 0x10,
        "first_option": headers.NOP_NOP_TIMESTAMPS,
        "ts_val": time_us // 1000,
        "ts_ecr": time_us // 1000,
    }
    if kind == 2:
        values |= {"sack": 0x0101050A, "sack_start": byte + SEGMENT_BYTES, "sack_end": byte + 2 * SEGMENT_BYTES}
    for name, value in values.items():
        rows[name] = value
    return rows


def _layout(kind: int, captured_bytes: int) -> np.dtype[np.void]:
    """Where a record of this kind has its fields."""
    fields = _RECORD | {name: (at + 16, form) for name, (at, form) in headers.FIELDS.items()}
    if kind == 2:
        fields |= {"sack": (82, ">u4"), "sack_start": (86, ">u4"), "sack_end": (90, ">u4")}
    return np.dtype(
        {
            "names": list(fields),
            "offsets": [at for at, _ in fields.values()],
            "formats": [form for _, form in fields.values()],
            "itemsize": captured_bytes + 16,
        }
    )


def main(arguments: Sequence[str]) -> None:
    """Print the row of one case as JSON."""
    tool, path, packets = arguments
    print(json.dumps(_here(tool, Path(path), int(packets))))
