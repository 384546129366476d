"""Files of whoever calls us: ONE place that opens them, by the caller's rights, and only where they are regular.

The command runs as root for somebody else. A file that the caller names may be reached through links, which are opened
as the caller could; in a folder of theirs, such as one with results, nothing is: somebody else may have put it there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from emulator.caller import as_caller

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISREG, "a file"),
)
# A pipe without a writer would hold us until one comes.
_CAREFULLY = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_TO_PASS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class OddFileError(OSError):
    """What is there is not what it is taken for: `kind` is what it is, as 'a pipe'."""

    def __init__(self, kind: str, path: Path, wanted: str = "a regular file") -> None:
        super().__init__(errno.EINVAL, f"is {kind}, not {wanted}", str(path))
        self.kind = kind


class TooLargeError(OSError):
    """A file is larger than is read of such a file."""

    def __init__(self, most_bytes: int, path: Path) -> None:
        super().__init__(errno.EFBIG, f"is larger than the {most_bytes} bytes that are read of such a file", str(path))


def open_input(path: Path) -> BinaryIO:
    """Open the regular file `path` to read it. Raises OSError, OddFileError if it is no regular file."""
    return _opened(path, "rb")


def read_at_most(file: BinaryIO, most_bytes: int) -> bytes:
    """Read all of `file`. Raises TooLargeError."""
    content = b""
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes <= most_bytes:  # files of /proc are of size 0 and have content all the same
        content = file.read(most_bytes + 1)
    if max(len(content), size_bytes) > most_bytes:
        raise TooLargeError(most_bytes, Path(file.name))
    return content


@dataclass(frozen=True)
class Folder:
    """A folder of the caller's. What is in it is opened through no link, and only where it is a regular file.

    `root` is as the caller named it; `below` are names of folders in it, one in the other. All methods but `path` raise
    OSError, whose `strerror` says what is wrong in words that follow a file's name.
    """

    root: Path
    below: tuple[str, ...] = ()

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.root, (*self.below, name))

    @property
    def path(self) -> Path:
        """Return where it is, for people."""
        return self.root.joinpath(*self.below)

    def make(self) -> None:
        """Make the folder, and those that it is in, where they are missing."""
        with as_caller():
            self.root.mkdir(parents=True, exist_ok=True)
        with self._entered(make=True):
            pass

    def holds(self, name: str) -> bool:
        """Return whether there is anything of that name."""
        try:
            with self._entered() as directory, as_caller():
                os.stat(_plain(name), dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def open(self, name: str, most_bytes: int | None = None) -> BinaryIO:
        """Open a file to read it. Raises TooLargeError too."""
        with self._entered() as directory:
            file = _opened(self.path / _plain(name), "rb", directory)
        if most_bytes is not None and os.fstat(file.fileno()).st_size > most_bytes:
            file.close()
            raise TooLargeError(most_bytes, self.path / name)
        return file

    def read(self, name: str, most_bytes: int) -> bytes:
        """Read all of a file. Raises TooLargeError too."""
        with self.open(name) as file:
            return read_at_most(file, most_bytes)

    def append(self, name: str) -> BinaryIO:
        """Open a file to add to its end and to read it; it is made where it is missing."""
        with self._entered() as directory:
            return _opened(self.path / _plain(name), "a+b", directory)

    def empty(self, name: str) -> BinaryIO:
        """Open a file to write it anew, bit by bit."""
        with self._entered() as directory:
            file = _opened(self.path / _plain(name), "r+b", directory, os.O_CREAT)
        try:
            file.truncate(0)  # only now: it has been looked at
        except BaseException:
            file.close()
            raise
        return file

    def new(self, name: str) -> BinaryIO:
        """Open a file that there was none of to write it. Raises FileExistsError."""
        with self._entered() as directory:
            return _opened(self.path / _plain(name), "xb", directory)

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[BinaryIO]:
        """Give a file to write what `name` is to be: all of it is, or the file is as it was, whenever the power goes.

        Replaces nothing but a regular file.
        """
        part = f".{secrets.token_hex(8)}.part"  # readers of parquet folders skip hidden files
        with self._entered() as directory:
            with contextlib.suppress(FileNotFoundError), as_caller():
                _check(os.stat(_plain(name), dir_fd=directory, follow_symlinks=False), self.path / name)
            try:
                with _opened(self.path / part, "xb", directory) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                with as_caller():
                    os.replace(part, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with contextlib.suppress(FileNotFoundError), as_caller():
                    os.unlink(part, dir_fd=directory)
                raise

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._entered() as directory, contextlib.suppress(FileNotFoundError), as_caller():
            os.unlink(_plain(name), dir_fd=directory)

    @contextlib.contextmanager
    def _entered(self, *, make: bool = False) -> Iterator[int]:
        """Give a descriptor of the folder, to reach what is in it by whatever happens to the way there."""
        with contextlib.ExitStack() as open_folders:
            with _naming(self.path), as_caller():
                directory, place = os.open(self.root, _TO_PASS), self.root
                open_folders.callback(os.close, directory)
                for name in map(_plain, self.below):
                    place = place / name
                    if make:
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(name, dir_fd=directory)
                    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    if not stat.S_ISDIR(found.st_mode):
                        raise OddFileError(_kind(found), place, "a folder")
                    directory = os.open(name, _TO_PASS | os.O_NOFOLLOW, dir_fd=directory)
                    open_folders.callback(os.close, directory)
            yield directory


def _plain(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise OSError(errno.EINVAL, "cannot be the name of a file in a folder", name)
    return name


def _opened(path: Path, mode: str, directory: int | None = None, flags: int = 0) -> BinaryIO:
    """Open a regular file: in `directory`, where that is given, of the same name as `path` and through no link."""
    place: Path | str = path if directory is None else path.name
    careful = flags | _CAREFULLY | (0 if directory is None else os.O_NOFOLLOW)

    def opener(_path: str, as_mode: int) -> int:
        return os.open(place, as_mode | careful, 0o666, dir_fd=directory)

    with _naming(path), as_caller():
        with contextlib.suppress(FileNotFoundError):  # first, as it does something to open some devices
            _check(os.stat(place, dir_fd=directory, follow_symlinks=directory is None), path, exists_ok="x" not in mode)
        file = cast(BinaryIO, open(path, mode, opener=opener))  # noqa: SIM115 - it is the caller's to close
    try:
        _check(os.fstat(file.fileno()), path)  # again, as it may be another by now
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError names all of the path, not only what was looked for in an open folder."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename if isinstance(error, OddFileError) else str(path)
        raise


def _check(found: os.stat_result, path: Path, *, exists_ok: bool = True) -> None:
    if not exists_ok:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OddFileError(_kind(found), path)


def _kind(found: os.stat_result) -> str:
    return next((name for is_it, name in _KINDS if is_it(found.st_mode)), "something else")
