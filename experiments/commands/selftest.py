"""`spraylab test`: static checks, unit tests as the checkout's owner, system tests as root; one summary at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from emulator.inherited import environment, which
from experiments.commands import signals

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "tests" / "unit"
SYSTEM = ROOT / "tests" / "system"
BROWSER = ROOT / "tests" / "browser"  # needs Chromium, and skips itself without
FUZZ = ROOT / "tests" / "fuzz"
STORM = ROOT / "tests" / "storm"
ROOTLESS = (UNIT, FUZZ, BROWSER)
FUZZED_INPUTS = "1500"  # files a reader: about a minute for all readers together

# -I: neither PYTHONPATH nor the current directory may put another `experiments` or `traffic` first.
PYTHON = (sys.executable, "-I")
TOOLS = Path(sys.executable).parent  # not resolved: an environment's python leads elsewhere
CHECKS = {
    "ruff": [*PYTHON, "-m", "ruff", "check", "."],
    "ruff format": [*PYTHON, "-m", "ruff", "format", "--check", "."],
    "mypy": [*PYTHON, "-m", "mypy"],
    **{f"mypy {tests.name}": [*PYTHON, "-m", "mypy", str(tests)] for tests in (*ROOTLESS, SYSTEM, STORM)},
    "import-linter": [str(TOOLS / "lint-imports"), "--no-cache", "--no-logo"],
    "shellcheck": [str(TOOLS / "shellcheck"), "spraylab", ".ci/run", *sorted(map(str, ROOT.glob("tests/*.sh")))],
}
"""What is looked at without running it, by the name in the summary; .pre-commit-config.yaml has the same."""
TIMEOUT_S = "3600"
NO_TESTS_RAN = 5  # pytest.ExitCode.NO_TESTS_COLLECTED


@dataclass(frozen=True)
class Result:
    """How one part went. `counts` is passed, failed and skipped tests, or None where there is no such thing."""

    name: str
    exit_status: int
    seconds: float
    counts: tuple[int, int, int] | None = None


def main(args: list[str], *, smoke: bool = False, fuzz: bool = False, storm: bool = False) -> int:
    """Run every check and say how each went; a failure does not stop the ones after it.

    `args` go to pytest: options to both its runs, a path under tests/unit or tests/system only to its own, and then the
    other part does not run. `smoke` is the system tests marked `smoke` and nothing else, `fuzz` a minute of new damage
    for everything that reads files, `storm` runs whose processes are struck by signals.
    Returns the exit status: 0, 1 after a failure, 2 if no test was run, 128 + n after signal n.
    """
    options, unit_paths, system_paths = divide(args)
    if fuzz:
        return summarize([run_pytest("fuzz", [str(FUZZ)], ["--inputs", FUZZED_INPUTS, *options])])
    if storm:
        return summarize([run_pytest("storm", [str(STORM)], options, as_root=True)])
    run_all = not unit_paths and not system_paths
    results: list[Result] = []
    try:
        if not smoke:
            results += [run(name, command) for name, command in CHECKS.items()]
            if run_all or unit_paths:
                results.append(run_pytest("unit tests", unit_paths or [*map(str, ROOTLESS)], options))
        if smoke or run_all or system_paths:
            marker = ["-m", "smoke"] if smoke else []
            results.append(run_pytest("system tests", system_paths or [str(SYSTEM)], [*marker, *options], as_root=True))
    except KeyboardInterrupt as interrupt:
        print(f"\nspraylab: {interrupt}", file=sys.stderr)
        return signals.status(interrupt)
    return summarize(results)


def divide(args: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Split pytest's arguments into (options, unit test paths, system test paths), the paths made absolute.

    A path counts from the current directory or else from the repository's root.
    """
    options: list[str] = []
    unit_paths: list[str] = []
    system_paths: list[str] = []
    for arg in args:
        name, separator, test = arg.partition("::")
        for path in ((Path.cwd() / name).resolve(), (ROOT / name).resolve()):
            if any(path.is_relative_to(tests) for tests in ROOTLESS):
                unit_paths.append(f"{path}{separator}{test}")
                break
            if path.is_relative_to(SYSTEM) or path.is_relative_to(STORM):
                system_paths.append(f"{path}{separator}{test}")
                break
            if path == ROOT / "tests":  # everything, which is what no path means
                break
        else:
            options.append(arg)
    return options, unit_paths, system_paths


