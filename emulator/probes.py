"""What the kernel and the installed programs can do: tried for real where that is allowed, else read from files.

Trying happens inside a sandbox, on its own interfaces. It may make the kernel load a module (sch_tbf, say), just as a
run would; that is the only trace it leaves.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emulator.sandbox import Sandbox

_TIMEOUT_S = 2.0
_SANDBOX_TIMEOUT_S = 20.0  # all features together


@dataclass(frozen=True)
class Feature:
    """Something the kernel must or should have.

    `command` succeeds, inside a sandbox, only if it is there. `gives` says what it is for, `lost` what does not work
    without it; an empty `lost` means that nothing does.
    """

    name: str
    module: str
    option: str
    command: Sequence[str]
    gives: str
    lost: str = ""


_TC = ("tc", "qdisc", "replace", "dev", "lo")

OPENVSWITCH = Feature(
    "openvswitch", "openvswitch", "CONFIG_OPENVSWITCH",
    ("ovs-dpctl", "dump-dps"),  # as emulator.ovs.kernel_datapath asks
    "packets are forwarded in the kernel",
    "packets are forwarded in user space: faithful to about 0.3 Gb/s of all hosts together",
)  # fmt: skip

FEATURES = (
    Feature(
        "veth", "veth", "CONFIG_VETH",
        ("ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"),
        "the fabric's links",
    ),
    Feature(
        "tbf", "sch_tbf", "CONFIG_NET_SCH_TBF",
        (*_TC, "root", "tbf", "rate", "10mbit", "burst", "20kb", "limit", "4mb"),
        "the rate and queue of every port",
    ),
    Feature(
        "nft numgen", "nft_numgen", "CONFIG_NFT_NUMGEN",
        ("nft", "-f", "-"),
        "packet spraying, as the host's NIC does it",
    ),
    OPENVSWITCH,
    Feature(
        "netem", "sch_netem", "CONFIG_NET_SCH_NETEM",
        (*_TC, "root", "netem", "delay", "1ms"),
        "added delay and loss on a link",
        "links cannot be given delay or loss",
    ),
    Feature(
        "htb", "sch_htb", "CONFIG_NET_SCH_HTB",
        (*_TC, "root", "htb"),
        "rates of plain Mininet's links",
        "plain Mininet's links cannot be given a rate",
    ),
    Feature(
        "clsact", "sch_ingress", "CONFIG_NET_SCH_INGRESS",
        (*_TC, "clsact"),
        "filters where packets enter and leave a port",
        "no filters where packets enter and leave a port",
    ),
    Feature(
        "cls_bpf", "cls_bpf", "CONFIG_NET_CLS_BPF",
        ("tc", "filter", "replace", "dev", "lo", "egress", "bpf", "da", "bytecode", "1,6 0 0 0,"),  # needs clsact
        "BPF programs on a port",
        "no BPF programs on a port",
    ),
)  # fmt: skip


class Refused(Exception):
    """A program that is there did not do what it was asked; its last words."""


def ask(command: Sequence[str], text: str = "", timeout_s: float = _TIMEOUT_S) -> str:
    """What `command` prints. Raises FileNotFoundError if it is not on the PATH, Refused if it fails or hangs."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except FileNotFoundError:
        raise
    except subprocess.TimeoutExpired as error:
        raise Refused(f"no answer in {timeout_s:g} s") from error
    except OSError as error:
        raise Refused(error.strerror or str(error)) from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Refused(lines[-1] if lines else f"exit status {done.returncode}")
    return done.stdout or done.stderr


def try_in_sandbox() -> dict[str, str]:
    """Starts the private world that a run starts and tries every feature there: name -> complaint, "" if it works.

    Features whose program is not installed are left out. Needs root. Raises EmulatorError if there can be no sandbox.
    """
    with tempfile.TemporaryDirectory() as folder, Sandbox(Path(folder) / "log") as sandbox:
        return sandbox.call(_try_features, timeout_s=_SANDBOX_TIMEOUT_S)


def _try_features() -> dict[str, str]:
    return {feature.name: found for feature in FEATURES if (found := _complaint(feature)) is not None}


def _complaint(feature: Feature) -> str | None:
    try:
        ask(feature.command, text=_spray_rules() if feature.command[0] == "nft" else "")
    except FileNotFoundError:
        return None
    except Refused as refusal:
        return str(refusal)
    return ""


def _spray_rules() -> str:
    """What a run gives to nft."""
    from emulator.nic import spray_ruleset
    from emulator.topology import LeafSpine

    return spray_ruleset(LeafSpine(leaves=2, spines=2, hosts_per_leaf=1), host=0, mode="round-robin", seed=0)


def configured(module: str, option: str) -> bool | None:
    """Whether this kernel has `module`, loaded, built in or loadable; None where its files do not tell.

    Module lists as depmod(8) writes them, the kernel's configuration where it or the distribution shows it.
    """
    folder = modules_folder()
    if Path(f"/sys/module/{module}").exists() or f"/{module}.ko" in _text(folder / "modules.builtin"):
        return True
    if loadable(module):
        return True
    settings = _kernel_configuration()
    if f"{option}=y\n" in settings:
        return True
    # A module that was built but is not here: its package is not installed, or this container does not see it.
    if settings and f"{option}=m\n" not in settings:
        return False
    return False if _text(folder / "modules.dep") else None


def loadable(module: str) -> bool:
    return re.search(rf"/{module}\.ko(\.\w+)?:", _text(modules_folder() / "modules.dep")) is not None


def modules_folder() -> Path:
    return Path("/lib/modules") / platform.release()


def _kernel_configuration() -> str:
    with contextlib.suppress(OSError, EOFError):
        return gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    return _text(Path(f"/boot/config-{platform.release()}"))


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def congestion_controls(wanted: Sequence[str]) -> list[str]:
    """The congestion controls a socket can ask for: those the kernel lists, and those `wanted` that it could load."""
    listed = _text(Path("/proc/sys/net/ipv4/tcp_available_congestion_control")).split()
    return listed + [name for name in wanted if name not in listed and loadable(f"tcp_{name}")]


def mptcp_complaint() -> str:
    """Why no MPTCP socket can be made (RFC 8684; IPPROTO_MPTCP), "" if one can."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def tun_complaint() -> str:
    """Why a run could not open /dev/net/tun, which Open vSwitch in user space makes its bridges from; "" if it could."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except PermissionError as error:
        return "" if os.geteuid() != 0 else str(error.strerror)  # its mode may keep users out, and a run is root's
    except OSError as error:
        return error.strerror or str(error)
    return ""


def import_failures(names: Sequence[str]) -> dict[str, str]:
    """Imports every module in a process of its own: name -> complaint, of those that fail. Raises Refused."""
    command = [sys.executable, "-P", "-m", "emulator.probes", *names]
    failures: dict[str, str] = json.loads(ask(command, timeout_s=10).splitlines()[-1])
    return failures


def _import_all(names: Sequence[str]) -> dict[str, str]:
    failures = {}
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a broken package throws
            failures[name] = f"{type(error).__name__}: {error}"
    return failures


if __name__ == "__main__":
    print(json.dumps(_import_all(sys.argv[1:])))
