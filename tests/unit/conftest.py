from __future__ import annotations

import pytest
from synthetic import healthy_run

from experiments.judge.fidelity import Run


@pytest.fixture(scope="session")
def healthy() -> Run:
    """A measurement in which every invariant holds. Shared: plant faults in copies."""
    return healthy_run()
