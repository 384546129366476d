"""Starts the controller process and tells it what to program."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from emulator.errors import EmulatorError
from emulator.forwarding import Forwarding, as_json
from emulator.inherited import environment, python
from emulator.topology import LeafSpine
from emulator.vigil import release, watch

OPENFLOW_PORT = 6653
_START_TIMEOUT_S = 20.0
_PROGRAM_TIMEOUT_S = 20.0


class Controller:
    """A running OpenFlow controller; `log` receives what it says."""

    def __init__(self, log: TextIO, control_socket: Path = Path("/run/spraylab-controller.sock")) -> None:
        self._path, self._log = control_socket, log
        self._connection: socket.socket | None = None
        self.start()

    def start(self) -> None:
        """Start it, again after `stop`; it knows nothing then. It takes orders a while later, as soon as it can."""
        self._path.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            python("controllers.ovs.app", self._path, OPENFLOW_PORT),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment(),
        )
        watch(self.process.pid, "the OpenFlow controller")

    def wait_ready(self) -> None:
        """Return once it takes orders. Raises EmulatorError if it does not come up."""
        self._connect()

    def program(self, fabric: LeafSpine, seed: int, forwarding: Forwarding | None, *, protected: bool) -> None:
        """Have every switch hold the tables of `fabric`, hashing with `seed`; return once all have confirmed.

        `forwarding` is what leaves do instead of hashing; `protected`, they hold another way for each uplink. Raises
        EmulatorError if a switch refuses a rule or does not answer in time.
        """
        fabric_as_json = {**asdict(fabric), "failed": sorted(fabric.failed)}
        order = {
            "fabric": fabric_as_json,
            "seed": seed,
            "forwarding": as_json(forwarding),
            "protected": protected,
            "timeout_s": _PROGRAM_TIMEOUT_S,
        }
        connection = self._connect()
        try:
            connection.sendall(json.dumps(order).encode() + b"\n")
            answer = connection.makefile().readline()
        except OSError as error:
            self._connection = None  # the answer may still come, and would be taken for that to the next order
            connection.close()
            raise EmulatorError(f"the OpenFlow controller does not answer: {error}") from error
        if not answer:
            raise EmulatorError("the OpenFlow controller ended unexpectedly; its last words are in run.log")
        problem = json.loads(answer)["error"]
        if problem:
            raise EmulatorError(f"programming the fabric failed: {problem}")

    def stop(self) -> None:
        """Kill it."""
        if self._connection:
            self._connection.close()
            self._connection = None
        release(self.process.pid)
        self.process.kill()
        self.process.wait()

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._connection is None:
            candidate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                candidate.connect(str(self._path))
            except OSError as error:
                candidate.close()
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise EmulatorError(
                        "the OpenFlow controller did not start; its last words are in run.log"
                    ) from error
                time.sleep(0.02)
                continue
            candidate.settimeout(_PROGRAM_TIMEOUT_S + 5)
            self._connection = candidate
        return self._connection
