"""The notebooks as HTML, the report and the chair, for who cannot see them, enlarges them, or goes by headings: axe, and checks of ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from figures._save import DRAWN
from mmedlite import report, room
from mmedlite.run_folder import RunFolder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("0*.ipynb"))
PAGES = [*(book.stem for book in NOTEBOOKS), "report", "chair", "room"]
# rule -> where the words are nbconvert's own, not ours
NOT_OURS = {"color-contrast": ".jp-InputPrompt, .jp-OutputPrompt, .highlight"}  # its grey In [1]: and the colours of its highlighted code
WIDE = """() => [document.documentElement, ...document.querySelectorAll(".jp-RenderedMarkdown")]
  .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.innerText.slice(0, 80))"""
LEVELS = "() => [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((h) => Number(h.tagName[1]))"
SILENT = "() => [...document.images].filter((i) => i.checkVisibility() && !i.alt.trim()).map((i) => i.outerHTML.slice(0, 80))"


def written(name: str, folder: Path) -> Path:
    """A page as a file."""
    if name == "chair":
        return DRAWN / "chair.html"
    if name == "room":
        gains = [{"mean": m, "low": m - 0.02, "high": m + 0.02} for m in (-0.01, 0.02, 0.05, 0.06, 0.07)]
        shares = [{"config_sha256": "", "panels": {"diverse": {"gain": gain, "n": 3200}}} for gain in gains]
        text = room.page(shares, ["share-1.json: no share"])
        (file := folder / "room.html").write_text(text, encoding="utf-8")
        return file
    if name == "report":
        for part in ("run.json", "results.json"):
            shutil.copy(RunFolder.reference / part, folder / part)
        file = report.write_report(folder, ["rows.parquet: changed"])
        assert file
        return file
    from nbconvert import HTMLExporter

    text, _ = HTMLExporter().from_filename(str(next(book for book in NOTEBOOKS if book.stem == name)))
    (file := folder / f"{name}.html").write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def tab(chromium: Browser) -> Iterator[Page]:
    """A page without network."""
    context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module", params=PAGES)
def seen(request: pytest.FixtureRequest, tab: Page, screenshots: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Each page in turn, all that is folded laid open."""
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.goto(written(request.param, tmp_path_factory.mktemp("pages")).as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    yield tab
    tab.screenshot(path=screenshots / f"access_{request.param}.png")


def violations(page: Page) -> list[str]:
    """What axe holds to be serious or critical, where the words are ours."""
    from axe_playwright_python.sync_playwright import Axe

    found: list[dict[str, Any]] = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    ours = []
    for violation in found:
        for node in violation["nodes"]:
            place = page.locator(node["target"][-1]).first
            if not place.evaluate("(e, skip) => skip && e.closest(skip) !== null", NOT_OURS.get(violation["id"], "")):
                ours.append(f"{violation['id']}: {node['html'][:100]}")
    return ours


def jumps(levels: list[int]) -> list[tuple[int, int]]:
    """Headings that lie more than one level below the one before; the first is to be the only h1."""
    return [(a, b) for a, b in zip([0, *levels], levels, strict=False) if b > a + 1 or (b == 1 and a)]


def test_axe_finds_nothing_serious(seen: Page) -> None:
    assert violations(seen) == []


def test_headings_in_order_and_every_image_described(seen: Page) -> None:
    assert (levels := seen.evaluate(LEVELS)) and jumps(levels) == []
    assert seen.evaluate(SILENT) == []


def test_nothing_to_scroll_sideways_at_200_percent(seen: Page) -> None:
    seen.set_viewport_size({"width": 640, "height": 450})  # what 1280 x 900 holds, enlarged twice
    assert seen.evaluate(WIDE) == []


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ("<img src='data:,' width=9 height=9>", "image-alt"),
        ("<p style='color:#bbb'>pale</p>", "color-contrast"),
        ("<input type=range>", "label"),
        ("<iframe srcdoc='<p>x'></iframe>", "frame-title"),
    ],
)
def test_axe_finds_what_is_wrong(tab: Page, body: str, rule: str) -> None:
    tab.set_content(f"<html lang=en><title>x</title><main><h1>x</h1>{body}</main>")
    assert [line.partition(":")[0] for line in violations(tab)] == [rule]


def test_our_checks_find_what_is_wrong(tab: Page) -> None:
    tab.set_content("<h1>x</h1><img src='data:,' width=9 height=9 alt=' '><h3>y</h3><h1>z</h1><div style='width:99em'>wide</div>")
    tab.set_viewport_size({"width": 640, "height": 450})
    assert jumps(tab.evaluate(LEVELS)) == [(1, 3), (3, 1)] and len(tab.evaluate(SILENT)) == 1 and tab.evaluate(WIDE)
