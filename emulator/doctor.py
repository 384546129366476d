"""Whether this machine can run experiments, and what is lost where it can only do so in part.

Nothing is changed: what has to be tried is tried in a sandbox (emulator/probes.py), the rest is read
(emulator/machine.py). Each check returns findings; without root, those that need it go by what is configured, and say
so.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emulator import machine, probes
from emulator.sandbox import EmulatorError

if TYPE_CHECKING:
    from rich.table import Table

Status = Literal["ok", "degraded", "missing"]
_COLOURS: dict[Status, str] = {"ok": "green", "degraded": "yellow", "missing": "red"}

_DISTRIBUTION_MININET = Path("/usr/lib/python3/dist-packages/mininet")


@dataclass(frozen=True)
class Tool:
    """A program, the Debian package it comes from, how it tells its version, what is lost without it ("": all)."""

    name: str
    package: str
    version: Sequence[str] = ("--version",)
    lost: str = ""


TOOLS = (
    Tool("ovs-vswitchd", "openvswitch-switch"),
    Tool("ovsdb-server", "openvswitch-switch"),
    Tool("ovsdb-tool", "openvswitch-switch"),
    Tool("ovs-vsctl", "openvswitch-switch"),
    Tool("ovs-dpctl", "openvswitch-switch"),
    Tool("ovs-ofctl", "openvswitch-switch", lost="no look at the switches' tables, which system tests take"),
    Tool("mnexec", "mininet", ("true",)),  # it runs a program, and has no version
    Tool("ifconfig", "net-tools"),  # Mininet refuses to start without
    Tool("nft", "nftables"),
    Tool("ip", "iproute2", ("-V",)),
    Tool("tc", "iproute2", ("-V",), lost="qdiscs are not tried here; runs set them over netlink"),
    Tool("tcpdump", "tcpdump", lost="no captures"),
    Tool("unshare", "util-linux"),
    Tool("setpriv", "util-linux"),
    Tool("mount", "mount"),
)


def diagnose() -> list[Finding]:
    """All checks; takes about a second. Raises nothing: a check that fails becomes a finding."""
    load = _guarded(_load)  # first, and alone: the other checks are load themselves
    with ThreadPoolExecutor() as pool:
        return [*chain.from_iterable(pool.map(_guarded, _CHECKS)), *load]


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:  # whatever it is: the other checks still have something to say
        name = check.__name__.strip("_").replace("_", " ")
        return [Finding(name, "degraded", f"could not be checked: {type(error).__name__}: {error}")]


def _install(package: str) -> str:
    return as_root(f"apt-get install {package}")


# The kernel


def _kernel() -> list[Finding]:
    tried: dict[str, str] = {}
    programs = [name for name in ("setpriv", "unshare", "mount", "ip") if shutil.which(name) is None]
    if not is_root():
        namespaces, untried = _namespaces_configured(), "without root"
    elif programs:
        untried = f"without {', '.join(programs)}"
        namespaces = Finding("namespaces", "degraded", f"not checked {untried}")
    else:
        try:
            tried = probes.try_in_sandbox()
            namespaces, untried = _namespaces_enough(), "without its program"
        except EmulatorError as error:
            untried = "without a sandbox"
            namespaces = Finding("namespaces", "missing", str(error), _give_privileges(machine.container()))
    features = {feature.name: _feature(feature, tried.get(feature.name), untried) for feature in probes.FEATURES}
    features["openvswitch"] = _with_tun(features["openvswitch"])
    return [namespaces, *features.values(), _mptcp(), _congestion_control()]


def _namespaces_configured() -> Finding:
    lacking = [kind for kind in ("net", "mnt", "pid", "ipc") if not Path(f"/proc/self/ns/{kind}").exists()]
    if lacking:
        remedy = "start a kernel built with CONFIG_NAMESPACES=y and CONFIG_NET_NS=y"
        return Finding("namespaces", "missing", f"this kernel has no namespaces of kind {', '.join(lacking)}", remedy)
    found = _namespaces_enough()
    return Finding(found.name, found.status, f"{found.detail}; not tried without root", found.remedy)


def _namespaces_enough() -> Finding:
    """A host has a network namespace of its own, and the sandbox has one."""
    limit = machine.namespace_limit()
    if limit is None or limit >= _AMPLE_NAMESPACES:
        return Finding("namespaces", "ok", "network, mount, process and IPC namespaces")
    return Finding(
        "namespaces", "missing" if limit < _QUICK_NAMESPACES else "degraded",
        f"room for {max(0, limit - 1)} hosts: user.max_net_namespaces is {limit}",
        as_root(f"sysctl user.max_net_namespaces={_AMPLE_NAMESPACES}"),
    )  # fmt: skip


def _feature(feature: probes.Feature, complaint: str | None, untried: str) -> Finding:
    """`complaint`: what came of trying it, None if it was not tried."""
    if complaint == "":
        return Finding(feature.name, "ok", feature.gives)
    if complaint is None:
        known = probes.configured(feature.module, feature.option)
        if known:
            return Finding(feature.name, "ok", f"{feature.gives}; not tried {untried}")
        if known is None:
            remedy = "" if is_root() else "sudo ./spraylab doctor"
            return Finding(feature.name, "degraded", f"{feature.gives}: not checked {untried}", remedy)
    if feature.lost:
        return Finding(feature.name, "degraded", feature.lost, _provide(feature.module, feature.option))
    why = f" ({complaint})" if complaint else ""
    return Finding(
        feature.name, "missing", f"no {feature.gives}: {feature.module}{why}", _provide(feature.module, feature.option)
    )


def _provide(module: str, option: str) -> str:
    """How this kernel, or another one, comes to have a module."""
    if probes.loadable(module):
        return as_root(f"modprobe {module}")
    if machine.container():
        return f"outside of the container: sudo modprobe {module}"
    if not (probes.modules_folder() / "modules.dep").exists():
        return f"start a kernel with {option}, such as a distribution's own"
    if "ubuntu" in _distribution():
        return _install(f"linux-modules-extra-{platform.release()}")
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{_install(f'linux-image-{architecture}')}, then reboot"


def _distribution() -> set[str]:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return set()
    return {release.get("ID", ""), *release.get("ID_LIKE", "").split()}


def _with_tun(openvswitch: Finding) -> Finding:
    """In user space, Open vSwitch makes a tap interface for every bridge."""
    if openvswitch.status == "ok" or not (complaint := probes.tun_complaint()):
        return openvswitch
    kind = machine.container()
    return Finding(
        "openvswitch", "missing", f"not in the kernel, and in user space it needs /dev/net/tun: {complaint}",
        _give_privileges(kind) if kind else as_root("modprobe tun"),
    )  # fmt: skip


def _mptcp() -> Finding:
    complaint = probes.mptcp_complaint()
    if not complaint:
        return Finding("MPTCP", "ok", "programs may open MPTCP sockets")
    remedy = "start a kernel with CONFIG_MPTCP, or: " + as_root("sysctl net.mptcp.enabled=1")
    return Finding("MPTCP", "degraded", f"programs cannot open MPTCP sockets: {complaint}", remedy)


def _congestion_control() -> Finding:
    found = probes.congestion_controls(["cubic", "dctcp", "bbr"])
    listed = ", ".join(found)
    if "cubic" not in found:
        return Finding(
            "congestion control", "missing", f"{listed}; no cubic, the default of experiments",
            _provide("tcp_cubic", "CONFIG_TCP_CONG_CUBIC"),
        )  # fmt: skip
    lacking = [name for name in ("dctcp", "bbr") if name not in found]
    if lacking:
        remedy = _provide(f"tcp_{lacking[0]}", f"CONFIG_TCP_CONG_{lacking[0].upper()}")
        return Finding("congestion control", "degraded", f"{listed}; no {' and no '.join(lacking)}", remedy)
    return Finding("congestion control", "ok", listed)


# Programs and Python


def _tools() -> list[Finding]:
    return [_tool(tool) for tool in TOOLS]


def _tool(tool: Tool) -> Finding:
    absent: Status = "degraded" if tool.lost else "missing"
    try:
        answer = probes.ask([tool.name, *tool.version])
    except FileNotFoundError:
        return Finding(tool.name, absent, tool.lost or "not installed", _install(tool.package))
    except probes.Refused as refusal:
        detail = f"does not start ({refusal})" + (f": {tool.lost}" if tool.lost else "")
        return Finding(tool.name, absent, detail, _install(f"--reinstall {tool.package}"))
    version = re.search(r"\d+(\.\d+)+", answer)
    return Finding(tool.name, "ok", version[0] if version else "works")


def _python() -> list[Finding]:
    requirements = [line for line in importlib.metadata.requires("spraylab") or [] if "extra ==" not in line]
    names = [match[0] for line in requirements if (match := re.match(r"[\w.-]+", line))]
    modules = {name.replace("-", "_"): name for name in names}
    mininet = ["mininet.net", "mininet.node"] if importlib.util.find_spec("mininet") else []
    failures = probes.import_failures([*modules, *mininet])
    findings = [Finding("python", "ok", platform.python_version())]
    for module, name in modules.items():
        if module in failures:
            findings.append(
                Finding(name, "missing", failures[module], f"rm -r {sys.prefix}; ./spraylab --setup")
            )
    if not failures.keys() & modules.keys():
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
        findings.append(Finding("packages", "ok", versions))
    return [*findings, _mininet(mininet, failures)]


def _mininet(modules: Sequence[str], failures: dict[str, str]) -> Finding:
    broken = [failures[module] for module in modules if module in failures]
    if broken:
        return Finding("mininet", "missing", broken[0], _install("--reinstall mininet"))
    if modules:
        return Finding("mininet", "ok", "imports")
    if _DISTRIBUTION_MININET.exists():
        return Finding("mininet", "ok", "installed; the next run makes it importable")
    return Finding("mininet", "missing", "not installed", _install("mininet"))


_MACHINE = (
    machine.surroundings, machine.privileges, machine.open_files, machine.processes, machine.memory, machine.disk,
    machine.cores, machine.clock, machine.leftovers,
)  # fmt: skip
