"""The report as a browser shows it: all figures there, on a phone and on a desk, light and dark, and on paper."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_rgb
from results_example import results_folder

from experiments.results.report import write_report

MEASURE = Path(__file__).with_name("measure.js").read_text()
PHONE, DESK = 400, 1400
SCHEMES = [
    *("ecmp", "spray", "ethereal", "spray-random", "switch-spray", "subflow-4", "subflow-16", "mptcp-4"),
    *("flowlet-10ms", "flowlet-20ms"),
]
TIMEOUT_S = 120
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


@pytest.fixture(scope="session")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium to open a report in: apt-get install chromium")
    try:
        subprocess.run([found, "--version"], capture_output=True, check=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"{found} does not start: {error}")
    return found


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with what is hard to place: many schemes, a long name, letters of another script, failed runs."""
    folder = results_folder(
        tmp_path_factory.mktemp("one") / "example",
        ["allreduce-halving-doubling-channels-4-size-4MB", "<b>ring</b> & 你好.cm"],
        SCHEMES,
        failed=["001-ecmp-s1", "002-ecmp-s2", "013-subflow-16-s1"],
    )
    write_report([folder], folder.path / "report.html")
    return folder.path / "report.html"


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("two")
    folders = [
        results_folder(home / "as-it-was", ["permutation", "alltoall"], ["ecmp", "ethereal"]),
        results_folder(home / "with-another-kernel", ["alltoall"], ["ecmp", "subflow-4"], (1,)),
    ]
    write_report(folders, home / "both.html")
    return home / "both.html"


def run(chromium: str, scratch: Path, *arguments: str) -> str:
    profile = scratch / "profile"
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", *arguments]
    environment = {"HOME": str(scratch), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, capture_output=True, check=True, timeout=TIMEOUT_S, env=environment, text=True
    ).stdout  # fmt: skip


def measured(chromium: str, report: Path, scratch: Path, width: int, dark: bool = False) -> dict[str, Any]:
    """What `measure.js` says of the report in a frame `width` wide: a browser's own window is never a phone's."""
    frame = html.escape(report.read_text(), quote=True)
    outer = scratch / "outer.html"
    outer.write_text(
        f'<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><script>{MEASURE}\n'
        "addEventListener('load', () => { document.getElementById('out').textContent ="
        " JSON.stringify(measure(document.getElementById('page').contentWindow)) })</script>"
        f'<iframe id="page" style="width:{width}px;height:900px;border:0" srcdoc="{frame}"></iframe>'
        '<pre id="out"></pre>'
    )
    preference = ["--blink-settings=preferredColorScheme=0"] if dark else []
    shown = run(chromium, scratch, f"--window-size={max(width, 600)},1000", *preference, "--dump-dom", outer.as_uri())
    found = re.search(r'<pre id="out">(.+?)</pre>', shown, re.DOTALL)
    assert found, "the page was not measured"
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert (result["width"], result["dark"]) == (width, dark), "measured as asked"
    return result


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_is_cut_off_and_no_text_lies_over_text(chromium: str, one: Path, tmp_path: Path, width: int) -> None:
    seen = measured(chromium, one, tmp_path, width)
    assert not seen["complaints"], "\n".join(seen["complaints"])
    assert seen["scroll_width"] <= width


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_two_folders_fit_as_well(chromium: str, two: Path, tmp_path: Path, width: int) -> None:
    seen = measured(chromium, two, tmp_path, width)
    assert not seen["complaints"], "\n".join(seen["complaints"])
    assert seen["scroll_width"] <= width


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_all_figures_are_there_and_can_be_read(chromium: str, one: Path, tmp_path: Path, width: int) -> None:
    figures = measured(chromium, one, tmp_path, width)["figures"]
    assert len(figures) == len(list((one.parent / "figures").glob("*.svg"))) == 3 * 2 + 2 * len(SCHEMES)
    for figure in figures:
        least = (100, 40, 2) if figure["small"] else (300, 100, 5)
        found = figure["width"], figure["height"], figure["texts"]
        assert all(has >= needs for has, needs in zip(found, least, strict=True)), figure
        assert figure["smallest"] >= 9, "text of at least 9 pixels"


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_the_page_light_and_dark(chromium: str, one: Path, tmp_path: Path, dark: bool) -> None:
    seen = measured(chromium, one, tmp_path, DESK, dark)
    assert not seen["complaints"], "\n".join(seen["complaints"])
    text, page, figure = (luminance(seen[key]) for key in ("text", "background", "figure_text"))
    assert (page < text) == dark and figure == text
    assert (max(text, page) + 0.05) / (min(text, page) + 0.05) >= 7, "WCAG's enhanced contrast"


def luminance(css: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"[0-9]+", css)[:3])
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb((red, green, blue))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.fixture(scope="session")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many collectives, schemes and seeds as the catalog's quick."""
    folder = results_folder(
        tmp_path_factory.mktemp("usual") / "r", ["permutation", "alltoall", "perm_16n_16c_2MB"], seeds=(1, 2, 3)
    )
    write_report([folder], folder.path / "report.html")
    return folder.path / "report.html"


def test_it_prints_on_three_pages_of_a4(chromium: str, usual: Path, tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    run(chromium, tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", usual.as_uri())
    pages = re.findall(rb"/MediaBox \[0 0 ([0-9.]+) ([0-9.]+)\]", paper.read_bytes())
    assert 1 <= len(pages) <= 3
    assert {(round(float(width)), round(float(height))) for width, height in pages} == {(595, 842)}
