"""A case of a benchmark in a process of its own, so that the memory it takes is its own as well."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from emulator.inherited import environment, python


def measured_alone(module: str, *arguments: object, timeout_s: float) -> dict[str, Any]:
    """Return the row that `main(ARGUMENTS)` of a module prints as JSON."""
    done = subprocess.run(
        python(module, *arguments),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=True,
        env=environment(),
    )
    row: dict[str, Any] = json.loads(done.stdout)
    return row
