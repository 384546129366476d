"""A damaged capture gives what there is, and says what there is not; it is never a crash."""

from __future__ import annotations

import gzip
import lzma
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from capture_files import ETHER, SAMPLE, T0_NS, pcap_bytes, pcapng_bytes, read_bytes, records_of, section
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP

from experiments.captures import files
from experiments.captures.decode import read_capture
from experiments.captures.files import CaptureError

SEGMENT = bytes(ETHER / IP(src="10.0.0.2", dst="10.0.0.1") / TCP())


@pytest.mark.parametrize(
    ("snap", "cut"), [(78, 0), (77, 1), (73, 2), (66, 2), (65, 3), (61, 4), (57, 5), (41, 6), (14, 6), (13, 7)]
)
def test_counts_packets_captured_too_short(tmp_path: Path, snap: int, cut: int) -> None:
    # bytes of headers in SAMPLE: 66, 78 (SACK), 74 (SYN), 14 (ARP's own are not looked at), 62 (IPv6), 58 (VLAN), 42
    capture = read_bytes(tmp_path, pcap_bytes(records_of(SAMPLE, snap)))
    assert capture.counts["cut"] == cut
    assert [f"{cut} of 7 packets were captured too short" in each for each in capture.problems] == [True] * (cut > 0)


def test_a_header_capture_is_not_cut(tmp_path: Path) -> None:
    whole = read_bytes(tmp_path, pcap_bytes(records_of(SAMPLE)))
    capture = read_bytes(tmp_path, pcap_bytes(records_of(SAMPLE, snap=128)))
    pd.testing.assert_frame_equal(capture.frame, whole.frame)
    assert (capture.problems, capture.counts["cut"], capture.counts["odd"]) == ([], 0, 2)


@pytest.mark.parametrize("make", [pcap_bytes, pcapng_bytes])
def test_truncated_anywhere_it_gives_the_packets_before(tmp_path: Path, make: Callable[..., bytes]) -> None:
    data = make(records_of(SAMPLE, snap=80))
    whole = read_bytes(tmp_path, data).frame
    ends = {len(make(records_of(SAMPLE[:count], snap=80))): count for count in range(len(SAMPLE) + 1)}
    complete = 0
    for size in range(len(data)):
        complete = ends.get(size, complete)
        capture = read_bytes(tmp_path, data[:size])
        assert capture.frame.equals(whole.iloc[:complete])
        cuts = [problem for problem in capture.problems if "left unread" in problem or "empty" in problem]
        between_blocks = size in ends or (make is pcapng_bytes and size == len(section("<")))
        assert len(cuts) == (0 if between_blocks else 1), f"{size} bytes: {capture.problems}"


@pytest.mark.parametrize(
    ("captured", "kept"),
    [(2_000_000_000, 2), (0, 3), (55, 3)],  # the last two only lead astray: what follows is no record
)
def test_an_absurd_record_ends_the_reading(tmp_path: Path, captured: int, kept: int) -> None:
    data = bytearray(pcap_bytes([(SEGMENT, 54, T0_NS)] * 5))
    third = 24 + 2 * (16 + 54)
    struct.pack_into("<I", data, third + 8, captured)
    capture = read_bytes(tmp_path, bytes(data))
    at = third if kept == 2 else third + 16 + captured
    assert len(capture.frame) == kept
    [said] = [problem for problem in capture.problems if f"damaged at byte {at}: a record claims" in problem]
    assert f"{len(data) - at} bytes are left unread" in said


def test_a_record_that_claims_less_than_there_is_costs_nothing(tmp_path: Path) -> None:
    """As a tunnel's own driver may write it: what was captured was there."""
    data = bytearray(pcap_bytes([(SEGMENT, 54, T0_NS)] * 5))
    struct.pack_into("<I", data, 24 + 2 * (16 + 54) + 12, 10)
    capture = read_bytes(tmp_path, bytes(data))
    assert capture.frame.wire_bytes.tolist() == [54] * 5
    assert "1 packets claim to be shorter than what was captured of them" in capture.problems[0]


