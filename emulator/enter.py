"""Runs a program on a host of the fabric: `python enter.py TABLE HOST COMMAND...`, inside the sandbox.

In the host's network and mount namespaces, under the host's own name, so that programs which go by their hostname
take the hosts for the different machines they stand for. It imports nothing that takes time to load.
"""

import ctypes
import os
import sys
from typing import NoReturn

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWNET = 0x20000, 0x4000000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_NICE = 19  # the switches come first: programs that wait in busy loops (MPI's do) would leave them no time to forward
_CANNOT_ENTER, _CANNOT_START, _NOT_FOUND = 125, 126, 127  # as env(1), nohup(1) and shells have them


def main(table: str, name: str, command: list[str]) -> NoReturn:
    with open(table) as lines:  # noqa: PTH123 - pathlib takes longer to load than all else here
        hosts = {host: (pid, address) for host, pid, address in map(str.split, lines)}
    if name not in hosts:
        _end(f"{name} is no host of this fabric: it has {', '.join(hosts)}", _CANNOT_ENTER)
    pid, address = hosts[name]
    try:
        directory = os.getcwd()  # noqa: PTH109
        _enter(pid, name)
        os.chdir(directory)  # another mount namespace is entered at its root
        os.nice(_NICE)
    except OSError as error:
        _end(f"{name} cannot be entered: {error.strerror}", _CANNOT_ENTER)
    interface = f"{name}-eth0"
    os.environ.update(SPRAYLAB_HOST=name, SPRAYLAB_ADDRESS=address, SPRAYLAB_INTERFACE=interface)
    os.environ.update(GLOO_SOCKET_IFNAME=interface, NCCL_SOCKET_IFNAME=interface)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        status = _NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_START
        _end(f"{command[0]} cannot be started: {error.strerror}", status)


def _enter(pid: str, name: str) -> None:
    kinds = (("net", _CLONE_NEWNET), ("mnt", _CLONE_NEWNS))
    namespaces = [(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC), flag) for kind, flag in kinds]
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_CLOEXEC)
    for descriptor, flag in namespaces:
        _checked(_libc.setns(descriptor, flag))
    os.fchdir(root)
    os.chroot(".")  # a mount namespace is entered at its own root, which is not ours if we live in a chroot
    _checked(_libc.unshare(_CLONE_NEWUTS))
    _checked(_libc.sethostname(name.encode(), len(name)))


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _end(message: str, status: int) -> NoReturn:
    print(f"spraylab: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
