"""Captures: live before the first byte, complete to the last, and honest about what they missed."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import inside_capture
import pandas as pd
import pytest

from controllers.dataplane import PLANES
from emulator.sandbox import Sandbox
from emulator.topology import LeafSpine
from experiments.captures.decode import read_capture
from experiments.captures.queueing import queueing_delay

SMALL = LeafSpine(2, 2, 2)
TIMEOUT_S = 60
SYN, ACK = 0x02, 0x10


def _frame(directory: Path, port_name: str) -> pd.DataFrame:
    capture = read_capture(directory / f"{port_name}.pcap", port_name)
    assert capture.problems == []
    return capture.frame


def _address(host: int) -> int:
    return int(ipaddress.IPv4Address(SMALL.host_ip(host)))


@pytest.mark.parametrize("dataplane", PLANES)
def test_captures_hold_what_the_interfaces_count(sandbox: Sandbox, tmp_path: Path, dataplane: str) -> None:
    directory = tmp_path / "captures"
    arguments = (SMALL, dataplane, "all", 400_000, directory)
    taken, left_over = sandbox.call(inside_capture.shift, *arguments, timeout_s=TIMEOUT_S)
    assert left_over == []
    assert sorted(path.stem for path in directory.iterdir()) == sorted(each.port.name for each in taken)
    assert len(taken) == SMALL.hosts + SMALL.leaves * SMALL.spines
    assert sum(each.sent_bytes for each in taken) >= 8 * SMALL.wire_bytes(400_000) / 2
    for each in taken:
        frame = _frame(directory, each.port.name)
        below = [each.port.host] if each.port.host is not None else SMALL.hosts_of(each.port.leaf)
        was_sent = frame.src_ip.isin([_address(host) for host in below])
        assert (frame.wire_bytes[was_sent].sum(), was_sent.sum()) == (each.sent_bytes, each.sent_packets)
        assert (frame.wire_bytes[~was_sent].sum(), (~was_sent).sum()) == (each.received_bytes, each.received_packets)
        assert (each.captured_packets, each.drops_packets) == (len(frame), 0)
        if each.port.host is not None:  # the connections it makes and accepts begin with a SYN and a SYN-ACK each
            assert sorted(frame.tcp_flags[frame.tcp_flags & SYN > 0]) == [SYN, SYN, SYN | ACK, SYN | ACK]


@pytest.mark.parametrize("dataplane", PLANES)
def test_a_packet_is_seen_leaving_after_the_queue_and_arriving_before_it(
    sandbox: Sandbox, tmp_path: Path, dataplane: str
) -> None:
    """Two hosts send into one uplink: their packets wait in its queue, and nowhere between two ends of a link."""
    points = sandbox.call(inside_capture.two_into_one, SMALL, dataplane, 500_000, tmp_path, timeout_s=TIMEOUT_S)
    senders = [_address(host) for host in SMALL.hosts_of(0)]

    def sent_up(port_name: str) -> pd.DataFrame:
        frame = _frame(tmp_path, port_name)
        return frame[frame.src_ip.isin(senders) & (frame.payload_bytes > 0)]

    lower, upper = ([point for point in points if point.up is up] for up in (True, False))
    [uplink] = [point for point in lower if point.spine is not None]
    before = pd.concat([sent_up(point.name) for point in upper if point.host is not None], ignore_index=True)
    waits = queueing_delay(before, sent_up(uplink.name))
    crossings = [queueing_delay(sent_up(point.name), sent_up(point.peer)) for point in lower]

    assert [hop.lost_packets + hop.duplicated_packets + hop.stray_packets for hop in (waits, *crossings)] == [0] * 4
    frame_ns = (SMALL.mtu_bytes + 14) * 8e9 / SMALL.fabric_rate_bps
    assert waits.packets.delay_ns.max() > 5 * frame_ns, "the queue never grew: nothing was tested"
    for hop in crossings:
        assert hop.packets.delay_ns.min() >= 0
        assert hop.packets.delay_ns.median() < frame_ns

    departures = sent_up(uplink.name)
    took_ns = departures.time_ns.iloc[-1] - departures.time_ns.iloc[0]
    assert departures.wire_bytes.iloc[1:].sum() * 8e9 / took_ns < 1.03 * SMALL.fabric_rate_bps


def test_what_did_not_fit_the_buffer_is_reported(sandbox: Sandbox, tmp_path: Path) -> None:
    packets, drops = sandbox.call(inside_capture.behind_a_stopped_process, 2000, tmp_path, timeout_s=TIMEOUT_S)
    assert packets + drops == 2000
    assert packets > 0
    assert drops > 0
    assert len(_frame(tmp_path, inside_capture.WIRE)) == packets


def test_a_capture_holds_all_up_to_its_end(sandbox: Sandbox, tmp_path: Path) -> None:
    packets, drops, next_packets = sandbox.call(inside_capture.under_traffic, 2000, tmp_path, timeout_s=TIMEOUT_S)
    assert (packets, drops) == (2000, 0)
    assert next_packets == 0
    frame = _frame(tmp_path / "first", inside_capture.WIRE)
    assert len(frame) == 2000
    assert (frame.wire_bytes == 1000).all()
    assert (tmp_path / "first" / f"{inside_capture.WIRE}.pcap").stat().st_size == 24 + 2000 * (16 + 128)


def test_a_capture_survives_an_outage(sandbox: Sandbox, tmp_path: Path) -> None:
    assert sandbox.call(inside_capture.through_an_outage, 400, tmp_path, timeout_s=TIMEOUT_S) == (400, 0)


def test_captures_belong_to_the_user_who_called_sudo(sandbox: Sandbox) -> None:
    owners = sandbox.call(inside_capture.for_a_caller, 12345, 23456, timeout_s=TIMEOUT_S)
    assert owners == {"captures": (12345, 23456), f"{inside_capture.WIRE}.pcap": (12345, 23456)}


def test_what_cannot_be_captured_is_said(sandbox: Sandbox, tmp_path: Path) -> None:
    said = sandbox.call(inside_capture.complaints, tmp_path, timeout_s=TIMEOUT_S)
    assert said["no such port"].startswith("cannot capture on nosuch: ")
    assert said["not a directory"] == f"cannot write captures to {tmp_path / 'a file'}: File exists"
    assert said["disk full"] == "/run/full/wire0.pcap could not be written to its end: is the disk full?"
    assert said["port gone"].startswith(f"cannot capture on {inside_capture.WIRE}: ")
    assert said["left over"] == "[]"


def test_captures_of_a_failed_run_end_with_it(sandbox: Sandbox, tmp_path: Path) -> None:
    assert sandbox.call(inside_capture.abandoned, tmp_path, timeout_s=TIMEOUT_S) == []
