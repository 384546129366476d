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

# What the experiment `quick` takes, measured: 16 hosts, 240 subflows, both ends of each in one process.
_QUICK_FILES = 650
_QUICK_PROCESSES = 100
_QUICK_MEMORY_BYTES = 512_000_000
_QUICK_NAMESPACES = 17
_QUICK_DISK_BYTES = 10_000_000

# What leaves room for large fabrics, ten thousand subflows and captures.
_AMPLE_SUBFLOWS = 10_000
_AMPLE_PROCESSES = 1_000
_AMPLE_MEMORY_BYTES = 2_000_000_000
_AMPLE_NAMESPACES = 1_024
_AMPLE_DISK_BYTES = 1_000_000_000

_FILES_BESIDE_SUBFLOWS = 100
_LEAST_CORES = 2
_BUSY = 0.2  # of all cores, before a run takes its part
_LOAD_WINDOW_S = 0.3
_COARSE_TIMER_S = 1e-6
_SLOW_CLOCKS = {"hpet", "acpi_pm", "pit", "jiffies"}  # each reading goes to a slow device, or is as coarse as a tick

_DISTRIBUTION_MININET = Path("/usr/lib/python3/dist-packages/mininet")


@dataclass(frozen=True)
class Finding:
    """One line. `status`: "degraded" loses what `detail` says; "missing" means that `run` cannot work.

    `remedy` is what puts it right, a command for Debian and Ubuntu where there is one, and "" where nothing has to be.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


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


def works(findings: Sequence[Finding]) -> bool:
    """Whether `run` can work."""
    return all(finding.status != "missing" for finding in findings)


def render(findings: Sequence[Finding]) -> Table:
    """A table 80 columns wide; under a line that is not ok, what puts it right."""
    from rich.table import Table
    from rich.text import Text

    counts = {status: sum(finding.status == status for finding in findings) for status in _COLOURS}
    table = Table(box=None, width=80, show_header=False, padding=(0, 2, 0, 0), caption_justify="left")
    table.caption = Text(
        f"run {'can' if works(findings) else 'cannot'} work here: "
        + ", ".join(f"{count} {status}" for status, count in counts.items()),
        style="bold",
    )
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for finding in findings:
        detail = Text(finding.detail)
        if finding.remedy:
            detail.append("\n> ").append(finding.remedy, style="bold")
        table.add_row(Text(finding.status, style=_COLOURS[finding.status]), finding.name, detail)
    return table


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """For json.dumps: `works`, and `findings` as objects with the fields of Finding."""
    return {"works": works(findings), "findings": [asdict(finding) for finding in findings]}


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:  # whatever it is: the other checks still have something to say
        name = check.__name__.strip("_").replace("_", " ")
        return [Finding(name, "degraded", f"could not be checked: {type(error).__name__}: {error}")]


def _is_root() -> bool:
    return os.geteuid() == 0


def _as_root(command: str) -> str:
    return command if _is_root() else f"sudo {command}"


def _install(package: str) -> str:
    return _as_root(f"apt-get install {package}")


# The machine and what it lets us do


def _machine() -> list[Finding]:
    kind = machine.container()
    where = [f"in a {kind} container"] if kind else []
    where += ["in a virtual machine"] if machine.virtual() else []
    place = " ".join([platform.machine(), *where])
    return [Finding("machine", "ok", f"Linux {platform.release()}, {place}"), _privileges(kind)]


def _privileges(container: str | None) -> Finding:
    if not _is_root():
        if shutil.which("sudo"):
            return Finding("privileges", "ok", "not root; run asks sudo for it")
        return Finding(
            "privileges", "missing", "not root, and there is no sudo here", "start spraylab as root: su -c './spraylab ...'"
        )
    if lacking := machine.lacking_capabilities():
        return Finding("privileges", "missing", f"root without {', '.join(lacking)}", _give_privileges(container))
    return Finding("privileges", "ok", "root with all it takes")


def _give_privileges(container: str | None) -> str:
    if container:
        return f"start the container with {container if container == 'podman' else 'docker'} run --privileged"
    return "start spraylab as root outside of what confines it"


# The kernel


def _kernel() -> list[Finding]:
    tried: dict[str, str] = {}
    programs = [name for name in ("setpriv", "unshare", "mount", "ip") if shutil.which(name) is None]
    if not _is_root():
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
        _as_root(f"sysctl user.max_net_namespaces={_AMPLE_NAMESPACES}"),
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
            remedy = "" if _is_root() else "sudo ./spraylab doctor"
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
        return _as_root(f"modprobe {module}")
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
        _give_privileges(kind) if kind else _as_root("modprobe tun"),
    )  # fmt: skip


def _mptcp() -> Finding:
    complaint = probes.mptcp_complaint()
    if not complaint:
        return Finding("MPTCP", "ok", "programs may open MPTCP sockets")
    remedy = "start a kernel with CONFIG_MPTCP, or: " + _as_root("sysctl net.mptcp.enabled=1")
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


# Limits


def _open_files() -> list[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = math.inf if soft == resource.RLIM_INFINITY else soft
    ample = 2 * _AMPLE_SUBFLOWS + _FILES_BESIDE_SUBFLOWS
    if limit >= ample:
        return [Finding("open files", "ok", f"{limit}: room for {_AMPLE_SUBFLOWS} subflows and more")]
    subflows = max(0, (soft - _FILES_BESIDE_SUBFLOWS) // 2)
    detail = f"{soft}: room for {subflows} subflows, two sockets each"
    if limit < _QUICK_FILES:
        detail += f"; quick takes {_QUICK_FILES} files"
    within = _is_root() or hard == resource.RLIM_INFINITY or hard >= ample
    remedy = f"ulimit -n {ample}" if within else f"sudo prlimit --pid $$ --nofile={ample}:{ample}"
    return [Finding("open files", "missing" if limit < _QUICK_FILES else "degraded", detail, remedy)]


def _processes() -> list[Finding]:
    limit = machine.processes_limit()
    if limit >= _AMPLE_PROCESSES:
        return [Finding("processes", "ok", f"up to {limit}")]
    status: Status = "missing" if limit < _QUICK_PROCESSES else "degraded"
    remedy = "raise ulimit -u, kernel.pid_max or the container's --pids-limit"
    return [Finding("processes", status, f"up to {limit}; a run takes one a host and some 40 more", remedy)]


def _memory() -> list[Finding]:
    available = machine.available_memory_bytes()
    detail = f"{available / 1e9:.1f} GB available"
    if available >= _AMPLE_MEMORY_BYTES:
        return [Finding("memory", "ok", detail)]
    status: Status = "missing" if available < _QUICK_MEMORY_BYTES else "degraded"
    return [Finding("memory", status, f"{detail}: small fabrics only", "end other programs, or give the machine more")]


def _disk() -> list[Finding]:
    results = Path("results") if Path("results").is_dir() else Path()
    place = results.absolute()
    if not os.access(results, os.W_OK):
        return [Finding("disk", "missing", f"{place} cannot be written to", "start in a folder of your own, or use --out")]
    free = shutil.disk_usage(results).free
    detail = f"{free / 1e9:.1f} GB free for results in {place}"
    if free >= _AMPLE_DISK_BYTES:
        return [Finding("disk", "ok", detail)]
    status: Status = "missing" if free < _QUICK_DISK_BYTES else "degraded"
    return [Finding("disk", status, f"{detail}: too little for captures", "make room, or use --out with a folder elsewhere")]


def _cores() -> list[Finding]:
    cores = machine.usable_cores()
    if cores >= _LEAST_CORES:
        return [Finding("cores", "ok", f"{cores:g}")]
    detail = f"{cores:g} of at least {_LEAST_CORES}: senders, switches and sampler wait for each other; expect fidelity fail"
    return [Finding("cores", "degraded", detail, f"give the machine or container {_LEAST_CORES} cores")]


def _clock() -> list[Finding]:
    """Shaping and pacing are timers, and every time that is reported is a reading."""
    source = machine.clock_source()
    resolution_s = time.clock_getres(time.CLOCK_MONOTONIC)
    if resolution_s > _COARSE_TIMER_S:
        detail = f"timers fire every {resolution_s * 1e3:g} ms only: ports send in bursts; expect fidelity fail"
        return [Finding("clock", "degraded", detail, "start the kernel without highres=off and nohz=off")]
    if source in _SLOW_CLOCKS:
        detail = f"{source}: every timestamp and timer takes longer; lower faithful rates"
        return [Finding("clock", "degraded", detail, "start the kernel with clocksource=tsc, if its tsc is stable")]
    return [Finding("clock", "ok", source or "high-resolution timers")]


def _load() -> list[Finding]:
    busy, stolen = machine.busy_share(_LOAD_WINDOW_S)
    by_others = f", {stolen:.0%} by the hypervisor's other guests" if stolen >= 0.01 else ""
    detail = f"{busy:.0%} of all cores busy just now{by_others}"
    if busy <= _BUSY:
        return [Finding("load", "ok", detail)]
    return [Finding("load", "degraded", f"{detail}: fidelity may fail", "end what else runs (see top), then start")]


def _sandboxes() -> list[Finding]:
    """A sandbox ends with the process that started it; one that did not takes CPU from the next run."""
    found = machine.running_sandboxes()
    left = [str(sandbox.pid) for sandbox in found if not sandbox.owned]
    if left:
        detail = f"{len(left)} left behind by a run that is gone: fidelity may fail"
        return [Finding("leftovers", "degraded", detail, _as_root(f"kill -9 {' '.join(left)}"))]
    others = f"; {len(found)} of a run under way" if found else ""
    return [Finding("leftovers", "ok", f"none{others}")]


_CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    _machine, _kernel, _tools, _python, _open_files, _processes, _memory, _disk, _cores, _clock, _sandboxes,
)  # fmt: skip
