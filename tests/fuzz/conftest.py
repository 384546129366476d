"""How much is fuzzed: `--inputs N` mutated files a reader, new ones each time; without it, few and always the same."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

FEW = 300


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--inputs", type=int, help="give each reader so many spoilt files, new ones each time")


@pytest.fixture(scope="session")
def fuzzed(pytestconfig: pytest.Config) -> settings:
    """What hypothesis does for a reader: all that a failure prints is enough to repeat it."""
    inputs: int | None = pytestconfig.getoption("--inputs")
    return settings(
        max_examples=inputs or FEW,
        derandomize=inputs is None,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