def run_pytest(name: str, paths: list[str], options: list[str], *, as_root: bool = False) -> Result:
    """Run pytest on `paths`. That no test is there is a failure, unless `options` may have selected among them."""
    with tempfile.TemporaryDirectory(prefix="spraylab-test-") as scratch:
        if owner := _owner_to_be():
            os.chown(scratch, *owner)
        report = Path(scratch) / "junit.xml"
        spread = [] if as_root else ["-n", "auto"]  # system tests measure the machine, and have it to themselves
        command = [*PYTHON, "-m", "pytest", f"--junitxml={report}", *spread, *options, *paths]
        if as_root:
            # nothing of root's stays in a user's checkout
            command = ["env", "PYTHONDONTWRITEBYTECODE=1", *PYTHON, "-B", *command[len(PYTHON) :]]
            command += ["-p", "no:cacheprovider"]
        result = run(name, command, as_root=as_root)
        status = 0 if result.exit_status == NO_TESTS_RAN and options else result.exit_status
        return Result(name, status, result.seconds, read_counts(report))


def run(name: str, command: list[str], *, as_root: bool = False) -> Result:
    """Run one part from the repository's root, its output going where ours goes."""
    print(f"\n== {name}", flush=True)
    # --foreground: Ctrl-C reaches the part as well; coreutils' timeout since sudo's children are not ours to end.
    command = ["timeout", "--foreground", "--kill-after=60", TIMEOUT_S, *command]
    if as_root and os.geteuid() != 0:
        if which("sudo") is None:
            print("spraylab: the system tests need root: start this as root, or install sudo", file=sys.stderr)
            return Result(name, 1, 0.0)
        command = ["sudo", *command]
    uid, gid = (None, None) if as_root else _owner_to_be() or (None, None)
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=None if as_root else subprocess.DEVNULL,  # sudo may ask for a password
        user=uid,
        group=gid,
        extra_groups=[] if gid is not None else None,
        env=environment() if as_root and os.geteuid() == 0 else None,  # else it is the user's, or sudo's affair
    )
    try:
        status = process.wait()
    except KeyboardInterrupt as interrupt:
        if signals.status(interrupt) != 128 + signal.SIGINT:  # Ctrl-C has interrupted it too
            with contextlib.suppress(PermissionError):  # sudo's are not ours to interrupt
                process.send_signal(signal.SIGINT)
        process.wait()  # let it tidy up
        raise
    return Result(name, status, time.monotonic() - started)


def _owner_to_be() -> tuple[int, int] | None:
    """Whom to become for what needs no root: if we are root in someone's checkout, its owner (uid, gid).

    So it is shown to need no root, and its caches stay the owner's.
    """
    owner = ROOT.stat()
    return (owner.st_uid, owner.st_gid) if os.geteuid() == 0 and owner.st_uid != 0 else None


def read_counts(report: Path) -> tuple[int, int, int] | None:
    """(passed, failed, skipped) from pytest's JUnit report; None if it wrote none."""
    try:
        suites = ElementTree.parse(report).getroot().findall("testsuite")
    except (OSError, ElementTree.ParseError):
        return None
    total, failures, errors, skipped = (
        sum(int(suite.get(key, "0")) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    return total - failures - errors - skipped, failures + errors, skipped


def summarize(results: list[Result]) -> int:
    """Print how every part went; return the exit status of the whole."""
    ran_tests = any(result.counts and sum(result.counts) for result in results)
    print("\n== summary")
    failed = False
    for result in results:
        if result.exit_status:
            verdict = f"FAILED (exit status {result.exit_status})"
            failed = True
        else:
            verdict = "no test selected" if result.counts == (0, 0, 0) else "ok"
        counts = "{} passed, {} failed, {} skipped".format(*result.counts) if result.counts else ""
        print(f"{result.name:<13} {verdict:<24} {result.seconds:6.1f} s  {counts}".rstrip())
    passed, broken, skipped = (sum(column) for column in zip(*(r.counts or (0, 0, 0) for r in results), strict=True))
    print(f"{passed} passed, {broken} failed, {skipped} skipped")
    if failed:
        return 1
    if not ran_tests:
        print("spraylab: no test was run: nothing in tests/ matches the arguments", file=sys.stderr)
        return 2
    return 0
