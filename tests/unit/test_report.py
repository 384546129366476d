"""One page says all that a results folder does: verdict and trust first, nothing from elsewhere, no silent omission."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from results_example import REASON, SCHEMES, TRAFFICS, manifest_of, results_folder

from experiments.results import report, sections
from experiments.results.folder import ResultsError, ResultsFolder
from experiments.results.overview import PAGE, fidelity, shown, summary
from experiments.results.report import report_path, write_report
from experiments.results.sections import typical, with_utilisation
from experiments.results.sentences import line_words, sentence
from experiments.results.verdict import Outcome, Verdict, of_results
from experiments.spec.experiment import load_experiment, restore_experiment

DRAWN = [section for section in sections.SECTIONS if section.needs not in ("loaded_s", "point")]
"""What there is to draw of replays."""


class Page(HTMLParser):
    """What a reader sees, what is loaded, and where the tags are."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self._skipped = False
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self._skipped = tag == "style"
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._skipped = False
        if tag == "table":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        if self._skipped:
            return
        self.words.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


def page_of(*folders: ResultsFolder) -> Page:
    out = folders[0].path / "page.html"
    write_report(folders, out)
    return Page(out.read_text())


def verdict_on(folder: ResultsFolder) -> Verdict:
    return of_results(folder.runs(), folder.manifest())


FAILED = "001-ecmp-s1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ResultsFolder:
    return results_folder(tmp_path_factory.mktemp("one") / "example", failed=[FAILED])


@pytest.fixture(scope="module")
def html(folder: ResultsFolder) -> str:
    write_report([folder], report_path([folder]))
    return (folder.path / "report.html").read_text()


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


# One folder


def test_verdict_and_trust_come_first(folder: ResultsFolder, page: Page) -> None:
    said = sentence(verdict_on(folder))
    assert said in page.text
    assert "11 of 12 runs can be trusted" in page.text
    assert page.text.index(said) < page.text.index(REASON) < page.text.index("Numbers")
    assert re.search(re.escape(REASON) + r" ?: " + FAILED, page.text)
    assert "1 of 12 : machine busy; try host_rate: 10mbit, fabric_rate: 10mbit" in page.text, "half of 20mbit"
    assert "details" in page.tags


def test_table_has_the_terminals_numbers_and_seconds_beside_what_was_predicted(
    folder: ResultsFolder, page: Page
) -> None:
    numbers = summary(with_utilisation(folder.runs(), folder.frame("links")))
    columns = shown(numbers, PAGE)
    wanted = [[row.scheme, *(column.text(row) for column in columns), fidelity(row)] for row in numbers.itertuples()]
    titles = next(row for row in page.rows if row)
    assert titles[1:-1] == [column.title for column in columns]
    said = {title.replace("\u00ad", "") for title in titles}
    assert {"CCT", "CCT / bound", "bus bandwidth", "fullest link", "connections"} <= said
    assert [row for row in page.rows if row and row[0] in SCHEMES] == wanted
    bound = f"bound {numbers.bound_s[0]:.3g} s"
    assert [row for row in page.rows if len(row) == 1 and row[0].endswith(" s")] == [[f"{t} {bound}"] for t in TRAFFICS]


def test_what_cannot_be_trusted_is_there_and_marked(tmp_path: Path) -> None:
    failed = ["001-ecmp-s1", "002-ecmp-s2"]
    folder = results_folder(tmp_path / "r", ["ring"], ["ecmp", "spray"], failed=failed)
    write_report([folder], folder.path / "page.html")
    rows = re.findall(r"<tr( class=\"untrusted\")?>\s*<th scope=\"row\"[^>]*>([a-z]+)</th>(.*?)</tr>",
                      (folder.path / "page.html").read_text(), re.DOTALL)  # fmt: skip
    (ecmp, spray) = rows
    assert (bool(ecmp[0]), ecmp[1], bool(spray[0]), spray[1]) == (True, "ecmp", False, "spray")
    assert re.search("<b>1.7[56]</b>", ecmp[2]) and "0/2 pass" in ecmp[2], (
        "two runs: their median is between 1.75 and 1.76"
    )


