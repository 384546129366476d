"""What every kind of entry of an experiment's `traffic` can say of itself, so that nobody asks which kind it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from emulator.topology import LeafSpine
from experiments.spec.fields import Keys
from traffic.collectives import Outline
from traffic.schedule import Schedule


class TrafficEntry(Keys):
    """One entry. `key` is the key that tells its kind, `example` an entry as it may be written."""

    key: ClassVar[str]
    example: ClassVar[str]

    @abstractmethod
    def names(self) -> tuple[str, str]:
        """Return the names of the collective and its algorithm, as its schedule has them."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Return what people call it, where `settings` need not tell it from another."""

    @property
    def file(self) -> Path | None:
        """Return the file that it is read from, under `key`, if it is."""
        return None

    @property
    def parts(self) -> Sequence[TrafficEntry]:
        """Return the entries that it is made of, written as a list under `key`, if it is."""
        return ()

    @property
    def seeded(self) -> bool:
        """Return whether what is sent depends on the seed."""
        return False

    def settings(self) -> dict[str, Any]:
        """Return the settings that can tell it from another entry of the same label, as they are written."""
        return {}

    def flow_count(self, topology: LeafSpine) -> int:
        """Return how many flows it lists on this fabric; 0 where that cannot be told beforehand."""
        return 0

    @abstractmethod
    def schedule(self, topology: LeafSpine, placement: str, seed: int) -> Schedule:
        """Return its flows. Raises ScheduleError or FormatError where there can be none."""

    def outline(self, topology: LeafSpine, placement: str) -> Outline | None:
        """Return what can be said of its flows without listing them; None where only the list says what they are."""
        return None

    def blamed(self, message: str) -> tuple[str, ...]:
        """Return the key that an error of `schedule` speaks of, if it does."""
        return (self.key,)
