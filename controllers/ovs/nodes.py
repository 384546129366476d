"""Mininet's Open vSwitch bridge and remote controller, made without a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from mininet.node import OVSSwitch, RemoteController

from emulator.command import run
from emulator.nodes import Shellless


class FabricSwitch(Shellless, OVSSwitch):
    """An Open vSwitch bridge that speaks OpenFlow 1.3, started together with all others in one transaction."""

    @classmethod
    def batchStartup(cls, switches: Sequence[Any], _: Any = None) -> Sequence[Any]:
        arguments = ["ovs-vsctl"]
        for switch in switches:
            for command in switch.commands:
                arguments += shlex.split(command)
            switch.commands, switch.batch = [], False
        run(arguments)
        return switches


class FabricController(Shellless, RemoteController):
    """Mininet's note of where the switches find the controller, which runs already."""

    def checkListening(self) -> None:
        pass
