"""`captures`: what it says of a user's own captures, what it writes, and that nothing in them makes it fail."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from capture_files import (
    ETHER,
    SAMPLE,
    T0_NS,
    block,
    enhanced,
    interface,
    pcap_bytes,
    pcapng_bytes,
    records_of,
    section,
    tcp_packet,
)
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import GRE, Dot1Q

from experiments.captures.decode import read_capture
from experiments.captures.files import CaptureError
from experiments.captures.overview import overview, with_addresses
from experiments.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["captures", *map(str, arguments)])


def lines(result: Result) -> dict[str, str]:
    """What is said, by what it is about."""
    assert result.exit_code == 0, result.output
    split = (line.strip().partition(":") for line in result.stdout.splitlines() if line.startswith("  "))
    return {about: said.strip() for about, _, said in split}


SENT = [tcp_packet(seq=seq) for seq in (1000, 2000, 1000, 3000, 1500)]  # the third and half of the last again
SACK = ("SAck", (1500, 2500))
ACK = ETHER / IP(src="10.1.0.1", dst="10.0.0.1") / TCP(sport=5001, dport=40001, ack=4000, flags="A", options=[SACK])


def test_the_summary_of_a_capture(tmp_path: Path) -> None:
    records = [(data, wire, T0_NS + number * 100_000_000) for number, (data, wire, _) in enumerate(records_of(SENT))]
    (tmp_path / "mine.pcap").write_bytes(pcap_bytes(records))
    assert lines(run(tmp_path / "mine.pcap")) == {
        "packets": "5; 5 of them TCP, 0 IPv6, 0 not IP",
        "bytes": "5,330 on the wire",
        "first": "2023-11-14 22:13:20.123456 UTC",
        "last": "2023-11-14 22:13:20.523456 UTC, 0.400000 s later",
        "flows": "1, each way counts",
        "goodput": "60 kb/s: 3,000 bytes of TCP data, each counted once",
        "retransmitted": "2 of 5 data segments (40.00%), 2,000 bytes seen before",
    }


def test_what_the_receiver_reports_as_duplicate_was_spurious(tmp_path: Path) -> None:
    duplicate = ETHER / IP(src="10.1.0.1", dst="10.0.0.1") / TCP(
        sport=5001, dport=40001, ack=4000, flags="A", options=[("SAck", (1000, 2000))]
    )  # fmt: skip
    (tmp_path / "mine.pcap").write_bytes(pcap_bytes(records_of([*SENT[:4], duplicate])))
    said = lines(run(tmp_path / "mine.pcap"))
    assert said["retransmitted"].endswith("1,000 bytes seen before; 1 spurious, as the receiver said (DSACK)")
    assert said["flows"] == "2, each way counts"


def test_odd_packets_are_counted_with_the_reason(tmp_path: Path) -> None:
    wrong = ETHER / IP(src="10.0.0.1", dst="10.0.0.2", len=60000) / TCP()
    records = [*records_of([SAMPLE[0], wrong]), *records_of(SAMPLE[4:6]), *records_of(SAMPLE[:1], snap=40)]
    (tmp_path / "mine.pcap").write_bytes(pcap_bytes(records))
    result = run(tmp_path / "mine.pcap")
    assert (
        lines(result)["odd packets"] == "2 of an uncommon layout, 1 captured too short, 1 with headers that cannot be"
    )
    assert "problem:       1 of 5 packets have headers that cannot be" in result.stdout


def test_a_capture_without_packets(tmp_path: Path) -> None:
    for data in (b"", pcap_bytes([]), section("<")):
        (tmp_path / "empty.pcap").write_bytes(data)
        said = lines(run(tmp_path / "empty.pcap", "--parquet", tmp_path / "out"))
        assert said["packets"].startswith("0;") and said["goodput"] == "no TCP data"
        assert len(pd.read_parquet(tmp_path / "out")) == 0


def test_packets_of_all_files_as_parquet(tmp_path: Path) -> None:
    (tmp_path / "one.pcap").write_bytes(pcap_bytes(records_of(SAMPLE)))
    (tmp_path / "none.pcap").write_bytes(pcap_bytes([]))
    (tmp_path / "two.pcapng.gz").write_bytes(gzip.compress(pcapng_bytes(records_of(SAMPLE[4:]))))
    files = [tmp_path / name for name in ("none.pcap", "one.pcap", "two.pcapng.gz")]
    assert run(*files, "--parquet", tmp_path / "out.parquet").exit_code == 0
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert frame.file.value_counts().to_dict() == {str(files[1]): 7, str(files[2]): 3}
    assert frame.src.tolist()[:5] == ["10.0.0.1", "10.0.0.1", "10.0.0.1", "", "fe80::1"]
    assert frame.dst.tolist()[-3:] == ["ff02::2", "10.0.0.8", "10.1.0.1"]
    whole = read_capture(files[1]).frame.drop(columns=["link", "direction"])
    pd.testing.assert_frame_equal(frame[frame.file == str(files[1])][whole.columns].reset_index(drop=True), whole)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pipe", "a pipe, not a file"),
        (".", "a folder, not a file"),
        ("/dev/zero", "a device, not a file"),
        ("text", "not a pcap or pcapng file"),
        ("absent", "cannot be read: No such file or directory"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("n" * 300, "cannot be read: File name too long"),
    ],
)
def test_what_is_no_capture_is_one_sentence(tmp_path: Path, name: str, said: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "text").write_text("once upon a time")
    (tmp_path / "good").write_bytes(pcap_bytes(records_of(SAMPLE)))
    result = run(tmp_path / "good", tmp_path / name, "--parquet", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and f"{tmp_path / name}" in result.stderr and said in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "loop", "pipe", "text"], (
        "nothing is half written"
    )


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.pcap").write_bytes(pcap_bytes(records_of(SAMPLE)))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "old").write_text("old")
    before = os.stat("/dev/null").st_rdev  # noqa: PTH116
    for path in ("/dev/null", tmp_path / "pipe", tmp_path / "link", tmp_path):
        result = run(tmp_path / "mine.pcap", "--parquet", path)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert f"{path} is no regular file" in result.stderr
    assert Path("/dev/null").is_char_device() and os.stat("/dev/null").st_rdev == before  # noqa: PTH116
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink() and not (tmp_path / "elsewhere").exists()
    assert run(tmp_path / "mine.pcap", "--parquet", tmp_path / "old").exit_code == 0
    assert len(pd.read_parquet(tmp_path / "old")) == len(SAMPLE)


def test_a_capture_is_never_replaced_by_its_packets(tmp_path: Path) -> None:
    path = tmp_path / "mine.pcap"
    path.write_bytes(pcap_bytes(records_of(SAMPLE)))
    before = path.read_bytes()
    result = run(path, "--parquet", tmp_path / "." / "mine.pcap")
    assert (result.exit_code, path.read_bytes()) == (2, before)
    assert "is one of the captures" in result.stderr


def test_where_the_caller_may_not_write_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine.pcap").write_bytes(pcap_bytes(records_of(SAMPLE)))
    result = run(tmp_path / "mine.pcap", "--parquet", tmp_path / "nowhere" / "out")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "cannot write" in result.stderr


def test_names_of_any_bytes(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff[red]\x1b[2J\n.pcap"))
    path.write_bytes(pcap_bytes(records_of(SAMPLE)))
    result = run(path, "--parquet", tmp_path / "out")
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert (
        pd.read_parquet(tmp_path / "out")
        .file.iloc[0]
        .endswith("[red]\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}.pcap")
    )


# Mutations

ODD = [
    ETHER / IPv6(src="::1", dst="::2") / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment() / TCP(options=[SACK]) / b"data",
    ETHER / IPv6(src="::1", dst="::2") / ICMPv6PacketTooBig() / IPv6(src="::2", dst="::1") / TCP(),
    ETHER / Dot1Q() / IP(src="10.0.0.1", dst="10.0.0.2") / GRE() / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(),
]
RECORDS = records_of([*SENT, ACK, *SAMPLE, *ODD], snap=90)
SEEDS = [
    pcap_bytes(RECORDS),
    pcap_bytes(RECORDS, ">", nanoseconds=True, link_type=101),
    pcapng_bytes(RECORDS),
    section(">") + interface(">", 0x80 | 20, offset_s=-5) + interface(">", 3, link_type=101) + block(">", 4, bytes(8))
    + b"".join(enhanced(">", record, number << 40, number % 2) for number, record in enumerate(RECORDS))
    + block(">", 3, struct.pack(">I", 70) + RECORDS[0][0][:70]) + section("<") + interface("<", 127),
]  # fmt: skip
SEEDS += [gzip.compress(data, mtime=0) for data in SEEDS[::2]]

place = st.sampled_from([number / 997 for number in range(997)])  # anywhere alike, where floats would like 0 best
change = st.one_of(
    st.tuples(st.just("set"), place, st.sampled_from([b"\0", b"\x01", b"\x7f", b"\x80", b"\xff"])),
    st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("set"), place, st.sampled_from([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"])),
    st.tuples(st.just("set"), place, st.sampled_from([b"\x86\xdd", b"\x88\x47", b"\x88\x64", b"\x81\0"])),
    st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("cut"), place, st.binary(max_size=20)),  # as many bytes as these
    st.tuples(st.just("end"), place, st.just(b"")),
)


def mutated(data: bytes, changes: Sequence[tuple[str, float, bytes]]) -> bytes:
    for kind, share, value in changes:
        at = int(share * len(data))
        if kind == "end":
            data = data[:at]
        else:
            data = data[:at] + (b"" if kind == "cut" else value) + data[at + (kind != "insert") * len(value) :]
    return data


def reads_or_refuses(path: Path, seed: int, changes: Sequence[tuple[str, float, bytes]]) -> bool:
    """Whether the mutated file was read. Raises whatever else comes of it than CaptureError."""
    path.write_bytes(mutated(SEEDS[seed], changes))
    try:
        capture = read_capture(path)
    except CaptureError:
        return False
    assert overview(capture)["packets"].startswith(f"{len(capture.frame):,};")
    assert len(with_addresses(capture, "x")) == len(capture.frame) == capture.counts["packets"]
    return True


seeds, many_changes = st.integers(0, len(SEEDS) - 1), st.lists(change, min_size=1, max_size=4)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=seeds, changes=many_changes)
def test_a_mutated_file_is_read_or_refused(tmp_path: Path, seed: int, changes: list[tuple[str, float, bytes]]) -> None:
    reads_or_refuses(tmp_path / "mutated", seed, changes)


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_what_is_mutated_is_read_whole(tmp_path: Path, seed: int) -> None:
    assert reads_or_refuses(tmp_path / "whole", seed, [])
    assert len(read_capture(tmp_path / "whole").frame) == len(RECORDS) + (seed == 3)
