"""What the kernel answers, packed by hand, is decoded to what was packed."""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import FABRIC, ports_of

from emulator.meters import meters, sampler
from emulator.meters.meters import COUNTERS, decode, read_counters
from emulator.meters.sampler import RawSample, Yielding
from emulator.netlink import Netlink
from emulator.ports import Port

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ROOT, CHILD = 0xFFFFFFFF, 0x10001
NEW_QDISC, DONE = 36, 3
TCA_KIND, TCA_OPTIONS, TCA_STATS2, TCA_STATS = 1, 2, 7, 3
STATS_BASIC, STATS_QUEUE = 1, 3
NESTED = 0x8000  # NLA_F_NESTED

CPU = b"cpu  100 20 30 4000 50 6 7 8 0 0"
PROCESS = b"812 (ovs-vswitchd) S 1 812 812 0 -1 4194560 100 0 0 0 250 50 0 0 10 -10 5 0 1000 1000000 500"


def attribute(kind: int, payload: bytes) -> bytes:
    """A netlink attribute, padded to four bytes (linux/netlink.h)."""
    return (struct.pack("=HH", 4 + len(payload), kind) + payload).ljust((4 + len(payload) + 3) & ~3, b"\0")


def qdisc(index: int, sent: int, backlog: int, drops: int, parent: int = ROOT, kind: bytes = b"tbf") -> bytes:
    """An RTM_NEWQDISC message as a TBF port's: tcmsg, kind, options, and the statistics old and new."""
    basic = attribute(STATS_BASIC, struct.pack("=QII", sent, 77, 0))
    queue = attribute(STATS_QUEUE, struct.pack("=IIIII", 3, backlog, drops, 5, 6))
    body = struct.pack("=BxxxiIII", 0, index, 0x10000, parent, 2)
    body += attribute(TCA_KIND, kind + b"\0") + attribute(TCA_OPTIONS, b"\1" * 41)
    body += attribute(TCA_STATS2 | NESTED, basic + queue) + attribute(TCA_STATS, b"\2" * 36)
    return message(NEW_QDISC, body)


def message(kind: int, body: bytes) -> bytes:
    return (struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 4242) + body).ljust((16 + len(body) + 3) & ~3, b"\0")


END = message(DONE, bytes(4))


def sample(*queues: tuple[float, bytes], cpu: bytes = CPU, processes: tuple[bytes, ...] = (PROCESS,)) -> RawSample:
    return RawSample(due_s=5.0, woke_s=5.25, queues=list(queues), machine_cpu=cpu, process_cpu=list(processes))


PORTS = ports_of(FABRIC)[:4]  # h1-eth0, leaf1-eth1, h2-eth0, leaf1-eth2
H1, LEAF1, H2 = (PORTS[number].pid for number in (0, 1, 2))


def test_two_token_buckets_of_one_dump() -> None:
    first, second = PORTS[1], PORTS[3]
    answer = qdisc(first.index, 9_014_000_000_123, 18_028, 2) + qdisc(second.index, 54, 0, 0) + END
    queues = decode([sample((7.5, answer))], [LEAF1], PORTS).queues
    assert queues.to_dict("records") == [
        {"time_s": 7.5, "port": 1, "sent_bytes": 9_014_000_000_123, "backlog_bytes": 18_028, "drops_packets": 2},
        {"time_s": 7.5, "port": 3, "sent_bytes": 54, "backlog_bytes": 0, "drops_packets": 0},
    ]


def test_same_index_in_two_namespaces_is_two_ports() -> None:
    assert PORTS[0].index == PORTS[2].index
    answers = [(8.0, qdisc(PORTS[0].index, 10, 0, 0) + END), (8.1, qdisc(PORTS[2].index, 20, 0, 0) + END)]
    queues = decode([sample(*answers)], [H1, H2], PORTS).queues
    assert list(queues.port) == [0, 2] and list(queues.sent_bytes) == [10, 20] and list(queues.time_s) == [8.0, 8.1]


def test_only_root_queues_of_known_ports_count() -> None:
    """A loopback's, and what hangs below a port's own, are none of the port's."""
    port = PORTS[1]
    answer = qdisc(1, 9, 9, 9, kind=b"noqueue") + qdisc(port.index, 100, 0, 0) + END
    answer = qdisc(port.index, 1, 1, 1, CHILD, b"netem") + answer
    queues = decode([sample((1.0, answer))], [LEAF1], PORTS).queues
    assert list(queues.sent_bytes) == [100]


