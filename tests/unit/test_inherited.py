"""Nothing that a user's environment names is run by a process of ours, which may be root's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.command import run
from emulator.inherited import environment, python, script

_STEERING = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV")
TIMEOUT_S = 30.0


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once any of what a user planted has run; all that could lead to it is in the environment."""
    folder, trace = tmp_path / "planted", tmp_path / "ran"
    folder.mkdir()
    for name in ("sitecustomize.py", "usercustomize.py", "json.py", "start.py"):
        (folder / name).write_text(f"open({str(trace)!r}, 'a').write({name!r})\n")
    for name in ("nft", "ip", "mount", "setpriv", "unshare", "true", "ovs-vswitchd"):
        (folder / name).write_text(f"#!/bin/sh\necho {name} >>{trace}\n")
        (folder / name).chmod(0o755)
    for name in _STEERING:
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("PYTHONSTARTUP", str(folder / "start.py"))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.chdir(folder)
    return trace


def printed(command: list[str]) -> str:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert not done.stderr
    return done.stdout


def test_a_program_is_the_systems_own(planted: Path) -> None:
    run(["true"])
    assert not planted.exists()


def test_a_python_imports_what_we_import_and_nothing_else(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert json.loads(printed(python("inherited_module", "a word", 7))) == [["a word", "7"], sys.path]
    assert not planted.exists()


def test_a_file_of_ours_starts_without_anybody_elses(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text("import json, sys; print(sys.argv[1:], sys.flags.isolated, sys.flags.no_site)")
    assert printed(script(tmp_path / "ours.py", "a word")) == "['a word'] 1 1\n"
    assert not planted.exists()


def test_the_environment_is_short_but_says_whose_results_are(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.delenv("SUDO_GID", raising=False)
    assert environment(MORE="yes").keys() == {"PATH", "LANG", "SUDO_UID", "MORE"}
    assert str(planted.parent) not in " ".join(environment().values())


def test_every_process_of_ours_is_started_so() -> None:
    """Whatever starts a process says what it inherits; a test of what the source says, as the next one may forget."""
    root = Path(__file__).parents[2]
    forgetful = []
    for room in ("emulator", "controllers", "traffic", "experiments"):
        for path in (root / room).rglob("*.py"):
            if path.parent.name != "examples" and path.name != "inherited.py":
                text = path.read_text()
                starts = sum(text.count(f"subprocess.{word}(") for word in ("run", "Popen", "check_output", "call"))
                if starts > text.count("env=") or "os.system" in text:
                    forgetful.append(str(path.relative_to(root)))
    assert not forgetful
