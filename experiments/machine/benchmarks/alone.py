"""A case of a benchmark in a process of its own, so that the memory it takes is its own as well."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def measured_alone(module: str, *arguments: object, timeout_s: float) -> dict[str, Any]:
    """Return the row that `python -m MODULE ARGUMENTS` prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=True,
    )
    row: dict[str, Any] = json.loads(done.stdout)
    return row
