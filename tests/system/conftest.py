"""Each test gets a sandbox of its own. What runs inside lives in `inside.py`, which both sides import by name."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.sandbox import Sandbox

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = "root" if os.geteuid() != 0 else "ovs-vswitchd" if shutil.which("ovs-vswitchd") is None else None
    if missing:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"needs {missing}"))


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`inside.py`, for us and for the processes in the sandbox; all of this checkout, wherever another is installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(HERE), str(HERE.parents[1]))))
    if str(HERE) not in sys.path:
        monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with (tmp_path / "run.log").open("a+b") as log, Sandbox(log) as world:
        yield world
