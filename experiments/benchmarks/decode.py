"""How fast captures become frames, beside tshark, dpkt and scapy on the same file."""

from __future__ import annotations

import importlib.util
import json
import platform
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.captures import headers
from experiments.captures.containers import at_every_byte

SNAP_BYTES = 128
SEGMENT_BYTES = 8948  # payload of a full segment: MTU 9000 less 52 bytes of IP, TCP and timestamps
HOSTS = 16
FLOWS_PER_HOST = 4
PREFIX_PACKETS = {"tshark": 200_000, "dpkt": 200_000, "scapy": 10_000}  # slow tools get the start of the file
TIMEOUT_S = 600

DATA_BYTES, ACK_BYTES, SACK_BYTES = SNAP_BYTES, 66, 78  # captured
_RECORD = {"s": (0, "<u4"), "us": (4, "<u4"), "captured": (8, "<u4"), "wire": (12, "<u4")}


def write_capture(path: Path, packets: int, seed: int = 1) -> None:
    """A header capture as a sprayed all-to-all gives: 60 % data, 30 % acks, 10 % acks with SACK, in mixed order."""
    rng = np.random.default_rng(seed)
    chunk_packets = 250_000
    sent = np.zeros(HOSTS * FLOWS_PER_HOST, np.int64)  # segments of each flow so far
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP_BYTES, 1))
        for first in range(0, packets, chunk_packets):
            file.write(_chunk(rng, first, min(chunk_packets, packets - first), sent))


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
        order = np.argsort(np.arange(len(data)) + rng.uniform(0, 6, len(data)), kind="stable")  # late by up to 6
        segment[data] = sent[number] + order
        segment[mine] = np.maximum.accumulate(np.where(kind[mine] == 0, segment[mine], sent[number]))
        segment[data] = sent[number] + order
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
    fields = _RECORD | {name: (at + 16, form) for name, (at, form) in headers.FIELDS.items()}
    if kind == 2:
        fields |= {"sack": (82, ">u4"), "sack_start": (86, ">u4"), "sack_end": (90, ">u4")}
    layout = np.dtype(
        {
            "names": list(fields),
            "offsets": [at for at, _ in fields.values()],
            "formats": [form for _, form in fields.values()],
            "itemsize": captured_bytes + 16,
        }
    )
    rows = np.zeros(len(flow), layout)
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
