"""How often something is killed, and by which luck: `--kills N --seed S`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

SYSTEM = Path(__file__).parents[1] / "system"
FEW = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=FEW, help="how many runs are struck by a signal")
    parser.addoption("--seed", type=int, default=1, help="which processes, signals and moments those are")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "strike" in metafunc.fixturenames:
        seed: int = metafunc.config.getoption("--seed")
        strikes = [(seed, number) for number in range(metafunc.config.getoption("--kills"))]
        metafunc.parametrize("strike", strikes, ids=[f"{seed}-{number}" for seed, number in strikes])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(autouse=True)
def _of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SYSTEM.parents[1]))


sys.path.insert(0, str(SYSTEM))  # what tests of the command look at the machine with
