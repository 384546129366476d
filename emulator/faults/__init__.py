"""What can break in a fabric while a load plays: a file a kind, and a clock that has each happen when it is due."""

from __future__ import annotations

from emulator.faults.controller import ControllerDown
from emulator.faults.degrade import Degrade
from emulator.faults.fault import Fault
from emulator.faults.loss import Blackhole, Down, Loss
from emulator.faults.reaction import Reaction

__all__ = ["Blackhole", "ControllerDown", "Degrade", "Down", "Fault", "Loss", "Reaction"]
