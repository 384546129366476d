"""Capture files as bytes: opened by the rights of whoever asked, regular files only, gzip unpacked on the way."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from emulator.files import OddFileError, open_input
from experiments.captures.containers import Bytes

GZIP = b"\x1f\x8b"
OTHER_COMPRESSION = (b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"\x04\x22\x4d\x18", b"PK")  # zstd, xz, bzip2, lz4, zip
MAX_FILE_BYTES = 1 << 40  # it is mapped, not read
MAX_UNPACKED_BYTES = 4 << 30  # of a gzip file: goes to the folder for temporary files
_PIECE_BYTES = 1 << 20


class CaptureError(ValueError):
    """The file is not a packet capture."""


def open_capture(path: Path) -> BinaryIO:
    """Open the file at `path`. Raises CaptureError if it is no regular file; OSError if it cannot be opened."""
    try:
        return open_input(path)
    except OddFileError as error:
        raise CaptureError(f"{error.kind}, not a file: give a pcap or pcapng file") from None


def contents(file: BinaryIO) -> tuple[Bytes, list[str]]:
    """Return what `file` holds, and what is wrong with its compression. Raises CaptureError if it is too large."""
    if (size_bytes := os.fstat(file.fileno()).st_size) > MAX_FILE_BYTES:
        raise CaptureError(f"{size_bytes} bytes large: at most {MAX_FILE_BYTES} are read")
    if file.read(2) != GZIP:
        return _mapped(file), []
    file.seek(0)
    with tempfile.TemporaryFile() as unpacked:
        problems = _unpack(file, unpacked)
        unpacked.flush()
        return _mapped(unpacked), problems


def _mapped(file: IO[bytes]) -> Bytes:
    if not os.fstat(file.fileno()).st_size:
        return np.empty(0, np.uint8)
    return np.memmap(file, np.uint8, "r").view(np.ndarray)


def _unpack(file: IO[bytes], unpacked: IO[bytes]) -> list[str]:
    size = 0
    try:
        with gzip.open(file) as pieces:
            while piece := pieces.read1(_PIECE_BYTES):  # what comes before damage comes
                size += len(piece)
                if size > MAX_UNPACKED_BYTES:
                    raise CaptureError(f"more than {MAX_UNPACKED_BYTES} bytes when unpacked: decompress it first")
                unpacked.write(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return [f"its compression is damaged after {size} bytes: {str(error).rstrip('.')}"]
    return []
