"""The key `sweep` of an experiment: which of its keys take several values, and which values go together."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationInfo

from emulator.inputs import quote
from experiments.spec.fields import Auto, some
from experiments.spec.messages import shown
from traffic.formats import FORMATS

MAX_POINTS = 1000

_SECTION = re.compile(r"^(strain|fabric|transport|reaction)\.")

TOGETHER = "zip"
LISTS = ("traffic", "schemes", "seeds")  # of which every experiment takes several anyhow
NOT_SWEPT = ("name", "sweep")


@dataclass(frozen=True)
class Sweep:
    """The values of each key, in the order of the file; `together`: the first of all go together, then the second."""

    axes: Mapping[str, tuple[Any, ...]]
    together: bool = False

    @property
    def points(self) -> int:
        """Return how many settings there are."""
        values = [len(values) for values in self.axes.values()]
        return values[0] if self.together else prod(values)

    def settings(self) -> list[dict[str, Any]]:
        """Return every combination of values that is to be tried, by key; of a product, the last key varies fastest."""
        values = self.axes.values()
        combined = zip(*values, strict=True) if self.together else product(*values)
        return [dict(zip(self.axes, each, strict=True)) for each in combined]

    def label(self, setting: Mapping[str, Any]) -> str:
        """A setting for people: 'jitter=5%, spines=4', without the sections in which keys have names of their own."""
        return ", ".join(f"{_SECTION.sub('', key)}={text}" for key, text in self.told(setting).items())

    def told(self, setting: Mapping[str, Any]) -> dict[str, str]:
        """The values of a setting as they may be written on a line, the same wherever files that they name lie."""
        return {key: self._texts[key][as_text(value)] for key, value in setting.items()}

    @cached_property
    def _texts(self) -> dict[str, dict[str, str]]:
        """By key and value: of files only their names, and a number behind where that is not enough."""
        found: dict[str, dict[str, str]] = {}
        for key, values in self.axes.items():
            count: Counter[str] = Counter()
            texts = found[key] = {}
            for value in values:
                text = as_text(with_files(key, value, lambda path: Path(path).name))
                count[text] += 1
                texts[as_text(value)] = text if count[text] == 1 else f"{text}-{count[text]}"
        return found

    def with_files(self, change: Callable[[str], str]) -> Sweep:
        """Return the same sweep with other names of files."""
        return replace(
            self,
            axes={key: tuple(with_files(key, value, change) for value in values) for key, values in self.axes.items()},
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as an experiment file has it."""
        return {
            **{key: list(values) for key, values in self.axes.items()},
            **({TOGETHER: True} if self.together else {}),
        }


def as_text(value: object) -> str:
    """Return a value as it may be written on a line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def with_files(key: str, value: object, change: Callable[[str], str]) -> Any:
    """What is given as `key`, a path of keys, or in one of its entries: names of files are changed, all else is not."""
    if isinstance(value, str):
        return change(value) if key.rpartition(".")[2] in FORMATS else value
    if isinstance(value, Mapping):
        return {name: with_files(str(name), inner, change) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [with_files("", inner, change) for inner in value]
    return value


def read_sweep(content: object, folder: Path = Path()) -> Sweep:
    """Return the sweep that a file of `folder` has. Raises ValueError."""
    if isinstance(content, Sweep):
        return content
    if not isinstance(content, dict):
        raise ValueError(f"{shown(content)} is not a mapping such as {{strain.jitter: [0, 5%]}}")
    together = content.get(TOGETHER, False)
    if not isinstance(together, bool):
        raise ValueError(f"{TOGETHER}: {shown(together)} is not true or false")
    axes = {key: _values(key, values, folder) for key, values in content.items() if key != TOGETHER}
    if not axes:
        raise ValueError("names no key; write one such as strain.jitter: [0, 5%]")
    lengths = {key: len(values) for key, values in axes.items()}
    if together and len(set(lengths.values())) > 1:
        said = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise ValueError(f"with {TOGETHER}, all keys have as many values, and {said}")
    sweep = Sweep(axes, together)
    if sweep.points > MAX_POINTS:
        raise ValueError(f"{sweep.points:,} points are more than the {MAX_POINTS:,} of one sweep; write fewer values")
    return sweep


def _values(key: str, values: object, folder: Path) -> tuple[Any, ...]:
    if key in NOT_SWEPT:
        raise ValueError(f"{key} is the same for all points; name another key")
    if key in LISTS:
        raise ValueError(f"{key} is a list of its own, all of which is run; write its entries there")
    if not all(key.split(".")):
        raise ValueError(f"{quote(key)} is no key; write its path, such as strain.jitter")
    if not isinstance(values, list | tuple):
        raise ValueError(f"{key}: {shown(values)} is not a list such as [0, 5%]")
    checked = some(tuple(values))
    texts = Counter(map(as_text, checked))
    if twice := next((text for text, count in texts.items() if count > 1), None):
        raise ValueError(f"{key}: {twice} is there twice; keep one")
    if Auto.RATE.value in texts and key.endswith("_rate"):
        raise ValueError(f"{key}: auto depends on the point; write rates such as 20mbit")
    # Files are beside the experiment.
    return tuple(with_files(key, value, lambda path: str((folder / path).absolute())) for value in checked)


def _in_its_folder(content: object, info: ValidationInfo) -> Sweep:
    return read_sweep(content, (info.context or {}).get("folder", Path()))


Swept = Annotated[Sweep, PlainValidator(_in_its_folder), PlainSerializer(Sweep.as_json)]
