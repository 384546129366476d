"""Runs as the XML that JUnit's Ant task writes, which CI systems show: a test case a run, and one for the verdict.

The elements are those that https://github.com/testmoapp/junitxml describes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from experiments.judge.rows import PASS
from experiments.results.folder import ResultsFolder
from experiments.results.sentences import lines, sentence
from experiments.results.verdict import Verdict

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TIMES = ("cct_s", "duration_s")


def as_xml(folder: ResultsFolder, verdict: Verdict, refused: str | None) -> bytes:
    """Return the document: a run fails whose numbers cannot be trusted, one is an error that did not finish.

    The verdict is a case of its own: it fails by the reason `refused`, if there is one, and is skipped where there is
    none. Raises ResultsError.
    """
    manifest = folder.manifest()
    name = str(manifest.get("experiment", {}).get("name") or "spraylab")
    suite = ElementTree.Element("testsuite", name=_clean(name), timestamp=_clean(str(manifest.get("started", ""))))
    for row in folder.runs().to_dict("records"):
        case = _case(suite, f"{name}.{row['traffic']}", f"{row['scheme']}, seed {row['seed']}", _took_s(row))
        if row["fidelity"] != PASS:
            _said(case, "failure", str(row["fidelity_reasons"]))
    for row in folder.failed_runs().to_dict("records"):
        _said(_case(suite, name, str(row["run_id"])), "error", str(row["reason"]))
    case = _case(suite, name, "verdict")
    if refused:
        _said(case, "failure", refused)
    elif verdict.outcome is None:
        _said(case, "skipped", sentence(verdict))
    out = ElementTree.SubElement(case, "system-out")
    out.text = _clean("\n".join([*lines(verdict), sentence(verdict)]))
    for kind, element in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(sum(1 for _ in suite.iter(element))))
    ElementTree.indent(suite)
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)) + b"\n"


def _case(suite: ElementTree.Element, of: str, name: str, took_s: float | None = None) -> ElementTree.Element:
    case = ElementTree.SubElement(suite, "testcase", classname=_clean(of), name=_clean(name))
    if took_s is not None:
        case.set("time", f"{took_s:.3f}")
    return case


def _said(case: ElementTree.Element, kind: str, why: str) -> None:
    ElementTree.SubElement(case, kind, message=_clean(why))


def _took_s(row: Mapping[Any, Any]) -> float | None:
    return next((float(row[key]) for key in _TIMES if pd.notna(row.get(key))), None)


def _clean(text: str) -> str:
    """What XML may hold of `text`."""
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
