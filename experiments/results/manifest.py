"""manifest.json: what was asked, and on what it ran."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from emulator.caller import as_command
from emulator.inherited import environment
from experiments.judge.evidence import Built
from experiments.results.folder import ResultsFolder
from experiments.results.verdict import DEFAULT_WITHIN
from experiments.spec.experiment import Experiment

MACHINES = "machines"
"""Where a manifest has what `here` says on each machine of a cluster, by name."""

_CHECKOUT = Path(__file__).parents[2]


def manifest(experiment: Experiment, within: float = DEFAULT_WITHIN) -> dict[str, Any]:
    """What was asked, and on what it runs; the sandbox's findings are added once the fabric is up."""
    return {
        "experiment": experiment.as_json(),
        "within": within,
        "command": shlex.join(["spraylab", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **here(),
        "sysctls": experiment.tcp().sysctls(),
    }


def machine() -> dict[str, Any]:
    """Return what the capacity of this machine depends on."""
    return {"kernel": platform.release(), "cores": len(os.sched_getaffinity(0)), "cpu": _cpu_model()}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def here() -> dict[str, Any]:
    """Return what a manifest says of this machine and of what is installed on it."""
    packages = ("spraylab", "os-ken", "numpy", "pandas", "pyarrow")
    return {
        "machine": {
            **machine(),
            "architecture": platform.machine(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "versions": {
            "python": platform.python_version(),
            "revision": _revision(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }


@cache
def _revision() -> str | None:
    """Return the git commit of the checkout that this is; '-dirty' follows where it was changed. None: no checkout."""
    if not (_CHECKOUT / ".git").exists():  # git would find one that this is installed somewhere in
        return None
    own = ["-c", f"safe.directory={_CHECKOUT}", "-c", "core.fsmonitor=false"]
    words = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    where = environment(GIT_OPTIONAL_LOCKS="0", LC_ALL="C")
    try:
        told = subprocess.run(
            ["git", "-C", str(_CHECKOUT), *own, *words],
            env=where, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=10,
            **as_command(),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return str(told.stdout).strip()


def note_machine(folder: ResultsFolder) -> list[str]:
    """Describe this machine in the manifest too where the runs to come are not made as the last ones were.

    Returns what has changed, a clause each.

    `resumed` there is by the time it went on; the rows of runs.csv after the first `runs_before` are from then.
    """
    manifest, now_here = folder.manifest(), here()
    last = _latest_machine(manifest)
    changed = [
        f"{key} was {last[part][key]}, is {now}"
        for part, values in now_here.items()
        for key, now in values.items()
        if key != "memory_bytes"  # a kernel takes more or less for itself
        and last.get(part, {}).get(key) not in (now, None)
    ]
    if changed:
        entry = {**now_here, "runs_before": len(folder.runs())}
        manifest["resumed"] = {**manifest.get("resumed", {}), time.strftime("%Y-%m-%dT%H:%M:%S%z"): entry}
        folder.write_manifest(manifest)
    return changed


def _latest_machine(manifest: dict[str, Any]) -> dict[str, Any]:
    """Where a manifest describes the machine of its latest runs."""
    return list(manifest.get("resumed", {}).values() or [manifest])[-1]


def record_machine(folder: ResultsFolder, name: str, about: Mapping[str, Any]) -> None:
    """Add to the manifest a machine of a cluster, which `about` describes, or describe it anew."""
    manifest = folder.manifest()
    manifest[MACHINES] = {**manifest.get(MACHINES, {}), name: dict(about)}
    folder.write_manifest(manifest)


def record_fabric(folder: ResultsFolder, built: Built) -> None:
    """Add to the manifest the fabric that the runs to come are made on."""
    manifest = folder.manifest()
    where = manifest[MACHINES][built.machine] if built.machine else _latest_machine(manifest)
    where["fabric"] = {
        "dataplane": built.dataplane,
        "openvswitch": built.ovs_version,
        "setup_s": built.setup_s,
        "packet_buffer_bytes": built.packet_buffer_bytes,
        "shaping": {name: shaping and asdict(shaping) for name, shaping in built.shaping.items()},
    }
    folder.write_manifest(manifest)