def test_utilisation_is_of_the_fullest_link() -> None:
    runs = pd.DataFrame({"run_id": ["a", "b"], "cct_s": [2.0, 0.0]})
    links = pd.DataFrame({"run_id": ["a", "a", "b"], "tx_bytes": [1000, 3000, 9], "rate_bps": [16_000, 16_000, 0]})
    shares = with_utilisation(runs, links).utilisation
    assert shares[0] == pytest.approx(3000 * 8 / 2 / 16_000) and pd.isna(shares[1])


def test_each_collective_has_its_line_first_and_the_threshold_is_said(folder: ResultsFolder, page: Page) -> None:
    verdict = verdict_on(folder)
    assert len(verdict.lines) == len(TRAFFICS)
    for line in verdict.lines:
        words, why = line_words(verdict, line)
        assert re.search(f"{line.traffic}: {words} *: {re.escape(why)}", page.text)
        assert page.text.index(why) < page.text.index(sentence(verdict))
    assert "at most 5 % longer" in page.text


def test_many_collectives_are_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_LINES", 2)
    folder = results_folder(tmp_path / "r", ["a", "b", "c"], SCHEMES, (1,))
    write_report([folder], folder.path / "page.html")
    first, folded = (folder.path / "page.html").read_text().split("1 more</summary>")
    assert "<strong>b: " in first and "<strong>c: " in folded and "<strong>c: " not in first


def test_date_and_revision_are_said(tmp_path: Path) -> None:
    versions = {"spraylab": "0.1.0", "revision": "0123456789abcdef0123456789abcdef01234567-dirty"}
    page = page_of(results_folder(tmp_path / "r", ["ring"], ["ecmp"], (1,), manifest=manifest_of(versions=versions)))
    assert "started 2030-01-02 03:04 spraylab 0.1.0 at revision 0123456789ab-dirty" in page.text


def test_every_heading_is_an_anchor_of_itself(html: str) -> None:
    headings = re.findall(r'<h2 id="([^"]+)"><a href="#([^"]+)">', html)
    assert len(headings) == html.count("<h2") and all(mine == link for mine, link in headings)


def test_verdict_is_beside_the_page_for_programs(folder: ResultsFolder, html: str) -> None:
    content = json.loads((folder.path / "verdict.json").read_text())
    assert content["format"] == 1 and content["overall"]["sentence"] in Page(html).text


def test_every_section_has_its_figures_and_how_to_read_them(page: Page) -> None:
    for section in DRAWN:
        assert section.title in page.text and section.reading in page.text
    each_traffic, each_scheme = len(TRAFFICS), len(TRAFFICS) * len(SCHEMES)
    assert page.tags.count("svg") == 3 * each_traffic + each_scheme + 2, "the fabric, and the maps' scale"
    assert page.tags.count("figure") == 3 * each_traffic + each_scheme


