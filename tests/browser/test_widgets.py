"""Every widget of the notebooks in a real JupyterLab: each dial is moved, from the keyboard, and what stands below changes.

The notebooks are not run whole, they train for minutes: ``excerpt`` takes the cell of a widget and what it needs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from tests.browser.conftest import Lab
from tests.browser.excerpt import excerpt

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
DIAL, CHOICE, BOX, RADIO = "[role=slider], input[type=range]", "select", "input[type=checkbox]", "input[type=radio]"
# a Dropdown in a notebook would fail here: JupyterLab takes its arrow keys
KEYS = {DIAL: ("End", "Home", "ArrowRight"), CHOICE: ("End", "Home", "ArrowDown"), BOX: ("Space",), RADIO: ("ArrowRight",)}
# notebook -> call that makes the widget -> how many controls of each kind
WIDGETS = {
    "00_start_here": {"widgets.fade_explorer(": {DIAL: 1}},
    "01_specialist_responses": {"inspect_opinions([": {DIAL: 1}},
    "02_triage_grpo": {"widgets.advantage_explorer(": {DIAL: 2, BOX: 1}, "live.replay(": {DIAL: 2}},
    "03_curriculum_buckets": {"widgets.bucket_explorer(": {DIAL: 3}},
    "04_attending_entropy": {
        "toy.order_explorer(": {DIAL: 3}, "case_browser.browse(": {DIAL: 1}, "token_entropy.entropy_explorer(": {DIAL: 2},
        "chair.sit(": {DIAL: 2, BOX: 1, RADIO: 3},
    },
    "05_evaluation": {"widgets.trust_explorer(": {DIAL: 1}},
}  # fmt: skip
VALUE = """e => ({checkbox: () => e.checked, radio: () => document.querySelector(`[name=${e.name}]:checked`).value}[e.type]
  ?? (() => e.ariaValueNow ?? e.value))()"""
PICTURE = """e => [e.textContent, ...[...e.querySelectorAll("img")].map((i) => i.src), ...[...e.querySelectorAll("canvas")]
  .map((c) => c.toDataURL()), ...[...e.querySelectorAll("svg")].map((s) => s.outerHTML)].join()"""
FROZEN = """import ipywidgets

interact = ipywidgets.interact


def frozen(callback, **dials):
    start = {name: dial.value for name, dial in dials.items()}
    return interact(lambda **values: callback(**start), **dials)


ipywidgets.interact = frozen"""
ERROR = "[data-mime-type='application/vnd.jupyter.error']"


@contextmanager
def opened(browser: Browser, lab: Lab, name: str, book: nbformat.NotebookNode) -> Iterator[Page]:
    """The notebook in JupyterLab, all its cells run; fails on an error of a cell, of the page, or a call to another machine."""
    nbformat.write(book, lab.folder / f"{name}.ipynb")
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((lab.url, "data:", "blob:")) else wrong.append(request.url))
    try:
        page.goto(f"{lab.url}/doc/tree/{name}.ipynb?token={lab.token}")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'", timeout=60_000)
        page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
        assert page.locator(ERROR).all_text_contents() == []
        yield page
        assert wrong == []
    finally:
        page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")
        page.close()


def settled(page: Page, below: Locator, other_than: str = "", seconds: float = 30) -> str:
    """What stands in ``below`` once it differs from ``other_than``, and nothing is being drawn; else what still stands there."""
    end, before = time.monotonic() + seconds, None
    while True:
        now = str(below.evaluate(PICTURE))
        idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").count()
        if (idle and now == before and now != other_than) or time.monotonic() > end:
            return now
        before = now
        page.wait_for_timeout(150)


def move_all(page: Page, widget: Locator, below: Locator, seconds: float = 30) -> Counter[str]:
    """Move every control by its keys; how many of each kind there were. Fails where one moves and what is below does not change."""
    found: Counter[str] = Counter()
    for kind, keys in KEYS.items():
        controls = widget.locator(kind).all()
        if kind == RADIO:  # the arrow keys leave the one of a group that is set
            controls = [control for control in controls if control.is_checked()]
        if kind == CHOICE:  # the chair of a run has one phantom and one panel
            controls = [control for control in controls if control.locator("option").count() > 1]
        for control in controls:
            found[kind] += 1
            for key in keys:
                value, seen = control.evaluate(VALUE), settled(page, below)
                control.press(key)
                if key == "End" and control.evaluate(VALUE) == value:
                    continue  # it stood at its end
                assert control.evaluate(VALUE) != value, f"{key} does not move control {found.total()} from {value}"
                assert settled(page, below, seen, seconds) != seen, f"{key} on control {found.total()}: nothing was drawn anew"
    return found


@pytest.mark.parametrize("name", WIDGETS)
def test_each_dial_draws_anew(chromium: Browser, lab: Lab, screenshots: Path, name: str) -> None:
    book = excerpt(NOTEBOOKS / f"{name}.ipynb", list(WIDGETS[name]))
    with opened(chromium, lab, name, book) as page:
        for i, (call, controls) in enumerate(WIDGETS[name].items(), 1):
            cell = page.locator(".jp-CodeCell").nth(i)
            try:
                cell.locator(".widget-output img, .widget-output table, iframe").first.wait_for()
                if cell.locator("iframe").count():
                    widget = below = cell.frame_locator("iframe").locator("body")
                    widget.locator("#bars[aria-label]").wait_for()  # drawn last
                else:
                    widget, below = cell.locator(".widget-interact"), cell.locator(".widget-output")
                assert move_all(page, widget, below) == controls, call
            finally:
                cell.screenshot(path=screenshots / f"{name}_{i}.png")


def test_every_widget_is_moved() -> None:
    """A cell that shows a widget or a page to be moved is named above; names that are not there fail in ``excerpt``."""
    marks = ("application/vnd.jupyter.widget-view+json", "<iframe")
    for file in sorted(NOTEBOOKS.glob("0*.ipynb")):
        cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
        turned = [cell.source for cell in cells if any(mark in str(cell.outputs) for mark in marks)]
        calls = WIDGETS.get(file.stem, {})
        assert [source for source in turned if not any(call in source for call in calls)] == [], f"{file.name}: not moved by any test"
        assert len(turned) == len(calls)


def test_a_dial_that_draws_nothing_anew_is_found(chromium: Browser, lab: Lab) -> None:
    call = "widgets.bucket_explorer("
    book = excerpt(NOTEBOOKS / "03_curriculum_buckets.ipynb", [call])
    book.cells[0].source += f"\n{FROZEN}"
    with opened(chromium, lab, "frozen", book) as page:
        page.locator(".widget-output img").wait_for()
        with pytest.raises(AssertionError, match="nothing was drawn anew"):
            move_all(page, page.locator(".widget-interact"), page.locator(".widget-output"), seconds=5)


def test_a_notebook_that_changed_is_told() -> None:
    with pytest.raises(ValueError, match="has 0 code cells with 'widgets.gone"):
        excerpt(NOTEBOOKS / "03_curriculum_buckets.ipynb", ["widgets.gone("])
