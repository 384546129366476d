"""What `doctor` promises: the right line for each fault, no traceback, nothing changed. The faults are planted in
processes of its own: a PATH without the programs, a low limit, another user, a broken package.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from emulator.doctor import kernel, resources
from emulator.doctor.diagnose import TOOLS, Finding, as_json, render, works
from emulator.proc import machine_cpu

_DIAGNOSE = "import json; from emulator.doctor import diagnose as d; print(json.dumps(d.as_json(d.diagnose())))"
# What is there to be found is planted by PATH, by which nothing of ours goes.
_BEFORE = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from emulator import inherited
inherited.PATH = os.environ["PATH"]
"""
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
_is_root = os.geteuid() == 0


def python(
    code: str,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
    folder: Path | None = None,
) -> str:
    """What a Python program prints, in its own process; it must end well and complain of nothing."""
    done = subprocess.run(
        [*(str(shutil.which(word) or word) for word in prefix), sys.executable, "-P", "-c", _BEFORE + code],
        env={**os.environ, **(environment or {})}, preexec_fn=before, cwd=folder,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def finding(expression: str, **where: Any) -> Finding:
    """One check's finding, from a process of its own."""
    code = f"""
import dataclasses, json, os, subprocess
from emulator.doctor import kernel
from emulator.doctor import resources
from emulator.doctor.diagnose import Finding
print(json.dumps(dataclasses.asdict({expression})))
"""
    return Finding(**json.loads(python(code, **where)))


def diagnosis(**where: Any) -> tuple[bool, dict[str, Finding]]:
    """Whether `run` can work, and all findings by name, as a process of its own has them."""
    answer = json.loads(python(_DIAGNOSE, **where))
    findings = [Finding(**fields) for fields in answer["findings"]]
    by_name = {found.name: found for found in findings}
    assert len(by_name) == len(findings), "two lines have one name"
    for found in findings:
        assert found.status in ("ok", "degraded", "missing")
        assert found.detail
        assert bool(found.remedy) <= (found.status != "ok"), f"{found}: nothing to put right"
        assert found.status != "missing" or found.remedy, f"{found}: does not say how to put it right"
        assert "could not be checked" not in found.detail
    return answer["works"], by_name


@functools.cache
def as_nobody() -> tuple[str, ...]:
    """What starts a process without root; skips the test where that user cannot reach this checkout."""
    if not _is_root:
        return ()
    command = [*_NOBODY, sys.executable, "-P", "-c", "import emulator.doctor.diagnose"]
    try:
        subprocess.run(command, check=True, timeout=30, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("an unprivileged user cannot read this checkout")
    return _NOBODY


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def interfaces() -> set[str]:
    return {folder.name for folder in Path("/sys/class/net").iterdir()}


# All checks together


def test_this_machine_is_diagnosed_and_left_as_it_was() -> None:
    before = interfaces()
    can_work, findings = diagnosis()
    assert interfaces() == before
    assert can_work == all(found.status != "missing" for found in findings.values())
    assert {tool.name for tool in TOOLS} | {feature.name for feature in kernel.FEATURES} <= findings.keys()
    assert {"MPTCP", "congestion control", "namespaces", "open files", "cores", "leftovers", "load"} <= findings.keys()


def test_the_launcher_installs_what_the_doctor_asks_for() -> None:
    """Program by program, and from the same packages."""
    launcher = (Path(__file__).parents[2] / "spraylab").read_text()
    listed = re.search(r"^fabric_programs='\n(.+?)'$", launcher, re.DOTALL | re.MULTILINE)
    assert listed
    assert set(listed[1].split()) == {f"{tool.name}:{tool.package}" for tool in TOOLS}


def test_a_machine_without_programs_and_without_root() -> None:
    nobody = as_nobody()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # pytest's own folders are closed to others
        script(Path(folder) / "sudo", "#!/bin/sh\nexit 1\n")
        can_work, findings = diagnosis(prefix=nobody, environment={"PATH": folder})
    assert not can_work
    for tool in TOOLS:
        assert findings[tool.name].status == ("degraded" if tool.lost else "missing")
        assert findings[tool.name].remedy == f"sudo apt-get install {tool.package}"
        assert tool.lost in findings[tool.name].detail
    assert findings["privileges"].status == "ok"
    for name in ("namespaces", "veth", "tbf"):
        assert "without root" in findings[name].detail


def test_faults_are_told_apart(tmp_path: Path) -> None:
    """A program that fails, one that is no program, a package that cannot be imported, too few open files."""
    programs, packages = tmp_path / "bin", tmp_path / "packages"
    programs.mkdir()
    packages.mkdir()
    script(programs / "nft", "#!/bin/sh\necho 'nft: no [libnftables]' >&2\nexit 127\n")
    script(programs / "tcpdump", "not a program\n")
    (packages / "scapy.py").write_text("raise ImportError('libgone.so')\n")
    can_work, findings = diagnosis(
        environment={"PATH": str(programs), "PYTHONPATH": str(packages)},
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )
    assert not can_work
    assert findings["nft"].status == "missing"
    assert "nft: no [libnftables]" in findings["nft"].detail
    assert findings["nft"].remedy.endswith("apt-get install --reinstall nftables")
    assert findings["tcpdump"].status == "degraded"
    assert findings["tcpdump"].remedy.endswith("apt-get install --reinstall tcpdump")
    assert findings["scapy"].status == "missing"
    assert "libgone.so" in findings["scapy"].detail
    assert "pandas" in findings["packages"].detail
    assert "scapy" not in findings["packages"].detail
    assert findings["open files"].status == "missing"


# Single checks


@pytest.mark.parametrize(("limit", "status", "words"), [(64, "missing", "for 0 "), (1024, "degraded", "for 462 ")])
def test_open_files_say_how_many_subflows_fit(limit: int, status: str, words: str) -> None:
    found = finding("resources.open_files()", before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
    assert found.status == status
    assert words in found.detail
    assert "20100" in found.remedy


def test_ten_thousand_subflows_fit_into_enough_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, status in ((20_099, "degraded"), (20_100, "ok"), (resource.RLIM_INFINITY, "ok")):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert resources.open_files().status == status


def test_without_root_and_without_sudo_no_run_can_work(tmp_path: Path) -> None:
    found = finding("resources.privileges()", prefix=as_nobody(), environment={"PATH": str(tmp_path)})
    assert found.status == "missing"
    assert "sudo" in found.detail


@pytest.mark.skipif(not _is_root, reason="only root has privileges to give up")
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv")
def test_root_without_its_privileges_is_no_root() -> None:
    found = finding("resources.privileges()", prefix=("setpriv", "--bounding-set=-net_admin", "--"))
    assert found.status == "missing"
    assert "CAP_NET_ADMIN" in found.detail
    namespaces = finding("kernel.kernel_features()[0]", prefix=("setpriv", "--bounding-set=-sys_admin", "--"))
    assert (namespaces.name, namespaces.status) == ("namespaces", "missing")


@pytest.mark.skipif(not _is_root, reason="only root may change its root directory")
def test_user_space_switching_needs_the_tun_device(tmp_path: Path) -> None:
    in_a_bare_root = "[os.chroot('.'), kernel.user_space(Finding('openvswitch', 'degraded', 'not in the kernel'))][1]"
    found = finding(in_a_bare_root, folder=tmp_path)
    assert found.status == "missing"
    assert "/dev/net/tun" in found.detail


def test_a_program_that_hangs_is_not_waited_for() -> None:
    with pytest.raises(kernel.Refused, match="no answer"):
        kernel.ask([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.3)


def test_a_check_that_fails_does_not_take_the_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    from emulator.doctor import diagnose as doctor

    def broken() -> Finding:
        raise ValueError("surprise")

    monkeypatch.setattr(doctor, "_CHECKS", (broken, resources.cores))
    findings = {found.name: found for found in doctor.diagnose()}
    assert findings["broken"].status == "degraded"
    assert "surprise" in findings["broken"].detail
    assert "cores" in findings


_NEEDED, _OPTIONAL = (
    kernel.Feature("thing", "sch_thing", "CONFIG_THING", ("tc",), "what it gives", lost)
    for lost in ("", "what is lost")
)


@pytest.mark.parametrize(
    ("feature", "complaint", "files", "status", "words"),
    [
        (_NEEDED, "", {}, "ok", "what it gives"),
        (_NEEDED, "unknown", {}, "missing", "unknown"),
        (_OPTIONAL, "unknown", {}, "degraded", "what is lost"),
        (_NEEDED, None, {}, "degraded", "not checked without root"),
        (_NEEDED, None, {"modules.dep": "kernel/net/sched/sch_other.ko:\n"}, "missing", "what it gives"),
        (_OPTIONAL, None, {"modules.dep": "kernel/net/sched/sch_other.ko:\n"}, "degraded", "what is lost"),
        (_NEEDED, None, {"modules.dep": "kernel/net/sched/sch_thing.ko.xz: a.ko\n"}, "ok", "not tried without root"),
        (_NEEDED, None, {"modules.builtin": "kernel/net/sched/sch_thing.ko\n"}, "ok", "not tried without root"),
        # another module's dependency is no module
        (_NEEDED, None, {"modules.dep": "kernel/a.ko: kernel/net/sched/sch_thing.ko\n"}, "missing", "what it gives"),
    ],
)
def test_features_are_judged_by_trial_and_else_by_the_kernels_files(
    feature: kernel.Feature,
    complaint: str | None,
    files: Mapping[str, str],
    status: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(kernel, "_modules", lambda: tmp_path)
    monkeypatch.setattr(kernel, "_settings", lambda: "")
    found = kernel.judge(feature, complaint, "without root")
    assert found.status == status
    assert words in found.detail
    assert status != "missing" or found.remedy


@pytest.mark.parametrize(
    ("settings_text", "status"),
    [
        ("CONFIG_OTHER=y\nCONFIG_THING=y\n", "ok"),
        ("CONFIG_OTHER=y\n# CONFIG_THING is not set\n", "missing"),
        ("CONFIG_OTHER=y\nCONFIG_THING=m\n", "degraded"),  # built, but its file is nowhere to be seen: it cannot tell
    ],
)
def test_the_kernels_configuration_tells_where_modules_do_not(
    settings_text: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_modules", lambda: tmp_path)
    monkeypatch.setattr(kernel, "_settings", lambda: settings_text)
    assert kernel.judge(_NEEDED, None, "without root").status == status


@pytest.mark.parametrize(
    ("listed", "status"), [("reno cubic bbr dctcp", "ok"), ("cubic", "degraded"), ("bbr", "missing")]
)
def test_cubic_is_needed_and_others_are_welcome(
    listed: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "listed").write_text(listed)
    monkeypatch.setattr(kernel, "_CONGESTION_CONTROLS", tmp_path / "listed")
    monkeypatch.setattr(kernel, "_modules", lambda: tmp_path)
    assert kernel.congestion_controls().status == status


def test_load_is_what_the_cores_did_and_what_was_taken_from_them() -> None:
    before = machine_cpu(b"cpu  100 0 100 1000 0 0 0 0 0 0\ncpu0 1 2 3\n")
    after = machine_cpu(b"cpu  130 5 110 1040 10 1 2 2 0 0\ncpu0 1 2 3\n")  # 100 ticks: 40 idle, 10 waiting, 2 stolen
    assert list(resources.busy_shares(before, after)) == pytest.approx([0.5, 0.02])
    assert resources.busy_shares(before, before)[1] == 0


def test_leftovers_are_sandboxes_whose_owner_is_gone(tmp_path: Path) -> None:
    inner = ["/venv/bin/python", "-P", "-m", "emulator.child", "emulator.sandbox", "4"]
    outer = ["unshare", "--net", "--", *inner]
    processes = {
        1: (0, ["/sbin/init"]),
        10: (1, ["/venv/bin/python", "-m", "experiments.cli", "run"]),
        11: (10, outer), 12: (11, inner),  # a run under way
        21: (1, outer), 22: (21, inner),  # its owner is gone
        32: (1, inner),  # and its unshare as well
        41: (os.getpid(), outer), 42: (41, inner),  # the doctor's own
        51: (1, ["vi", "emulator.sandbox"]),
        52: (1, ["grep", "-m", "1", "emulator.sandbox"]),
    }  # fmt: skip
    for pid, (parent, command) in processes.items():
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "cmdline").write_text("\0".join([*command, ""]))
        (folder / "stat").write_text(f"{pid} (a) b (c) S {parent} {'0 ' * 20}")
    (tmp_path / "self").mkdir()
    (tmp_path / "99").mkdir()  # it ended while it was looked at
    assert resources.sandboxes(str(tmp_path)) == ({11}, {21, 32})


# What is shown


@given(
    st.lists(
        st.builds(
            Finding,
            name=st.sampled_from(["veth", "congestion control", "nft"]),
            status=st.sampled_from(["ok", "degraded", "missing"]),
            detail=st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=200),
            remedy=st.sampled_from(["", "sudo apt-get install openvswitch-switch", "[red]a[/blue] " * 20]),
        )
    )
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_table_fits_80_columns_and_loses_nothing(findings: list[Finding]) -> None:
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(render(findings))
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    letters = "".join(shown.split())
    for found in findings:
        remedy = f">{found.remedy}" if found.remedy else ""
        assert "".join(f"{found.status}{found.name}{found.detail}{remedy}".split()) in letters
    assert ("run can work" in shown) == works(findings)


@pytest.mark.parametrize(("statuses", "can_work"), [
    ([], True), (["ok"], True), (["ok", "degraded"], True), (["degraded", "missing", "ok"], False),
])  # fmt: skip
def test_only_what_is_missing_keeps_a_run_from_working(statuses: list[Any], can_work: bool) -> None:
    findings = [Finding(f"check {number}", status, "detail") for number, status in enumerate(statuses)]
    assert works(findings) is can_work
    answer = json.loads(json.dumps(as_json(findings)))
    assert answer["works"] is can_work
    assert [Finding(**fields) for fields in answer["findings"]] == findings
