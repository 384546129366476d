"""What the kernel offers: tried for real where that is allowed, else read from its files.

Trying happens inside a sandbox, on its own interfaces. It may make the kernel load a module (sch_tbf, say), just as a
run would; that is the only trace it leaves.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from emulator.doctor import resources
from emulator.doctor.finding import Finding, as_root, install, is_root
from emulator.errors import EmulatorError
from emulator.inherited import environment, which
from emulator.sandbox import Sandbox

_TIMEOUT_S = 10.0
_SANDBOX_TIMEOUT_S = 60.0  # all features together
_CONGESTION_CONTROLS = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


@dataclass(frozen=True)
class Feature:
    """Something the kernel must or should have.

    `command` succeeds, inside a sandbox, only if it is there. `gives` says what it is for, `lost` how it is to be
    without; an empty `lost` means that nothing works then.
    """

    name: str
    module: str
    option: str
    command: Sequence[str]
    gives: str
    lost: str = ""


_QDISC = ("tc", "qdisc", "replace", "dev", "lo")

FEATURES = (
    Feature(
        "veth", "veth", "CONFIG_VETH",
        ("ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"),
        "the fabric's links",
    ),
    Feature(
        "tbf", "sch_tbf", "CONFIG_NET_SCH_TBF",
        (*_QDISC, "root", "tbf", "rate", "10mbit", "burst", "20kb", "limit", "4mb"),
        "the rate and the queue of every port",
    ),
    Feature(
        "nft numgen", "nft_numgen", "CONFIG_NFT_NUMGEN",
        ("nft", "-f", "-"),
        "packet spraying in the sending host",
    ),
    Feature(
        "openvswitch", "openvswitch", "CONFIG_OPENVSWITCH",
        ("ovs-dpctl", "dump-dps"),  # as controllers.ovs.plane.kernel_datapath asks
        "packets are forwarded in the kernel",
        "packets are forwarded in user space: faithful to about 0.3 Gb/s of all hosts together",
    ),
    Feature(
        "netem", "sch_netem", "CONFIG_NET_SCH_NETEM",
        (*_QDISC, "root", "netem", "delay", "1ms"),
        "added delay and loss on a link",
        "no added delay or loss on a link",
    ),
    Feature(
        "htb", "sch_htb", "CONFIG_NET_SCH_HTB",
        (*_QDISC, "root", "htb"),
        "the rates of plain Mininet's own links",
        "no rates on plain Mininet's own links",
    ),
    Feature(
        "clsact", "sch_ingress", "CONFIG_NET_SCH_INGRESS",
        (*_QDISC, "clsact"),
        "filters where packets enter or leave a port",
        "no filters where packets enter or leave a port",
    ),
    Feature(
        "cls_bpf", "cls_bpf", "CONFIG_NET_CLS_BPF",
        ("tc", "filter", "replace", "dev", "lo", "egress", "bpf", "da", "bytecode", "1,6 0 0 0,"),  # after clsact
        "BPF programs as filters",
        "no BPF programs as filters",
    ),
    Feature(
        "xdp", "xdp", "CONFIG_BPF_SYSCALL",
        (sys.executable, "-P", "-m", "emulator.bpf"),
        "faults that destroy packets",
        "no faults of kind blackhole and loss",
    ),
)  # fmt: skip


def kernel_features() -> list[Finding]:
    """Check the sandbox's namespaces, and every feature by trying it inside."""
    namespaces, tried, untried = _try()
    findings = {feature.name: judge(feature, tried.get(feature.name), untried) for feature in FEATURES}
    if findings["openvswitch"].status != "ok":
        findings["openvswitch"] = user_space(findings["openvswitch"])
    return [namespaces, *findings.values()]


def _try() -> tuple[Finding, dict[str, str], str]:
    """What came of starting a sandbox; of each feature tried, its complaint; why the others were not tried."""
    programs = [name for name in ("setpriv", "unshare", "mount", "ip") if which(name) is None]
    if not is_root():
        return _namespaces_configured(), {}, "without root"
    if programs:
        return Finding("namespaces", "degraded", f"not checked without {', '.join(programs)}"), {}, "without a sandbox"
    try:
        with tempfile.TemporaryFile() as log, Sandbox(log) as sandbox:
            tried = sandbox.call(_try_features, timeout_s=_SANDBOX_TIMEOUT_S)
    except EmulatorError as error:
        found = resources.namespaces()
        if found.status != "missing":
            found = Finding("namespaces", "missing", str(error), resources.how_to_be_privileged())
        return found, {}, "without a sandbox"
    return resources.namespaces(), tried, "without its program"


def _namespaces_configured() -> Finding:
    lacking = [kind for kind in ("net", "mnt", "pid", "ipc") if not Path(f"/proc/self/ns/{kind}").exists()]
    if lacking:
        remedy = "start a kernel that has CONFIG_NAMESPACES and CONFIG_NET_NS"
        return Finding("namespaces", "missing", f"this kernel has none of kind {', '.join(lacking)}", remedy)
    found = resources.namespaces()
    return Finding(found.name, found.status, f"{found.detail}; not tried without root", found.remedy)


def _try_features() -> dict[str, str]:
    """Inside the sandbox: name -> complaint, "" if it works; features whose program is not installed are left out."""
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

    return spray_ruleset(LeafSpine(leaves=2, spines=2, hosts_per_leaf=1), host=0, order="round-robin", seed=0)