def test_a_packet_longer_than_any_snap_length_is_damage(tmp_path: Path) -> None:
    longest, longer = ((bytes(size), size, T0_NS) for size in (262_144, 262_145))
    capture = read_bytes(tmp_path, pcap_bytes([longest, longer, longest]))
    assert len(capture.frame) == 1
    assert "claims 262145 captured bytes" in capture.problems[0]


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (4, 2**31, f"a block of type 6 claims {2**31} bytes"),
        (4, 87, "a block of type 6 claims 87 bytes"),
        (4, 92, "a block gives its length as 92 bytes and again as"),
        (0, 0x0A0D0D0A, "a section header gives no byte order"),
    ],
)
def test_an_absurd_block_ends_the_reading(tmp_path: Path, offset: int, value: int, said: str) -> None:
    records = [(SEGMENT, 54, T0_NS)] * 5
    data = bytearray(pcapng_bytes(records))
    third = len(pcapng_bytes(records[:2]))
    struct.pack_into("<I", data, third + offset, value)
    capture = read_bytes(tmp_path, bytes(data))
    assert len(capture.frame) == 2
    assert len(capture.problems) == 1
    assert f"damaged at byte {third}" in capture.problems[0]
    assert said in capture.problems[0]


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (8, 1, "1 packets of interfaces that the file does not describe were left out"),
        (20, 57, "1 packets that claim more captured bytes than their blocks hold were left out"),
    ],
)
def test_a_packet_that_makes_no_sense_costs_itself(tmp_path: Path, offset: int, value: int, said: str) -> None:
    records = [(SEGMENT, 54, T0_NS + number * 1000) for number in range(5)]
    data = bytearray(pcapng_bytes(records))
    struct.pack_into("<I", data, len(pcapng_bytes(records[:2])) + offset, value)
    capture = read_bytes(tmp_path, bytes(data))
    assert capture.frame.time_ns.tolist() == [time_ns for _, _, time_ns in (*records[:2], *records[3:])]
    assert [problem.split(": ")[1] for problem in capture.problems] == [said]


def test_a_file_that_a_crash_filled_with_zeros(tmp_path: Path) -> None:
    for data in (pcap_bytes(records_of(SAMPLE)), pcapng_bytes(records_of(SAMPLE))):
        capture = read_bytes(tmp_path, data + bytes(100_000))
        assert len(capture.frame) == len(SAMPLE)
        assert f"damaged at byte {len(data)}" in capture.problems[0]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(changes=st.lists(st.tuples(st.integers(24, 700), st.integers(0, 255)), min_size=1, max_size=5), ng=st.booleans())
def test_damage_anywhere_leaves_the_packets_before(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], ng: bool
) -> None:
    make = pcapng_bytes if ng else pcap_bytes
    records = records_of(SAMPLE, snap=80)
    data = bytearray(make(records))
    folder = tmp_path_factory.mktemp("damaged")
    whole = read_bytes(folder, bytes(data)).frame
    for at, value in changes:
        data[min(at, len(data) - 1)] = value
    first_change = min(*(at for at, _ in changes), len(data))
    intact = sum(len(make(records[: count + 1])) <= first_change for count in range(len(records)))
    assert read_bytes(folder, bytes(data)).frame.iloc[:intact].equals(whole.iloc[:intact])


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"test\.pcap: not a pcap .* starts with the bytes 68 65 6c 6c"):
        read_bytes(tmp_path, b"hello, world")
    with pytest.raises(CaptureError, match="decompress it first"):
        read_bytes(tmp_path, lzma.compress(pcap_bytes(records_of(SAMPLE))))
    with pytest.raises(OSError, match="absent"):
        read_capture(tmp_path / "absent")


def test_a_link_type_nobody_knows(tmp_path: Path) -> None:
    capture = read_bytes(tmp_path, pcap_bytes(records_of(SAMPLE), link_type=147))
    assert capture.frame["wire_bytes"].tolist() == [len(packet) for packet in SAMPLE]
    assert "7 packets have the link type 147, which is not understood" in capture.problems[0]


# What is opened


def test_gzip_is_read_as_it_comes(tmp_path: Path) -> None:
    plain = read_bytes(tmp_path, pcap_bytes(records_of(SAMPLE)))
    packed = read_bytes(tmp_path, gzip.compress(pcap_bytes(records_of(SAMPLE))))
    pd.testing.assert_frame_equal(packed.frame, plain.frame)
    assert packed.problems == []


def test_damaged_gzip_gives_what_there_was_before(tmp_path: Path) -> None:
    packed = gzip.compress(pcap_bytes(records_of([*SAMPLE] * 50)), mtime=0)
    for data in (packed[: len(packed) // 2], packed[:-8] + bytes(8), packed[:60] + b"\xff" * 20 + packed[80:]):
        capture = read_bytes(tmp_path, data)
        assert "its compression is damaged" in " ".join(capture.problems)
    assert len(read_bytes(tmp_path, packed[:-8] + bytes(8)).frame) == 50 * len(SAMPLE)


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 3 << 20)
    with pytest.raises(CaptureError, match="more than 3145728 bytes when unpacked"):
        read_bytes(tmp_path, gzip.compress(bytes(8 << 20)))


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        kinds = {".": "a folder", "pipe": "a pipe", "socket": "a socket", "/dev/zero": "a device"}
        for path, kind in ((tmp_path / name, kind) for name, kind in kinds.items()):
            with pytest.raises(CaptureError, match=f"{path}: {kind}, not a file"):
                read_capture(path)


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(files.MAX_FILE_BYTES + 1)
    with pytest.raises(CaptureError, match="at most"):
        read_capture(path)
