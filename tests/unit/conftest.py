from __future__ import annotations

import pytest
from synthetic import healthy_run

from experiments.judge.evidence import ReplayEvidence


@pytest.fixture(scope="session")
def healthy() -> ReplayEvidence:
    """A measurement in which every invariant holds. Shared: plant faults in copies."""
    return healthy_run()
