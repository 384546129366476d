"""Unmodified programs on the fabric: what they find, how their packets spread, how they end."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import inside_programs
import pandas as pd
import pytest
from test_command import COMMAND, alive, descendants, experiment, host_state, run, started, wait_until

from controllers.dataplane import PLANES
from emulator.programs import OUTPUT_LIMIT_BYTES, TIMED_OUT
from emulator.sandbox import Sandbox

TIMEOUT_S = 60
PAYLOAD_MB = inside_programs.SIZE * inside_programs.CONNECTIONS * 2 / 1e6  # of two hosts


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


@pytest.mark.parametrize("dataplane", PLANES)
@pytest.mark.parametrize("scheme", ["spray", "ethereal"])
def test_the_nics_spread_what_programs_send(sandbox: Sandbox, scheme: str, dataplane: str) -> None:
    """Connections of equal size, a multiple of the spines: every uplink carries the same, there and back."""
    for uplinks in sandbox.call(inside_programs.spread, scheme, dataplane, timeout_s=TIMEOUT_S).values():
        assert sum(uplinks) > PAYLOAD_MB
        assert max(uplinks) < 1.1 * sum(uplinks) / len(uplinks)


def test_hosts_have_names_and_ranks(sandbox: Sandbox) -> None:
    script = "hostname; echo $RANK $SPRAYLAB_HOST $SPRAYLAB_ADDRESS; getent hosts h4; ls /sys/class/net; pwd"
    ended, said = sandbox.call(inside_programs.run_once, shell(script), 20.0, timeout_s=TIMEOUT_S)
    assert (ended.status, ended.host, ended.reason) == (0, None, "")
    for host, text in said.items():
        name, ranked, far, *rest = text.decode().split("\n")
        assert name == f"h{host + 1}"
        assert ranked == f"{host} h{host + 1} {inside_programs.SMALL.host_ip(host)}"
        assert far.split() == [inside_programs.SMALL.host_ip(3), "h4"]
        assert set(rest) == {f"h{host + 1}-eth0", "lo", os.getcwd(), ""}  # noqa: PTH109


@pytest.mark.parametrize(
    ("script", "timeout_s", "status", "host", "reason"),
    [
        ("[ $RANK = 2 ] && kill -SEGV $$; sleep 60", 20.0, 139, 2, "h3 was ended by SIGSEGV"),
        ("[ $RANK = 1 ] && sleep 60; true", 1.0, TIMED_OUT, 1, "h2 has not ended within 1 s"),
        (
            "[ $RANK = 1 ] && trap '' TERM && while :; do sleep 0.1; done; sleep 1; [ $RANK = 3 ] && exit 7; sleep 60",
            20.0, 7, 3, "h4 ended with exit status 7; h2 did not heed SIGTERM and had to be killed",
        ),
        ("(setsid sleep 60 &); true", 20.0, 0, None, ""),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_is_named_and_ends_all(
    sandbox: Sandbox, script: str, timeout_s: float, status: int, host: int | None, reason: str
) -> None:
    """(That the sandbox's own processes are all that is left is what `run_program` waits for.)"""
    ended, _ = sandbox.call(inside_programs.run_once, shell(script), timeout_s, timeout_s=TIMEOUT_S)
    assert (ended.status, ended.host, ended.reason) == (status, host, reason)


@pytest.mark.parametrize(
    ("congestion_control", "said"),
    [
        ("reno", r"\A10\.0\.0\.0/8 via 10\.0\.255\.254 dev h1-eth0 .*onlink .*congctl reno"),
        (None, r"\Adefault via 10\.0\.255\.254 dev h1-eth0 (?!.*congctl)"),
        ("nosuch", r"\Atransport\.congestion_control: this kernel has no nosuch \(.+\)\Z"),
    ],
)
def test_a_programs_host_reaches_the_fabric_alone_and_by_its_congestion_control(
    sandbox: Sandbox, congestion_control: str | None, said: str
) -> None:
    routes = sandbox.call(inside_programs.routes, congestion_control, timeout_s=TIMEOUT_S)
    assert re.search(said, routes)
    assert ("default" in routes) == (congestion_control is None)


def test_a_flood_is_cut_and_the_program_goes_on(sandbox: Sandbox) -> None:
    script = "[ $RANK = 1 ] && head -c 100000000 /dev/zero; exit 0"
    ended, said = sandbox.call(inside_programs.run_once, shell(script), 50.0, timeout_s=TIMEOUT_S)
    assert ended.status == 0
    assert ended.output_bytes == {0: 0, 1: 100_000_000, 2: 0, 3: 0}
    assert len(said[1]) == OUTPUT_LIMIT_BYTES


def test_exec_measures_judges_and_leaves_nothing(tmp_path: Path) -> None:
    before, hosts_file = host_state(), Path("/etc/hosts").read_bytes()
    script = "[ $RANK = 3 ] && echo from $SPRAYLAB_HOST; exit $((RANK / 3 * 5))"
    out = tmp_path / "out"
    done = run("exec", str(experiment(tmp_path)), "--out", str(out), "--", *shell(script))
    assert done.returncode == 5
    assert "h4: from h4" in done.stdout
    said = " ".join(done.stdout.split())
    assert "did not finish: h4 ended with exit status 5" in said and "0 of 3 runs are done; go on with" in said
    [failed] = pd.read_csv(out / "failed_runs.csv").to_dict("records")
    assert (failed["run_id"], failed["reason"]) == ("001-sh-ecmp-s1", "h4 ended with exit status 5")
    assert (out / "output" / "001-sh-ecmp-s1" / "h4.log").read_text() == "from h4\n"
    assert host_state() == before
    assert Path("/etc/hosts").read_bytes() == hosts_file


def test_an_interrupt_ends_programs_that_will_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = "trap '' TERM INT; echo ready; while :; do sleep 0.1; done"
    with started("exec", str(experiment(tmp_path)), "--out", str(out), "--", *shell(script)) as process:
        logs = out / "output" / "001-sh-ecmp-s1"
        assert wait_until(lambda: logs.exists() and all(log.read_text() for log in logs.glob("*.log")))
        below = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130
        assert wait_until(lambda: not alive(below))


def test_shell_takes_commands_from_a_pipe(tmp_path: Path) -> None:
    named = socket.gethostname()
    lines = "h1 hostname\nh1 hostname elsewhere\nh1 hostname\nh2 hostname\nh1 hostname -I\n"
    lines += "links\npaths h1 h3 40000 5201\nqueues\nxterm h1\nexit\nh1 echo never\n"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "experiments.cli", "shell", str(experiment(tmp_path)), "--scheme", "spray"],
        input=lines, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("h1\nelsewhere\nh2\n"), done.stdout
    assert socket.gethostname() == named
    assert "10.0.0.1" in done.stdout
    assert "leaf2-spine2" in done.stdout
    assert "h1-eth0 -> leaf1-eth3 -> spine1-eth2 -> leaf2-eth1" in done.stdout
    assert "nothing waits at any of 16 ports" in done.stdout
    assert "never" not in done.stdout