def judge(feature: Feature, complaint: str | None, untried: str) -> Finding:
    """Turn what came of trying a feature into a finding.

    `complaint` is "" if it works and None if it was not tried, for the reason `untried`.
    """
    if complaint == "":
        return Finding(feature.name, "ok", feature.gives)
    configured = _configured(feature.module, feature.option)
    if complaint is None and configured:
        return Finding(feature.name, "ok", f"{feature.gives}; not tried {untried}")
    if complaint is None and configured is None:
        remedy = "" if is_root() else "sudo ./spraylab doctor"
        return Finding(feature.name, "degraded", f"{feature.gives}: not checked {untried}", remedy)
    # Where the kernel has what it takes and still it fails, the program is to blame, if not the want of a module.
    program_fails = configured and not _loadable(feature.module)
    remedy = f"update {feature.command[0]}" if program_fails else _provide(feature.module, feature.option)
    if feature.lost:
        return Finding(feature.name, "degraded", feature.lost, remedy)
    why = f": {complaint}" if complaint else ""
    return Finding(feature.name, "missing", f"{feature.module} does not work{why}; it gives {feature.gives}", remedy)


def user_space(openvswitch: Finding) -> Finding:
    """Check that Open vSwitch can do without the kernel's datapath: it then makes every bridge a tap interface."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        # Its mode may keep users out: a run is root's.
        if is_root() or isinstance(error, FileNotFoundError):
            detail = f"not in the kernel, and in user space it needs /dev/net/tun: {error.strerror}"
            remedy = resources.how_to_be_privileged() if resources.container() else as_root("modprobe tun")
            return Finding(openvswitch.name, "missing", detail, remedy)
    return openvswitch


def mptcp() -> Finding:
    """Check that programs can open MPTCP sockets (RFC 8684)."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP).close()
    except OSError as error:
        switched_off = Path("/proc/sys/net/mptcp/enabled").exists()
        remedy = as_root("sysctl net.mptcp.enabled=1") if switched_off else "start a kernel that has CONFIG_MPTCP"
        return Finding("MPTCP", "degraded", f"no MPTCP sockets for programs: {error.strerror}", remedy)
    return Finding("MPTCP", "ok", "MPTCP sockets for programs")


def congestion_controls() -> Finding:
    """Check for the congestion controls that experiments like to name.

    The kernel has those it lists, and those it would load when asked.
    """
    listed = _CONGESTION_CONTROLS.read_text().split()
    found = listed + [name for name in ("cubic", "dctcp", "bbr") if name not in listed and _loadable(f"tcp_{name}")]
    lacking = [name for name in ("cubic", "dctcp", "bbr") if name not in found]
    if not lacking:
        return Finding("congestion control", "ok", ", ".join(found))
    detail = f"{', '.join(found)}; no {', no '.join(lacking)}"
    remedy = _provide(f"tcp_{lacking[0]}", f"CONFIG_TCP_CONG_{lacking[0].upper()}")
    # cubic is what an experiment that names none gets
    return Finding("congestion control", "missing" if "cubic" in lacking else "degraded", detail, remedy)


def without_congestion_control(name: str) -> str | None:
    """Return what this kernel has instead of the congestion control `name`; None: it has it, or would load it."""
    listed = _CONGESTION_CONTROLS.read_text().split()
    if name in listed or _loadable(f"tcp_{name}"):
        return None
    return f"this kernel has {', '.join(listed)} and no {name} to load"


def _configured(module: str, option: str) -> bool | None:
    """Whether this kernel has `module`, loaded, built in or loadable; None where its files do not tell.

    Module lists are those of depmod(8); the configuration is where the kernel or the distribution shows it.
    """
    if Path(f"/sys/module/{module}").exists() or f"/{module}.ko" in _text(_modules() / "modules.builtin"):
        return True
    settings = _settings()
    if _loadable(module) or f"\n{option}=y\n" in settings:
        return True
    # A module that was built but is not here: its package is not installed, or a container does not show it.
    if settings and f"\n{option}=m\n" not in settings:
        return False
    return False if _text(_modules() / "modules.dep") else None


def _provide(module: str, option: str) -> str:
    """How this kernel, or another one, comes to have a module."""
    if _loadable(module):
        return as_root(f"modprobe {module}")
    settings = _settings()
    left_out = bool(settings) and f"\n{option}=m\n" not in settings
    if resources.container() and not left_out:
        return f"outside of the container: sudo modprobe {module}"
    if resources.container() or not (_modules() / "modules.dep").exists():
        return f"start a kernel that has {option}"
    if "ubuntu" in _distribution():
        return install("linux-image-generic" if left_out else f"linux-modules-extra-{platform.release()}")
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{install(f'linux-image-{architecture}')}, then reboot"


def _loadable(module: str) -> bool:
    return re.search(rf"/{module}\.ko(\.\w+)?:", _text(_modules() / "modules.dep")) is not None


def _modules() -> Path:
    return Path("/lib/modules") / platform.release()


@cache
def _settings() -> str:
    """The configuration this kernel was built with, "" if it is not to be had."""
    with contextlib.suppress(OSError, EOFError):
        return gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    return _text(Path(f"/boot/config-{platform.release()}"))


@cache
def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _distribution() -> set[str]:
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release()
        return {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    return set()


class Refused(Exception):
    """A program that is there did not do what it was asked; the message is its last words."""


def ask(command: Sequence[str], text: str = "", timeout_s: float = _TIMEOUT_S) -> str:
    """Return what `command` prints.

    Raises FileNotFoundError if it is not on the PATH, Refused if it fails or hangs.
    """
    if which(command[0]) is None:  # exec(3) would speak of permissions where a folder of the PATH is closed
        raise FileNotFoundError(command[0])
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
            env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Refused(f"no answer in {timeout_s:g} s") from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.ENOEXEC):
            raise  # nothing that is the program's fault
        raise Refused(os.strerror(error.errno)) from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Refused(lines[-1] if lines else f"exit status {done.returncode}")
    return done.stdout or done.stderr
