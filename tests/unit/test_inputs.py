"""Whatever the caller names as a file is read, or refused at once in a sentence that shows little of it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.inputs import InputError, quote, read_input
from experiments.spec.experiment import load_experiment
from experiments.spec.messages import SpecError
from traffic.formats.format import FormatError
from traffic.formats.htsim import load_matrix


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def huge(path: Path) -> Path:
    path.touch()
    os.truncate(path, 10 * 2**40 if os.statvfs(path).f_frsize >= 4096 else 2**31)
    return path


def listening(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    return path


ODD: list[tuple[Callable[[Path], Path], str]] = [
    (lambda path: Path("/dev/zero"), "is a device, not a regular file; name a file"),
    (lambda path: Path("/dev/null"), "is a device, not a regular file; name a file"),
    (lambda path: path.parent, "is a folder, not a regular file; name a file"),
    (fifo, "is a pipe, not a regular file; name a file"),
    (listening, "is a socket, not a regular file; name a file"),
    (huge, "is larger than the 1000 bytes that are read of such a file"),
    (lambda path: path / ("x" * 5000), "cannot be read: File name too long"),
    (lambda path: Path("a\0b"), "cannot be the name of a file"),
]


@pytest.mark.parametrize(("make", "said"), ODD)
def test_what_is_no_file_of_a_sane_size_is_refused_at_once(
    make: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "odd")
    began = time.monotonic()
    with pytest.raises(InputError) as refused:
        read_input(path, 1000)
    assert time.monotonic() - began < 1
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("make", [lambda path: Path("/dev/zero"), fifo, huge])
def test_experiments_and_matrices_are_opened_so(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "odd")
    began = time.monotonic()
    with pytest.raises(SpecError, match=f"^{path}: is [^\\n]*$"):
        load_experiment(str(path))
    with pytest.raises(FormatError, match=f"^{path}: is [^\\n]*$"):
        load_matrix(path)
    assert time.monotonic() - began < 1


def test_a_file_of_just_that_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    assert read_input(tmp_path / "file", 1000) == b"x" * 1000
    with pytest.raises(InputError, match="larger than the 999 bytes"):
        read_input(tmp_path / "file", 999)
    assert read_input("/proc/self/cmdline", 10**6), "though its size is said to be 0"


def test_a_matrix_that_is_none_shows_a_short_quote_only(tmp_path: Path) -> None:
    secret = tmp_path / "shadow"
    secret.write_text("root:$6$" + "s" * 80 + ":19000:0:99999:7:::\n")
    with pytest.raises(FormatError, match="unknown keyword") as refused:
        load_matrix(secret)
    assert "s" * 20 not in str(refused.value)


def test_a_quote_is_short_and_nothing_a_terminal_would_act_upon() -> None:
    assert quote("ring") == "'ring'"
    assert len(quote("x" * 10_000)) == 26
    assert quote("a\x1b[2Jb\n").isprintable()
    assert quote("\ud800").encode()
