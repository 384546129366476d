"""What a process of ours inherits: surroundings we write ourselves, and a Python that nobody else steers.

Commands run as root for someone else, whose PATH, PYTHONPATH, LD_PRELOAD and the like must not choose what root
executes. So everything we start gets `environment`, and every Python `python` or `script`. What a user asked for by
name is the exception: a program that `exec` runs, and what is typed in `shell`, have that user's own environment.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("SUDO_UID", "SUDO_GID")  # whose results are to be; sudo itself sets them


def environment(**more: str) -> dict[str, str]:
    """Return the environment variables of a process of ours, and `more`."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {"PATH": PATH, "LANG": "C.UTF-8", **kept, **more}


def which(program: str) -> str | None:
    """Return where a process of ours finds `program`, if it does."""
    return shutil.which(program, path=PATH)


def python(module: str, *arguments: object) -> list[str]:
    """Return the command that calls `main(arguments)` of one of our modules in a Python of its own.

    It is isolated (python -I) and imports from where this process does, and from nowhere else.
    """
    code = f"import sys; sys.path[:] = {sys.path!a}; from {module} import main; main(sys.argv[1:])"
    return [*_isolated(), "-c", code, *map(str, arguments)]


def script(path: Path, *arguments: object) -> list[str]:
    """Return the command that runs a file of ours that imports nothing but what Python brings, and starts quickly."""
    return [*_isolated(), "-S", str(path), *map(str, arguments)]


def _isolated() -> list[str]:
    return [sys.executable, "-I", *(["-B"] if sys.dont_write_bytecode else [])]
