"""Experiment files as people write them, and what is said of wrong ones."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from experiments.spec.experiment import (
    Experiment,
    load_experiment,
)
from experiments.spec.messages import SpecError

GOOD = """\
name: test
fabric:
  leaves: 4
  spines: 4
  hosts_per_leaf: 4
  host_rate: 20mbit
  mtu: 9000
  queue: 4MB
traffic:
  - collective: permutation
    channels: 4
    size: 4MB
  - {collective: alltoall, size: 4MB, window: 3}
schemes: [ecmp, ethereal]
transport:
  windows: fitted
seeds:
  - 1
  - 2
"""

QUICK = json.dumps(load_experiment("quick").as_json())

MATRIX = """\
Nodes 4
Connections 2
0->1 id 1 start 0 size 1000
3->2 id 2 start 0 size 1000
"""

Load = Callable[..., Experiment]


def sentence(load: Load, text: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as refused:
        load(text, *overrides)
    message = str(refused.value)
    assert "\n" not in message
    assert "Input should" not in message and "pydantic" not in message
    return message