def test_shell_says_in_a_sentence_that_it_cannot_print(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "shell", str(experiment(tmp_path))],
            input="nodes\nlinks\n", stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "spraylab: standard output cannot be written: No space left on device\n"


def test_shell_on_a_terminal(tmp_path: Path) -> None:
    """Ctrl-C ends the host's command and not the shell; Ctrl-D ends the shell."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(COMMAND[0], [*COMMAND, "shell", str(experiment(tmp_path))])
    seen = text = b""
    for expected, typed in (
        (b"spraylab> ", b"h1 sh -c 'echo be''gun; sleep 60; echo en''ded'\n"),
        (b"begun", b"\x03"),
        (b"spraylab> ", b"h2 sh -c 'echo on''ward'\n"),
        (b"onward", b""),
        (b"spraylab> ", b"\x04"),
    ):
        deadline = time.monotonic() + TIMEOUT_S
        while expected not in text and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                text += os.read(terminal, 1 << 16)
        assert expected in text, (seen, text)
        before, _, text = text.partition(expected)
        seen += before + expected
        os.write(terminal, typed)
    assert b"ended" not in seen
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    os.close(terminal)


def test_what_is_in_run_is_there_but_not_what_daemons_are_met_by(tmp_path: Path) -> None:
    """A program, its working directory and the results, all under /run, as on a USB disk."""
    with tempfile.TemporaryDirectory(prefix="spraylab-test-", dir="/run") as place:
        folder, out = Path(place), Path(place) / "results"
        (folder / "program").write_text(
            "#!/bin/sh\npwd; cat beside; ls /run/openvswitch/vswitchd.ctl /run/netns 2>&1\n"
        )
        (folder / "program").chmod(0o755)
        (folder / "beside").write_text("it is there\n")
        done = subprocess.run(
            [*COMMAND, "exec", str(experiment(tmp_path, schemes="ecmp")), "--set", "fabric.dataplane=linux",
             "--set", "captures=hosts", "--hosts", "h1", "--out", str(out), "--", "./program"],
            cwd=place, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        said = (out / "output" / "001-program-ecmp-s1" / "h1.log").read_text() if out.exists() else ""
        captured = [path.name for path in out.glob("captures/*/*.pcap")]
    assert said.startswith(f"{place}\nit is there\n"), done.stdout + done.stderr
    assert "ls: cannot access '/run/openvswitch" in said and "ls: cannot access '/run/netns'" in said
    assert "h1-eth0.pcap" in captured


@pytest.mark.parametrize("plane", PLANES)
def test_a_link_that_is_down_is_shown_and_avoided(tmp_path: Path, plane: str) -> None:
    """Connections open and carry before, while all links of one spine are down, and after."""
    lines = "iperf h1 h3\nlink leaf1 spine1 down\nlinks\n" + "iperf h1 h3\n" * 3 + "link leaf1 spine1 up\nlinks\n"
    done = subprocess.run(
        [*COMMAND, "shell", str(experiment(tmp_path)), "--set", f"fabric.dataplane={plane}",
         "--set", "reaction={network: controller}"],
        input=lines + "iperf h1 h99\niperf h1 h3\n", capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rates = [float(rate) for rate in re.findall(r"^(\S+) Mb/s of payload", done.stdout, re.MULTILINE)]
    assert len(rates) == 5 and min(rates) > 5, done.stdout
    assert re.findall(r"^(\S+) .*  down$", done.stdout, re.MULTILINE) == ["leaf1-spine1"]
    assert "h99 is no host" in done.stdout