def test_answer_in_several_datagrams() -> None:
    answer = qdisc(PORTS[1].index, 1, 0, 0) + message(2, bytes(20)) + qdisc(PORTS[3].index, 2, 0, 0) + END
    assert list(decode([sample((1.0, answer))], [LEAF1], PORTS).queues.sent_bytes) == [1, 2]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 2**63), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=6))
def test_decodes_what_was_packed(rows: list[tuple[int, int, int]]) -> None:
    samples = [sample((float(number), qdisc(PORTS[1].index, *row) + END)) for number, row in enumerate(rows)]
    queues = decode(samples, [LEAF1], PORTS).queues
    assert list(queues[["sent_bytes", "backlog_bytes", "drops_packets"]].itertuples(index=False, name=None)) == rows
    assert list(queues.columns) == ["time_s", "port", "sent_bytes", "backlog_bytes", "drops_packets"]


def test_cut_off_answer_gives_what_is_whole() -> None:
    whole = qdisc(PORTS[1].index, 1, 0, 0)
    for length in range(0, 36):
        answer = whole + qdisc(PORTS[3].index, 2, 0, 0)[:length]
        assert list(decode([sample((1.0, answer))], [LEAF1], PORTS).queues.sent_bytes) == [1]


PACKET_SOCKETS = b"""sk               RefCnt Type Proto  Iface R Rmem   User   Inode
0000000000000000 3      3    0003   11    1 16640  0      501
0000000000000000 3      3    0003   11    1 99999  0      777
0000000000000000 3      3    0003   1     1 5      0      502
0000000000000000 3      3    0003   13    1 0      0      503
"""


def test_what_waits_for_a_userspace_switch() -> None:
    """Of the switch's own sockets (a capture has others), at the switch's end of links."""
    assert (PORTS[1].index, PORTS[3].index) == (11, 13)
    taken = replace(sample(), packet_sockets=[PACKET_SOCKETS])
    waiting = decode([taken], [], PORTS, frozenset({501, 502, 503})).waiting
    assert waiting.to_dict("records") == [
        {"time_s": 5.25, "port": 1, "waiting_bytes": 16640},
        {"time_s": 5.25, "port": 3, "waiting_bytes": 0},
    ]


def test_what_yields_to_the_fabric_counts_as_idle() -> None:
    [row] = decode([replace(sample(), yielding_ticks=30)], [], PORTS).cpu.to_dict("records")
    assert row["idle_s"] == pytest.approx((4000 + 50 + 30) / TICKS_PER_S)
    assert row["busy_s"] == pytest.approx((100 + 20 + 30 + 6 + 7 + 8 - 30) / TICKS_PER_S)


def test_what_a_niced_process_used_stays_counted_when_it_has_ended() -> None:
    yielding, ended_by_s = Yielding(), time.monotonic() + 30
    before = yielding.ticks()
    with subprocess.Popen([sys.executable, "-c", "import os; os.nice(7)\nwhile True: pass"]) as niced:
        while yielding.ticks() - before < 10 and time.monotonic() < ended_by_s:
            time.sleep(0.05)
        niced.kill()
    used = yielding.ticks() - before
    assert used >= 10
    assert yielding.ticks() - before >= used


def test_cpu_totals() -> None:
    """Idle is idle and waiting for disks; stolen time is time that the machine did not have (proc_stat(5))."""
    [row] = decode([sample()], [], PORTS).cpu.to_dict("records")
    assert row["idle_s"] == pytest.approx((4000 + 50) / TICKS_PER_S)
    assert row["busy_s"] == pytest.approx((100 + 20 + 30 + 6 + 7 + 8) / TICKS_PER_S)
    assert row["time_s"] == 5.25 and row["late_s"] == pytest.approx(0.25)
    assert row["process_s"] == pytest.approx(300 / TICKS_PER_S)


def test_guest_time_is_not_counted_twice() -> None:
    """Time of virtual machines' guests is in user and nice already (proc_stat(5))."""
    [row] = decode([sample(cpu=b"cpu  100 20 30 4000 50 6 7 8 90 15")], [], PORTS).cpu.to_dict("records")
    assert row["busy_s"] == pytest.approx(171 / TICKS_PER_S)


