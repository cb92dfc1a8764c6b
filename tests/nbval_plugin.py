"""What nbval compares, and proof that it did: `pytest -p tests.nbval_plugin --nbval notebooks/0*.ipynb`.

Compared are printed lines (stdout) and plain values. Of pictures, tables and other HTML only that they are there: their
content changes with library versions and clocks. stderr, where progress goes, is not compared. Each cell whose stored
stdout was compared says so in the JUnit report (property `compared`).
"""

from __future__ import annotations

from typing import Any

import pytest
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, IPyNbFile

from tests.offline.no_network import block_everywhere

WIDGET = "application/vnd.jupyter.widget-view+json"
VERDICTS = ("PASS ", "WATCH ", "FAIL ")
RICH = (WIDGET, "image/png", "image/jpeg", "image/svg+xml", "application/javascript", "text/html")
_compare = IPyNbCell.compare_outputs


def _is_stdout(out: NotebookNode) -> bool:
    return bool(out.output_type == "stream" and out.name == "stdout")


def _kind(out: NotebookNode) -> str | None:
    return next((kind for kind in RICH if kind in out.get("data", {})), None)


def _comparable(outputs: list[NotebookNode], lines: set[str] | None) -> list[NotebookNode]:
    """Streams and values as they are, then one mark for each kind of rich output.

    ``lines`` is given where the cell shows a widget. What its callback prints and draws goes into the widget when the
    notebook is stored, but into the cell under nbval: only the stored lines and verdicts, and no pictures, can be compared there.
    """
    kept, kinds = [], set()
    for out in outputs:
        kind = _kind(out)
        if kind:
            kinds.add(kind)
        elif lines is not None and _is_stdout(out):
            text = "".join(line for line in out.text.splitlines(keepends=True) if line in lines or line.startswith(VERDICTS))
            kept += [NotebookNode(out, text=text)] if text else []
        else:
            kept.append(out)
    if lines is not None:
        kinds &= {WIDGET}
    return kept + [NotebookNode(output_type="display_data", data={"text/plain": f"<{kind}>"}) for kind in sorted(kinds)]


def _compare_and_note(self: IPyNbCell, test: list[NotebookNode], ref: list[NotebookNode], skip_compare: Any = None) -> bool:
    stored = "".join(out.text for out in ref if _is_stdout(out))
    shows_widget = any(_kind(out) == WIDGET for out in [*test, *ref])
    lines = set(stored.splitlines(keepends=True)) if shows_widget else None
    same: bool = _compare(self, _comparable(test, lines), _comparable(ref, lines), skip_compare)
    if same and stored.strip():
        self.user_properties.append(("compared", "stdout"))
    return same


def pytest_configure(config: pytest.Config) -> None:
    """Kernels inherit the closed network; comparisons follow the rules above."""
    block_everywhere()
    IPyNbCell.compare_outputs = _compare_and_note


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Leave stderr out."""
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += ("stderr",)
