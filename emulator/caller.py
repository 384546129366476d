"""Who called sudo, where somebody did: what is written is theirs, and by their rights."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from emulator.errors import EmulatorError

_MOST_ID = 2**32 - 2  # the kernel's largest stands for "leave it as it is"


class CallerError(EmulatorError):
    """Who called sudo cannot be told; one sentence."""


@contextlib.contextmanager
def as_caller() -> Iterator[None]:
    """Have the rights of the user who called sudo, groups and all, within the block; without sudo, stay as we are."""
    found = _caller()
    if found is None:
        yield
        return
    uid, gid = found
    groups = os.getgroups()
    os.setgroups(_groups_of(uid, gid))
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def become_caller() -> None:
    """Take the rights of the user who called sudo for good; without sudo, stay as we are."""
    if found := _caller():
        uid, gid = found
        os.setgroups(_groups_of(uid, gid))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def as_command() -> dict[str, Any]:
    """Return how `subprocess` starts a program with the rights of the user who called sudo."""
    found = _caller()
    return {"user": found[0], "group": found[1], "extra_groups": _groups_of(*found)} if found else {}


def home() -> Path | None:
    """Return the home folder of the user who called sudo, or ours without sudo; None where there is none."""
    found = _caller()
    try:
        path = Path(pwd.getpwuid(found[0]).pw_dir) if found else Path.home()
    except (KeyError, RuntimeError):  # a number without a name, as in containers
        return None
    return path if path.is_absolute() else None


def _caller() -> tuple[int, int] | None:
    """The numbers of user and group. Raises CallerError: to stay root instead would give more rights than are due."""
    uid, gid = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    return (_number("SUDO_UID", uid), _number("SUDO_GID", gid)) if os.geteuid() == 0 and uid and gid else None


def _number(name: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > _MOST_ID:
        raise CallerError(f"the environment's {name} is no number of a user or group, as sudo sets it: unset it")
    return int(text)


@lru_cache
def _groups_of(uid: int, gid: int) -> list[int]:
    """All groups of a user, who may write to some folders by one of them alone."""
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # a number without a name, as in containers
        return [gid]
