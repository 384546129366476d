"""What programs write: a file for each host and run, DIR/output/RUN/h1.log and so on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

from emulator.files import Folder
from emulator.programs import OUTPUT_LIMIT_BYTES, Ended
from emulator.topology import LeafSpine
from experiments.results.folder import ResultsError


class OutputLogs:
    """A file for each host's output, and as much of it on the terminal as can be read."""

    LINES_PER_S = 50
    LINE_CHARACTERS = 400

    def __init__(self, folder: Folder, fabric: LeafSpine, say: Callable[..., None]) -> None:
        self._folder, self._fabric, self._say = folder, fabric, say
        self._files: dict[int, BinaryIO] = {}
        self._begun: dict[int, bytes] = {}  # lines that have not ended
        self._second, self._shown, self._hidden = 0, 0, 0

    def __enter__(self) -> OutputLogs:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def begin(self, run_id: str, hosts: Sequence[int]) -> None:
        directory = self._folder / run_id
        self._run_folder = directory.path
        self._say(f"{run_id}: {len(hosts)} processes", "bold")
        try:
            directory.make()
            for host in hosts:
                self._files[host] = directory.empty(f"{self._fabric.host_name(host)}.log")
        except OSError as error:
            raise ResultsError(f"cannot write {error.filename or directory.path}: {error.strerror}") from error

    def write(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        for host, piece in pieces:
            self._put(host, piece)
            *lines, self._begun[host] = (self._begun.get(host, b"") + piece).split(b"\n")
            for line in lines:
                self._show(host, line)
            self._begun[host] = self._begun[host][: 4 * self.LINE_CHARACTERS]

    def end(self, ended: Ended) -> None:
        self._shown = 0
        for host, rest in self._begun.items():
            if rest:
                self._show(host, rest)
        self._begun.clear()
        if self._hidden:
            self._say(f"{self._hidden:,} more lines are in {self._run_folder}")
            self._hidden = 0
        for host, total in ended.output_bytes.items():
            if total > OUTPUT_LIMIT_BYTES:
                name = self._fabric.host_name(host)
                cut = f"cut after {OUTPUT_LIMIT_BYTES / 1e6:g} of {total / 1e6:.1f} MB"
                self._put(host, f"\n[spraylab: {cut}]\n".encode())
                self._say(f"{name}.log is {cut}")
        self.__exit__()

    def _put(self, host: int, data: bytes) -> None:
        try:
            self._files[host].write(data)
            self._files[host].flush()
        except OSError as error:
            raise ResultsError(f"cannot write to {self._run_folder}: {error.strerror}") from error

    def _show(self, host: int, line: bytes) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._shown = second, 0
        self._shown += 1
        if self._shown > self.LINES_PER_S:
            self._hidden += 1
            return
        text = line[: 4 * self.LINE_CHARACTERS].decode(errors="replace").rstrip("\r").expandtabs()
        # Whatever moves the cursor or changes colours would garble the other hosts' lines.
        text = re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]", "", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
        name = self._fabric.host_name(host)
        self._say(f"{name}: {text[: self.LINE_CHARACTERS]}")
