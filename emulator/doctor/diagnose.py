"""Whether this machine can run experiments, and what is lost where it can only do so in part.

Changes nothing on the machine. Checks of its kernel are in `kernel`, of its room and speed in `resources`, of
programs and Python here. Each returns what it found; without root, those that need it go by
what is configured, and say so.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import platform
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from emulator.doctor import kernel, resources
from emulator.doctor.finding import Finding, as_json, install, lines, render, works
from emulator.doctor.kernel import Refused, ask
from emulator.inherited import python as isolated_python

__all__ = ["Finding", "as_json", "diagnose", "lines", "render", "works"]

_IMPORT_TIMEOUT_S = 60.0
_DISTRIBUTION_MININET = Path("/usr/lib/python3/dist-packages/mininet")


@dataclass(frozen=True)
class Tool:
    """A program that a fabric needs: its Debian package, what is lost without it ("": all), how to have it answer.

    The launcher (`spraylab`) installs the same programs.
    """

    name: str
    package: str
    lost: str = ""
    ask: Sequence[str] = ("--version",)


TOOLS = (
    Tool("ovs-vswitchd", "openvswitch-switch"),
    Tool("ovsdb-server", "openvswitch-switch"),
    Tool("ovsdb-tool", "openvswitch-switch"),
    Tool("ovs-vsctl", "openvswitch-switch"),
    Tool("ovs-dpctl", "openvswitch-switch"),
    Tool("ovs-ofctl", "openvswitch-switch", "no look at the switches' tables, and so no system tests"),
    Tool("mnexec", "mininet", ask=("true",)),  # it tells no version, but runs programs
    Tool("ifconfig", "net-tools"),  # Mininet does not start without
    Tool("nft", "nftables"),
    Tool("ip", "iproute2", ask=("-V",)),
    Tool("tc", "iproute2", "the kernel's queueing disciplines cannot be tried", ask=("-V",)),
    Tool("tcpdump", "tcpdump", "no captures"),
    Tool("ping", "iputils-ping", "no ping on the hosts of shell", ask=("-V",)),
    Tool("iperf3", "iperf3", "no example of exec"),
    Tool("unshare", "util-linux"),
    Tool("setpriv", "util-linux"),
    Tool("mount", "mount"),
)


def diagnose() -> list[Finding]:
    """Return every check's findings, in about a second. Raises nothing: a check that fails is itself a finding."""
    load = _perform(resources.load)  # first, and alone: the other checks are load too
    with ThreadPoolExecutor() as pool:
        return [*chain.from_iterable(pool.map(_perform, _CHECKS)), *load]


def _perform(check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    try:
        found = check()
    except Exception as error:  # whatever it is, the other checks still have something to say
        name = check.__name__.replace("_", " ")
        return [Finding(name, "degraded", f"could not be checked: {type(error).__name__}: {error}")]
    return found if isinstance(found, list) else [found]


def tools() -> list[Finding]:
    """Check the programs that a fabric needs."""
    return [_tool(tool) for tool in TOOLS]


def _tool(tool: Tool) -> Finding:
    try:
        answer = ask([tool.name, *tool.ask])
    except FileNotFoundError:
        complaint, remedy = "not installed", install(tool.package)
    except Refused as refusal:
        complaint, remedy = f"does not work: {refusal}", install(f"--reinstall {tool.package}")
    else:
        version = re.search(r"\d+(\.\d+)+", answer)
        return Finding(tool.name, "ok", version[0] if version else "works")
    if tool.lost:
        return Finding(tool.name, "degraded", f"{complaint}; {tool.lost}", remedy)
    return Finding(tool.name, "missing", complaint, remedy)


def python() -> list[Finding]:
    """Check the interpreter, the packages that setup.cfg asks for, and Mininet, which the distribution has."""
    requirements = [line for line in importlib.metadata.requires("spraylab") or [] if "extra ==" not in line]
    packages = [match[0] for line in requirements if (match := re.match(r"[\w.-]+", line))]
    modules = {package: package.replace("-", "_") for package in packages}
    mininet = ["mininet.net", "mininet.node"] if importlib.util.find_spec("mininet") else []
    failures = _import_failures([*modules.values(), *mininet])
    broken = [package for package in packages if modules[package] in failures]
    remedy = f"rm -r {sys.prefix}; ./spraylab --setup"
    return [
        Finding("python", "ok", platform.python_version()),
        *(Finding(package, "missing", failures[modules[package]], remedy) for package in broken),
        Finding("packages", "ok", ", ".join(_versions(set(packages) - set(broken)))),
        _mininet([failures[module] for module in mininet if module in failures], importable=bool(mininet)),
    ]


def _versions(packages: set[str]) -> list[str]:
    return [f"{package} {importlib.metadata.version(package)}" for package in sorted(packages)]


def _mininet(complaints: Sequence[str], *, importable: bool) -> Finding:
    if complaints:
        return Finding("mininet", "missing", complaints[0], install("--reinstall mininet"))
    if importable:
        return Finding("mininet", "ok", "imports")
    if _DISTRIBUTION_MININET.exists():
        return Finding("mininet", "ok", "installed; the next run makes it importable")
    return Finding("mininet", "missing", "not installed", install("mininet"))


def _import_failures(modules: Sequence[str]) -> dict[str, str]:
    """Imports modules in a process of its own (see `main`): name -> complaint, of those that fail."""
    answer = ask(isolated_python("emulator.doctor.diagnose", *modules), timeout_s=_IMPORT_TIMEOUT_S)
    failures: dict[str, str] = json.loads(answer.splitlines()[-1])
    return failures


def main(modules: Sequence[str]) -> None:
    """Print which of `modules` cannot be imported, and why."""
    print(json.dumps(_import_all(modules)))


def _import_all(modules: Sequence[str]) -> dict[str, str]:
    failures = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a broken package raises
            failures[module] = f"{type(error).__name__}: {error}"
    return failures


_CHECKS: tuple[Callable[[], Finding | list[Finding]], ...] = (
    resources.surroundings, resources.privileges,
    kernel.kernel_features, kernel.mptcp, kernel.congestion_controls,
    tools, python,
    resources.open_files, resources.processes, resources.memory, resources.disk, resources.cores, resources.clock,
    resources.leftovers,
)  # fmt: skip
