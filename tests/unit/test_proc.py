"""What /proc told once is taken apart to what it says, and so is what it tells here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator import proc

NET_DEV = b"""Inter-|   Receive                            |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 60236510 19437   1    2    0     0     0         0     60236511 19438  0    0    0     0     0       0
h1-eth0:1500     2       0    0    0     0     0         0     3000     4      3    4    0     0     0       0
"""


def test_interface_counters_tell_ways_apart_and_add_errors_to_drops() -> None:
    """A long count leaves no blank after the colon."""
    assert proc.interface_counters(NET_DEV) == {
        "lo": (60236510, 19437, 3, 60236511, 19438, 0),
        "h1-eth0": (1500, 2, 0, 3000, 4, 7),
    }


def test_stolen_time_is_busy_and_guests_time_is_not_counted_twice() -> None:
    cpu = proc.machine_cpu(b"cpu  100 20 30 4000 50 6 7 8 90 15\ncpu0 1 2 3\n")
    assert cpu == (4050, 171, 8)
    assert cpu.total_ticks == 4221


@settings(derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**20)), min_size=8, max_size=8))
def test_what_was_counted_between_two_readings_is_all_that_passed(counts: list[tuple[int, int]]) -> None:
    before, after = (b"cpu  %s" % b" ".join(b"%d" % number for number in row) for row in zip(
        *((first, first + more) for first, more in counts), strict=True
    ))  # fmt: skip
    spent = proc.machine_cpu(after).since(proc.machine_cpu(before))
    assert spent.total_ticks == sum(more for _, more in counts)
    assert spent.stolen_ticks == counts[7][1]


@pytest.mark.parametrize("name", [b"ovs-vswitchd", b"a) S 9 9 (b", b") ) )", b""])
def test_a_process_may_have_any_name(name: bytes) -> None:
    stat = proc.process_stat(
        b"812 (%s) Z 41 812 812 0 -1 4194560 100 0 0 0 250 50 0 0 30 10 5 0 1000 1000000 500" % name
    )
    assert stat == ("Z", 41, 300, 10, 1000)
    assert not stat.lives


def test_processes_here() -> None:
    with subprocess.Popen([sys.executable, "-c", "import os; os.nice(5); print(flush=True); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # fmt: skip
        assert child.stdout
        child.stdout.readline()
        stat = proc.read_process_stat(child.pid)
        assert stat and stat.lives and stat.parent_pid == os.getpid() and stat.niceness == os.nice(0) + 5
        assert child.pid in set(proc.process_ids())
        assert (proc.read_command(child.pid) or [""])[0] == sys.executable
        child.kill()
        deadline = time.monotonic() + 10
        while (stat := proc.read_process_stat(child.pid)) and stat.lives and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stat and stat.state == "Z"
    assert proc.read_process_stat(child.pid) is None
    assert proc.read_command(child.pid) is None


def test_sockets_are_found_by_their_inode() -> None:
    with socket.socket() as opened:
        inode = os.fstat(opened.fileno()).st_ino
        assert proc.sockets_of(os.getpid())[inode] == opened.fileno()
    assert inode not in proc.sockets_of(os.getpid())


def test_memory_and_segments_here() -> None:
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < proc.available_memory_bytes() < total_bytes
    assert proc.retransmitted_segments(os.getpid()) >= 0
