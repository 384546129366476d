"""Running a command to its end."""

from __future__ import annotations

import subprocess

from emulator.errors import EmulatorError
from emulator.inherited import environment

COMMAND_TIMEOUT_S = 30.0


def run(arguments: list[str], text: str | None = None) -> str:
    """Run a command and return its output; EmulatorError says what it complained about."""
    try:
        done = subprocess.run(
            arguments, input=text, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False,
            env=environment(),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise EmulatorError(f"{arguments[0]} is not installed: run ./spraylab once as root to install it") from error
    except subprocess.TimeoutExpired as error:
        raise EmulatorError(f"{arguments[0]} did not finish in {COMMAND_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        complaint = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise EmulatorError(f"{arguments[0]} failed with exit status {done.returncode}: {complaint[-1]}")
    return done.stdout
