"""JUnit's XML of runs: what fails, what did not finish, what the verdict was."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from results_example import REASON, manifest_of, results_folder

from experiments import cli
from experiments.commands import performing
from experiments.results.folder import ResultsFolder
from experiments.results.junit import as_xml
from experiments.results.verdict import of_results


def document(folder: ResultsFolder, refused: str | None = None) -> ElementTree.Element:
    return ElementTree.fromstring(as_xml(folder, of_results(folder.runs(), folder.manifest()), refused))


def cases(suite: ElementTree.Element, kind: str) -> list[tuple[str | None, str | None]]:
    return [(case.get("name"), found.get("message")) for case in suite for found in case.iter(kind)]


def example(path: Path, failed: Collection[str] = ()) -> ResultsFolder:
    return results_folder(path / "results", failed=failed)


def test_a_case_a_run_and_one_for_the_verdict(tmp_path: Path) -> None:
    folder = example(tmp_path)
    suite = document(folder)
    assert int(suite.get("tests", "")) == len(suite) == len(folder.runs()) + 1
    assert [suite.get(kind) for kind in ("failures", "errors", "skipped")] == ["0", "0", "0"]
    times_s = [float(case.get("time", "nan")) for case in suite][:-1]
    assert times_s == [round(cct_s, 3) for cct_s in folder.runs().cct_s]
    assert suite[0].get("classname") == "example.permutation" and suite[0].get("name") == "ecmp, seed 1"
    assert "Splitting" in str(suite[-1].findtext("system-out")) or "single path" in str(
        suite[-1].findtext("system-out")
    )


def test_what_cannot_be_trusted_is_a_failure_with_its_reasons(tmp_path: Path) -> None:
    suite = document(example(tmp_path, failed={"002-ecmp-s2"}))
    assert cases(suite, "failure") == [("ecmp, seed 2", REASON)]
    assert suite.get("failures") == "1"


def test_what_did_not_finish_is_an_error(tmp_path: Path) -> None:
    folder = example(tmp_path)
    folder.record_failed(["099-lost"], "the link went away\x00<&")
    suite = document(folder)
    assert cases(suite, "error") == [("099-lost", "the link went away\N{REPLACEMENT CHARACTER}<&")]


def test_the_verdict_fails_by_what_was_refused_and_is_skipped_without_one(tmp_path: Path) -> None:
    folder = example(tmp_path)
    assert cases(document(folder, "--fail-on spraying-pays: it does"), "failure") == [
        ("verdict", "--fail-on spraying-pays: it does")
    ]
    empty = ResultsFolder.create(tmp_path / "empty", manifest_of())
    ((name, why),) = cases(document(empty), "skipped")
    assert name == "verdict" and str(why).startswith("No verdict")


def test_run_writes_it_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, file = example(tmp_path, failed={"002-ecmp-s2"}), tmp_path / "junit.xml"
    monkeypatch.setattr(performing, "become_root", lambda: None)
    monkeypatch.setattr(performing, "conduct", lambda *_, **__: [])
    options = ["--resume", str(folder.path), "--fail-on", "fidelity", "--junit", str(file)]
    assert CliRunner().invoke(cli.main, ["run", *options]).exit_code == 3
    suite = ElementTree.parse(file).getroot()
    assert cases(suite, "failure") == [
        ("ecmp, seed 2", REASON),
        ("verdict", "--fail-on fidelity: 1 of 12 runs cannot be trusted"),
    ]
