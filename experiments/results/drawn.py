"""What is drawn with: matplotlib, imported so that it neither reads nor leaves anything of its own here.

It would read a `matplotlibrc` in the working directory and, of what it does not understand, quote every line: where the
command is root's for somebody else, a link there would show them any file. And it would write to the caller's home.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from emulator.caller import as_caller

_STEERING = ("MPLCONFIGDIR", "MATPLOTLIBRC", "MPLBACKEND")


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Within the block, the working directory and matplotlib's own are a new folder, which is gone afterwards."""
    before = {name: os.environ.pop(name) for name in _STEERING if name in os.environ}
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tempfile.TemporaryDirectory(prefix="spraylab-") as folder:
            os.environ["MPLCONFIGDIR"] = folder
            os.chdir(folder)
            try:
                yield
            finally:
                with as_caller():  # root may not enter every home
                    os.fchdir(here)
    finally:
        os.close(here)
        del os.environ["MPLCONFIGDIR"]
        os.environ.update(before)


with _apart():
    import matplotlib.style as style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Axes", "Figure", "style"]