@pytest.mark.parametrize("name", [b"ovs-vswitchd", b"tmux: server", b"a) S 9 9 (b", b"(sd-pam)", b") ) )", b""])
def test_process_names_may_hold_anything(name: bytes) -> None:
    data = PROCESS.replace(b"ovs-vswitchd", name)
    [row] = decode([sample(processes=(data, PROCESS))], [], PORTS).cpu.to_dict("records")
    assert row["process_s"] == pytest.approx(2 * 300 / TICKS_PER_S)


def test_no_watched_process_uses_nothing() -> None:
    [row] = decode([sample(processes=())], [], PORTS).cpu.to_dict("records")
    assert row["process_s"] == 0


def test_kernel_s_own_lines_decode() -> None:
    """This machine's."""
    machine, process = Path("/proc/stat").read_bytes().split(b"\n", 1)[0], Path("/proc/self/stat").read_bytes()
    [row] = decode([sample(cpu=machine, processes=(process,))], [], PORTS).cpu.to_dict("records")
    assert row["busy_s"] > 0 and row["process_s"] == pytest.approx(sum(os.times()[:2]), abs=0.5)


def test_counters_that_stand_still_while_a_frame_is_sent_have_not_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1 Mb/s, a frame of 9,014 bytes moves every 72 ms."""
    shaping = replace(PORTS[0].shaping, rate_bps=1_000_000)
    fabric = SimpleNamespace(ports=[replace(PORTS[0], shaping=shaping)])
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "sleep", lambda seconds: setattr(clock, "now", clock.now + seconds))
    monkeypatch.setattr(meters, "read_counters", lambda _: pd.DataFrame({"tx_packets": [min(10, clock.now // 0.072)]}))
    assert meters.settled_counters(fabric).tx_packets.item() == 10  # type: ignore[arg-type]


def test_reading_that_takes_long_makes_the_next_sample_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """By as much as it came after it was due; the ones after are on time again."""
    clock = SimpleNamespace(now=100.0)
    reading_s = [0.0, 0.01, 0.3, 0.0, 0.0, 0.0, 0.0]

    def read() -> tuple[float, bytes]:
        clock.now += reading_s.pop(0)
        return clock.now, b""

    def sleep(reading: list[object], _: object, __: object, timeout_s: float) -> tuple[list[object], ...]:
        clock.now += timeout_s if reading_s[1:] else 0.0
        return [] if reading_s[1:] else reading, [], []

    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(select, "select", sleep)
    connection = SimpleNamespace(recv=lambda: "stop")
    samples = sampler._sample(connection, [SimpleNamespace(read=read)], [], 0.05)  # type: ignore[arg-type, list-item]
    *samples, _at_the_end = samples
    assert [taken.woke_s - taken.due_s for taken in samples] == pytest.approx([0, 0, 0, 0.25, 0, 0])
    assert [taken.woke_s for taken in samples] == pytest.approx([100.0, 100.05, 100.1, 100.4, 100.45, 100.5])


def test_a_glance_shows_the_last_sample_and_sampling_goes_on() -> None:
    ours, theirs = multiprocessing.Pipe()
    taken: list[object] = []
    asking = threading.Thread(
        target=lambda: taken.extend(
            sampler._sample(theirs, [SimpleNamespace(read=lambda: (time.monotonic(), b""))], [], 0.01)  # type: ignore[list-item]
        )
    )
    asking.start()
    ours.send(sampler.GLANCE)
    assert ours.poll(10)
    seen = ours.recv()
    time.sleep(0.1)
    ours.send("stop")
    asking.join(10)
    assert seen in taken and len(taken) > taken.index(seen) + 2


class OneHost:
    """A fabric whose one port is this machine's loopback."""

    def __init__(self) -> None:
        port = PORTS[0]
        self.ports = [Port("lo", "here", "lo", os.getpid(), 1, port.shaping, 0, None, 0, up=True)]

    def netlink_of(self, pid: int) -> Netlink:
        assert pid == os.getpid()
        return Netlink()


def test_counters_count_what_crosses() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        before = read_counters(OneHost())  # type: ignore[arg-type]
        for _ in range(20):
            ours.sendto(bytes(1000), ours.getsockname())
        delta = (read_counters(OneHost()) - before).iloc[0]  # type: ignore[arg-type]
    assert list(delta.index) == COUNTERS
    for way in ("rx", "tx"):
        assert delta[f"{way}_packets"] >= 20
        assert delta[f"{way}_bytes"] >= 20 * (1000 + 8 + 20)
        assert delta[f"{way}_bytes"] / delta[f"{way}_packets"] > 60
        assert delta[f"{way}_drops"] < 20
