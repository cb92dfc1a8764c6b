"""The report is one page, read from stored numbers, that holds its own words to their kind."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmedlite import cli, report
from mmedlite.run_folder import RunFolder

STORED = RunFolder.reference


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    for name in ("run.json", "results.json"):
        shutil.copy(STORED / name, folder / name)
    file = report.write_report(folder, ["rows.parquet: <b>changed</b>"])
    assert file
    return file.read_text()


class Balanced(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_closed_to_elsewhere(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    assert not parser.open and page.startswith("<!doctype html>")
    assert not re.search(r"https?://|<script|<link|src=", page) and "&lt;b&gt;changed" in page and "1 problems" in page
    assert page.count("<caption>") == page.count("<table>") and not re.search(r"\bnan\b|None", page)


def test_it_says_that_the_evidence_behind_its_ledger_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may verify while the stored tables, from which the ledger is filled, do not."""
    shutil.copy(STORED / "run.json", tmp_path), shutil.copy(STORED / "results.json", tmp_path)
    told = "rivals.parquet: changed since the manifest was written"
    for changed, name in (([], "changed_files"), ([told], "changed_files"), ([told], "broken_seal")):
        for other in ("changed_files", "broken_seal"):
            monkeypatch.setattr(report, other, lambda folder, found=changed if other == name else []: list(found))
        assert (file := report.write_report(tmp_path, []))
        page = file.read_text()
        assert f"{len(changed)} problems.</p>" in page.split("Stored evidence")[1] and (told in page) == bool(changed)


def test_its_numbers_are_the_runs(page: str) -> None:
    results = json.loads((STORED / "results.json").read_text())
    for numbers in results["attending"].values():
        assert f"{numbers['trained']:.3f} [{numbers['trained_ci'][0]:.3f}, {numbers['trained_ci'][1]:.3f}]" in page
    assert results["code"] in page and "holds</td>" not in page


def test_sections_in_order(page: str) -> None:
    wanted = ["Reproducibility summary", "Fifteen minutes", "Methodology", "Results", "easy", "difficult", "authors", "Compute"]
    heads = re.findall(r"<h[12]>(.*?)</h", page)
    assert len(heads) == len(wanted) and all(w in h for w, h in zip(wanted, heads, strict=True))


def test_a_profile_of_ones_own_has_a_report_too(tmp_path: Path) -> None:
    for name in ("run.json", "results.json"):
        shutil.copy(STORED / name, tmp_path / name)
    facts = json.loads((tmp_path / "run.json").read_text()) | {"profile": "not one of the kit's"}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    file = report.write_report(tmp_path, [])
    assert file and "Settings of the recommended recipe" not in file.read_text()


@pytest.mark.parametrize("results", [None, "{", "{}"])
def test_a_run_without_results_is_verified_without_a_report(
    results: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong has been told; a traceback would hide it."""
    shutil.copy(STORED / "run.json", tmp_path / "run.json")
    if results is not None:
        (tmp_path / "results.json").write_text(results)
    monkeypatch.setattr("mmedlite.verify.verify", lambda folder, table: ["rows: damaged"])
    assert cli.main(["verify", str(tmp_path)]) == 1 and "rows: damaged" in capsys.readouterr().out
    assert not (tmp_path / "report.html").exists()


def test_verify_writes_the_report_and_retrain_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run.json", "results.json"):
        shutil.copy(STORED / name, tmp_path / name)
    monkeypatch.setattr("mmedlite.verify.verify", lambda folder, table: [])
    asked: list[str] = []
    monkeypatch.setattr(cli, "run", lambda args: asked.append(args.profile) or 0)
    assert cli.main(["verify", str(tmp_path)]) == 0 and not asked
    assert "0 problems" in (page := (tmp_path / "report.html").read_text())
    assert page.count("<a href=") == 1 and (tmp_path / "chair.html").is_file() and 'href="chair.html"' in page.split("<h1>")[0]
    assert cli.main(["verify", str(tmp_path), "--retrain"]) == 0 and asked == ["tiny"]
