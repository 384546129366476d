"""What was to be captured was, at every port, or the run's numbers are not trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from capture_files import ETHER, T0_NS, pcap_bytes
from scapy.layers.inet import IP, TCP
from synthetic import FABRIC, planted

from emulator.files import Folder
from emulator.meters.capture import Which, capture_points
from experiments.captures.summary import analyse
from experiments.judge.evidence import ReplayEvidence
from experiments.judge.invariants import failures

PORT = "leaf1-eth3"
SEGMENT = bytes(ETHER / IP(src="10.0.0.1", dst="10.1.0.1") / TCP())

Fault = Callable[[Path], None]


def captured(run: ReplayEvidence, folder: Path, which: Which) -> None:
    """A file a port, with as many bytes as its interface counted."""
    counted = (run.measured.after - run.measured.before)[["tx_bytes", "rx_bytes"]].sum(axis=1)
    for number, port in enumerate(run.ports):
        if port in capture_points(run.ports, which):
            (folder / f"{port.name}.pcap").write_bytes(pcap_bytes([(SEGMENT, int(counted[number]), T0_NS)]))


def judged(run: ReplayEvidence, folder: Path, which: Which) -> dict[str, list[str]]:
    points = capture_points(run.ports, which)
    taken = pd.DataFrame({"port": [port.name for port in points], "packets": 1, "drops_packets": 0})
    return failures(
        replace(planted(run, captures=taken), captured=analyse(Folder(folder), points, FABRIC), asked=which)
    )


KINDS: list[Which] = ["uplinks", "hosts", "all"]


@pytest.mark.parametrize("which", KINDS)
def test_captures_of_every_port_that_was_asked_for_pass(healthy: ReplayEvidence, tmp_path: Path, which: Which) -> None:
    captured(healthy, tmp_path, which)
    assert judged(healthy, tmp_path, which) == {}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda path: path.unlink(), f"{PORT}: was to be captured, and its file is missing"),
        (lambda path: path.write_bytes(pcap_bytes([])), f"{PORT}: its capture has no packets, the interface counted"),
        (lambda path: path.write_bytes(pcap_bytes([(SEGMENT, 54, T0_NS)])), f"{PORT}: 54 bytes were captured, the"),
        (lambda path: path.write_bytes(b"no capture"), "not a pcap or pcapng file"),
        (lambda path: (path.unlink(), path.mkdir()), "its capture is a folder, not a regular file"),
    ],
)
def test_a_port_whose_capture_is_not_there_is_named(
    healthy: ReplayEvidence, tmp_path: Path, fault: Fault, said: str
) -> None:
    captured(healthy, tmp_path, "all")
    fault(tmp_path / f"{PORT}.pcap")
    failed = judged(healthy, tmp_path, "all")
    assert list(failed) == ["captures"]
    [reason] = failed["captures"]
    assert reason.startswith(f"{PORT}: ") and said in reason


def test_all_captures_missing_is_as_many_reasons(healthy: ReplayEvidence, tmp_path: Path) -> None:
    reasons = judged(healthy, tmp_path, "all")["captures"]
    assert reasons == [
        f"{port.name}: was to be captured, and its file is missing" for port in capture_points(healthy.ports, "all")
    ]


def test_captures_that_nobody_took_or_read_fail(healthy: ReplayEvidence, tmp_path: Path) -> None:
    captured(healthy, tmp_path, "uplinks")
    summary = analyse(Folder(tmp_path), capture_points(healthy.ports, "uplinks"), FABRIC)
    asked, taken = replace(healthy, asked="uplinks"), pd.DataFrame(columns=["port", "packets", "drops_packets"])
    for run, verb in ((replace(asked, captured=summary), "taken"), (planted(asked, captures=taken), "read")):
        assert failures(run) == {
            "captures": [f"{PORT} and 3 other ports were to be captured, and no capture was {verb}"]
        }


def test_a_port_that_nobody_looked_for_is_missed(healthy: ReplayEvidence, tmp_path: Path) -> None:
    captured(healthy, tmp_path, "uplinks")
    points = capture_points(healthy.ports, "uplinks")
    taken = pd.DataFrame({"port": [port.name for port in points], "packets": 1, "drops_packets": 0})
    run = replace(
        planted(healthy, captures=taken), captured=analyse(Folder(tmp_path), points[1:], FABRIC), asked="uplinks"
    )
    assert failures(run) == {"captures": [f"{PORT}: was to be captured, and no capture was read"]}


def test_nothing_is_asked_where_nothing_was_to_be_captured(healthy: ReplayEvidence) -> None:
    assert failures(healthy) == {}
