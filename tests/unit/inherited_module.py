"""What the tests of `emulator.inherited` have called in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    print(json.dumps([arguments, sys.path]))
