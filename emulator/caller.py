"""Who called sudo, where somebody did: what is written is theirs, and by their rights."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from functools import lru_cache


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


def _caller() -> tuple[int, int] | None:
    uid, gid = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    return (int(uid), int(gid)) if os.geteuid() == 0 and uid and gid else None


@lru_cache
def _groups_of(uid: int, gid: int) -> list[int]:
    """All groups of a user, who may write to some folders by one of them alone."""
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # a number without a name, as in containers
        return [gid]
