"""What passes to a child process and back, and every way it can fail to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.child import Child, ChildEnded
from emulator.errors import EmulatorError
from emulator.proc import read_process_stat

TIMEOUT_S = 20.0


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    here = Path(__file__).parent
    monkeypatch.syspath_prepend(str(here))
    with (tmp_path / "log").open("w") as log:
        child = Child("child_modules", "the echo", log)
        yield child
        child.end()


def gone(pid: int) -> bool:
    return read_process_stat(pid) is None


def test_objects_pass_both_ways(child: Child) -> None:
    assert child.ask({"order": [1, 2.5, None]}, TIMEOUT_S) == {"order": [1, 2.5, None]}
    assert child.ask("pid", TIMEOUT_S) == child.pid


def test_its_sentence_is_raised_here(child: Child) -> None:
    with pytest.raises(EmulatorError, match=r"^no such thing$"):
        child.ask("fail", TIMEOUT_S)


def test_a_fault_is_in_its_log_and_its_end_in_a_sentence(child: Child, tmp_path: Path) -> None:
    with pytest.raises(ChildEnded, match=r"^the echo ended unexpectedly \(exit status 1\); its last words are in run"):
        child.ask("break", TIMEOUT_S)
    assert "ValueError: a fault of ours" in (tmp_path / "log").read_text()
    for _ in range(2):  # whatever is asked of it now
        with pytest.raises(ChildEnded):
            child.ask("pid", TIMEOUT_S)


def test_who_is_silent_is_ended(child: Child) -> None:
    with pytest.raises(EmulatorError, match=r"^the echo has been silent for 0\.3 s and was ended$"):
        child.ask("hang", 0.3)
    assert gone(child.pid)


def test_it_ends_by_itself_when_nobody_listens(child: Child) -> None:
    child.ask("pid", TIMEOUT_S)
    started = time.monotonic()
    child.end(TIMEOUT_S)
    assert time.monotonic() - started < TIMEOUT_S
    assert gone(child.pid)


def test_a_module_that_is_not_there_ends_it(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        child = Child("emulator.no_such_module", "the echo", log)
    with pytest.raises(ChildEnded):
        child.receive(TIMEOUT_S)
