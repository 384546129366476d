"""Whatever signal ends a command, it ends as by Ctrl-C: tidied up, with a sentence and status 128 + n."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.commands import signals

TIMEOUT_S = 30.0
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# A command whose work is a folder in /tmp and a bar that hides the cursor, and which waits to be ended.
COMMAND = """
import signal, sys, tempfile, time
sys.path.insert(0, {root!r})
{before}
import click
from rich.progress import Progress
from experiments.cli import main

@main.command()
def wait():
    with tempfile.TemporaryDirectory(dir={folder!r}), Progress() as bar:
        bar.add_task("waiting")
        print("ready", flush=True)
        time.sleep({seconds})
main(["wait"])
"""


def command(folder: Path, before: str = "", seconds: float = TIMEOUT_S) -> list[str]:
    root = str(Path(__file__).parents[2])
    code = COMMAND.format(root=root, before=before, folder=str(folder), seconds=seconds)
    return [sys.executable, "-I", "-c", code]


def until_ready(descriptor: int) -> bytes:
    seen = b""
    while b"ready" not in seen:
        seen += os.read(descriptor, 4096)
    return seen


def rest(descriptor: int) -> bytes:
    seen = b""
    try:
        while piece := os.read(descriptor, 4096):
            seen += piece
    except OSError:  # how a pseudo-terminal ends
        pass
    return seen


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_a_command_tidily(tmp_path: Path, number: signal.Signals) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command(tmp_path), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        until_ready(ours)
        process.send_signal(number)
        if number != signal.SIGINT:
            process.send_signal(number)  # twice, as a terminal that goes and the shell in it send it
        said = rest(ours)
        assert process.wait(TIMEOUT_S) == 128 + number
    os.close(ours)
    assert list(tmp_path.iterdir()) == []
    assert b"\x1b[?25l" not in said.rpartition(b"\x1b[?25h")[2]  # the cursor is back
    assert b"spraylab: interrupted" in said and b"Traceback" not in said


def test_a_terminal_that_is_gone_keeps_nothing_from_being_tidied_up(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command(tmp_path), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        until_ready(ours)
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGHUP
    assert list(tmp_path.iterdir()) == []


def test_what_was_to_be_ignored_still_is(tmp_path: Path) -> None:
    """As nohup starts a command."""
    ignoring = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    with subprocess.Popen(command(tmp_path, ignoring, 0.5), stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout
        until_ready(process.stdout.fileno())
        process.send_signal(signal.SIGHUP)
        assert process.wait(TIMEOUT_S) == 0


def test_the_same_signal_again_is_the_same_event_but_for_ctrl_c() -> None:
    with signals.raised():
        for number, times in ((signal.SIGTERM, 1), (signal.SIGINT, 2)):
            raised = 0
            for _ in range(2):
                try:
                    os.kill(os.getpid(), number)
                    time.sleep(0.01)
                except signals.Interrupted as interrupt:
                    assert interrupt.number == number
                    raised += 1
            assert raised == times