def test_nothing_comes_from_elsewhere(html: str, page: Page) -> None:
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.findall(r"url\((?!#)", html) and "@import" not in html
    assert set(re.findall(r'https?://[^"\s<]+', html)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_of_the_page_are_unique(html: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_figures_are_saved_as_well(folder: ResultsFolder, page: Page) -> None:
    files = sorted((folder.path / "figures").glob("*.svg"))
    assert len(files) == page.tags.count("figure")
    for file in files:
        assert ElementTree.parse(file).getroot().tag.endswith("svg")


def test_same_folder_same_page(folder: ResultsFolder, html: str) -> None:
    figures = {file.name: file.read_bytes() for file in (folder.path / "figures").iterdir()}
    write_report([folder], folder.path / "again.html")
    assert (folder.path / "again.html").read_text() == html
    assert {file.name: file.read_bytes() for file in (folder.path / "figures").iterdir()} == figures


def test_it_can_be_repeated_from_the_page(folder: ResultsFolder, html: str, tmp_path: Path) -> None:
    manifest = folder.manifest()
    command, experiment = (re.sub("&#39;", "'", block) for block in re.findall(r"<pre>(.*?)</pre>", html, re.DOTALL))
    assert command == manifest["command"]
    (tmp_path / "again.yaml").write_text(experiment)
    again = load_experiment(str(tmp_path / "again.yaml"), ())
    assert again == restore_experiment(manifest["experiment"], "manifest")


def test_settings_are_all_there_and_ports_alike_once(page: Page) -> None:
    for row in (
        ["kernel", "6.1.0-example"],
        ["python", "3.11.2"],
        ["net.ipv4.tcp_recovery", "5"],
        ["dataplane", "ovs-user"],
        ["shaping.h1-eth0 ... h12-eth0 (12 alike): rate_bps", "20000000"],
    ):
        assert row in page.rows


def test_typical_run_is_the_median_of_those_that_can_be_trusted(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "r", ["ring"], ["ecmp", "spray"], (1, 2, 3, 4), failed=["002-ecmp-s2"])
    chosen = typical(folder.runs()).set_index("scheme").seed
    assert chosen["ecmp"] == 3, "of 1, 3 and 4"
    assert chosen["spray"] == 3, "the slower of the two in the middle"


# Folders of other kinds


def test_no_finished_run_is_said(tmp_path: Path) -> None:
    folder = ResultsFolder.create(tmp_path / "empty", manifest_of())
    page = page_of(folder)
    assert sentence(verdict_on(folder)) in page.text
    assert "12 of 12 runs have no result" in page.text and f"spraylab run --resume {folder.path}" in page.text
    assert "figure" not in page.tags and "leaves" in page.text


def test_manifest_with_hardly_anything_is_enough(tmp_path: Path) -> None:
    page = page_of(results_folder(tmp_path / "r", ["ring"], ["ecmp"], (1,), manifest={"experiment": {"name": "bare"}}))
    assert "bare" in page.text and "figure" in page.tags


def test_runs_still_missing_are_counted(tmp_path: Path) -> None:
    page = page_of(results_folder(tmp_path / "r", ["permutation"], ["ecmp"], (1,)))
    assert "11 of 12 runs have no result" in page.text


def test_one_scheme_alone(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "r", ["ring"], ["subflow-4"], (1,))
    page = page_of(folder)
    assert sentence(verdict_on(folder)) in page.text and page.tags.count("figure") == len(DRAWN)
    assert "cut into 4 connections" in page.text


def test_what_compares_nothing_asks_nothing(tmp_path: Path) -> None:
    manifest = manifest_of(experiment={**manifest_of()["experiment"], "schemes": ["ecmp", "spray"]})
    page = page_of(results_folder(tmp_path / "r", ["ring"], ["ecmp", "spray"], manifest=manifest))
    assert "need packet spraying?" not in page.text and "lack ethereal" in page.text


def test_nothing_that_can_be_trusted(tmp_path: Path) -> None:
    failed = ["001-ecmp-s1", "002-spray-s1"]
    page = page_of(results_folder(tmp_path / "r", ["ring"], ["ecmp", "spray"], (1,), failed=failed))
    assert "No verdict" in page.text and "0 of 2 runs can be trusted" in page.text
    assert page.text.count(REASON) == 1 and all(run_id in page.text for run_id in failed)
    assert "svg" in page.tags


def test_what_is_left_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_FIGURES", 2)
    traffics = [f"ring-{number}" for number in range(5)]
    page = page_of(results_folder(tmp_path / "r", traffics, ["ethereal"], (1,)))
    assert page.text.count("The first 2 figures are drawn, 3 more are not") == len(DRAWN)
    assert page.tags.count("figure") == 2 * len(DRAWN)
    assert [row[0].split()[0] for row in page.rows if len(row) == 1 and "bound" in row[0]] == traffics, "in the table"


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    odd = '<script>alert("1")</script>&amp;'
    experiment = {**manifest_of()["experiment"], "name": odd}
    manifest = manifest_of(experiment=experiment, command=odd)
    page = page_of(results_folder(tmp_path / "r", [odd], ["ecmp"], (1,), manifest=manifest))
    assert "script" not in page.tags
    assert page.text.count(odd) >= 3


def test_threshold_is_the_folders_own_unless_another_is_given(tmp_path: Path) -> None:
    """Of 1.045 and 1.025 the ratio is 1.02."""
    folder = results_folder(tmp_path / "r", manifest=manifest_of(within=0.01))
    assert "at most 1 % longer" in page_of(folder).text
    overall = json.loads((folder.path / "verdict.json").read_text())["overall"]
    assert overall["outcome"] == Outcome.SPRAYING
    write_report([folder], folder.path / "page.html", within=0.1)
    assert "at most 10 % longer" in Page((folder.path / "page.html").read_text()).text
    overall = json.loads((folder.path / "verdict.json").read_text())["overall"]
    assert overall["outcome"] == Outcome.SPLITTING


# Two folders


@pytest.fixture(scope="module")
def two(folder: ResultsFolder, tmp_path_factory: pytest.TempPathFactory) -> list[ResultsFolder]:
    changed = manifest_of(sysctls={"net.ipv4.tcp_recovery": "1"}, started="2031-01-01T00:00:00+0000")
    other = tmp_path_factory.mktemp("two") / "other"
    return [folder, results_folder(other, ["alltoall", "broadcast"], ["spray", "subflow-4"], manifest=changed)]


def test_two_side_by_side(two: list[ResultsFolder], tmp_path: Path) -> None:
    write_report(two, tmp_path / "both.html")
    page = Page((tmp_path / "both.html").read_text())
    for folder in two:
        assert sentence(verdict_on(folder)) in page.text and folder.path.name in page.text
    assert next(row for row in page.rows if "spray" in row)[1] == "A"
    differences = page.rows[page.rows.index(["setting", "A", "B"]) + 1 :]
    assert differences[: differences.index([])] == [["sysctls.net.ipv4.tcp_recovery", "5", "1"]]
    assert "other has no such runs" in page.text and "example has no such runs" in page.text
    assert sorted(tmp_path.iterdir()) == [tmp_path / "both.html"] and not (two[1].path / "figures").exists()


def test_a_page_of_its_own_name_for_two(two: list[ResultsFolder]) -> None:
    assert report_path(two) == Path("example-vs-other.html")


def test_a_folder_beside_itself(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "r", ["ring"], ["ecmp"], (1,))
    write_report([folder, folder], tmp_path / "twice.html")
    html = (tmp_path / "twice.html").read_text()
    assert "What differs" not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_a_difference_is_of_a_schemes_times_and_only_of_what_can_be_trusted(tmp_path: Path) -> None:
    folders = [results_folder(tmp_path / name, ["ring"], list(SCHEMES), (1,)) for name in ("as-it-was", "slower")]
    runs = folders[1].runs()
    slower = {"ecmp": 1.1, "spray": 0.95, "ethereal": 2.0}
    runs = runs.assign(cct_s=[row.cct_s * slower[row.scheme] for row in runs.itertuples()])
    runs.loc[runs.scheme == "ethereal", ["fidelity", "fidelity_reasons"]] = ["fail", REASON]
    runs.to_csv(folders[1].path / "runs.csv", index=False)
    write_report([*folders, folders[0]], tmp_path / "three.html")
    page = Page((tmp_path / "three.html").read_text())
    lines = [row for row in page.rows if row and row[0] in SCHEMES]
    assert [row[1] for row in lines] == ["A", "B", "C"] * 3
    assert [row[2] for row in lines] == ["", "+10.0 %", "+0.0 %", "", "-5.0 %", "+0.0 %", "", "", "+0.0 %"]


@pytest.mark.parametrize("count", [0, 9])
def test_no_other_number_of_folders(folder: ResultsFolder, tmp_path: Path, count: int) -> None:
    with pytest.raises(ResultsError, match=f"shows 1 to 8 results folders side by side: {count} were named"):
        write_report([folder] * count, tmp_path / "report.html")


# What goes wrong


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    folder = ResultsFolder.create(tmp_path / "empty", manifest_of())
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "report.html"):
        with pytest.raises(ResultsError, match=f"cannot write the report to {out}: ") as error:
            write_report([folder], out)
        assert "Errno" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for the user who called sudo")
def test_files_belong_to_the_user_who_called_sudo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65534")
    folder = results_folder(home / "r", ["ring"], ["ecmp"], (1,))
    write_report([folder], report_path([folder]))
    for written in (folder.path / "report.html", folder.path / "verdict.json", *(folder.path / "figures").iterdir()):
        assert (written.stat().st_uid, written.stat().st_gid) == (65534, 65534)
