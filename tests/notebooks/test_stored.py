"""The seven notebooks as committed: executed, small, short, and with enough printed lines for nbval to compare."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from mmedlite.chair import ASKED
from mmedlite.demo import NOTEBOOKS

ROOT = Path(__file__).resolve().parents[2]
UNCOMPARED = {"NBVAL_SKIP", "NBVAL_IGNORE_OUTPUT", "PYTEST_VALIDATE_IGNORE_OUTPUT"}
KERNEL = {"name": "python3", "display_name": "Python 3"}
TAGS = {marker.lower().replace("_", "-") for marker in UNCOMPARED}


def code_cells(book: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def code_lines(book: NotebookNode) -> int:
    """Lines of code that tell the story: blank lines, lines of comment and exercises are free."""
    lines = [line.strip() for cell in code_cells(book) if "nbgrader" not in cell.metadata for line in cell.source.splitlines()]
    return sum(bool(line) and not line.startswith("#") for line in lines)


def printed(cell: NotebookNode) -> str:
    """What a code cell wrote to stdout."""
    return "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == "stdout")


def is_compared(cell: NotebookNode) -> bool:
    """Does nbval compare a printed line of this cell?"""
    comments = {line.strip().lstrip("# ") for line in cell.source.splitlines() if line.strip().startswith("#")}
    marked = UNCOMPARED & comments
    tagged = TAGS & set(cell.metadata.get("tags", []))
    return bool(cell.execution_count and not marked and not tagged and printed(cell).strip())


def faults(book: NotebookNode, size: int) -> list[str]:
    """What a committed notebook may not be; size in bytes."""
    cells = code_cells(book)
    compared = sum(map(is_compared, cells))
    told = sum("nbgrader" not in cell.metadata for cell in cells)  # an exercise is not part of the story
    found = {
        f"{told} code cells, not 12 to 20": not 12 <= told <= 20,
        f"{code_lines(book)} lines of code, more than 150": code_lines(book) > 150,
        f"{size} bytes, more than 400 KB": size > 400_000,
        f"{compared} cells that nbval compares, fewer than 5": compared < 5,
        "cells without an execution count": not all(cell.execution_count for cell in cells),
        "cells not executed in order": [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)),
        "a check that fails": any(line.startswith("FAIL ") for cell in cells for line in printed(cell).splitlines()),
        "an error output": any(out.output_type == "error" for cell in cells for out in cell.outputs),
        "widget state": "widgets" in book.metadata,
        "papermill's marks of one machine": "papermill" in book.metadata,
        "no kernel named python3": book.metadata.get("kernelspec", {}).get("name") != "python3",
    }
    return [fault for fault, there in found.items() if there]


def test_the_seven_are_there() -> None:
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == list(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_notebook(name: str) -> None:
    path = ROOT / "notebooks" / f"{name}.ipynb"
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert faults(book, path.stat().st_size) == []


def sound() -> NotebookNode:
    """The smallest notebook without a fault."""
    cells = []
    for i in range(12):
        out = nbformat.v4.new_output("stream", name="stdout", text="PASS\n") if i < 5 else None
        cells.append(nbformat.v4.new_code_cell("print('PASS')", execution_count=i + 1, outputs=[out] if out else []))
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def last(book: NotebookNode, **changes: object) -> None:
    book.cells[4].update(changes)


MUTANTS: list[tuple[str, Callable[[NotebookNode], object]]] = [
    ("11 code cells, not 12 to 20", lambda book: book.cells.pop()),
    ("191 lines of code, more than 150", lambda book: last(book, source="x = 1\n" * 180)),
    ("4 cells that nbval compares, fewer than 5", lambda book: last(book, outputs=[])),
    ("4 cells that nbval compares, fewer than 5", lambda book: last(book, source="# NBVAL_IGNORE_OUTPUT")),
    ("4 cells that nbval compares, fewer than 5", lambda book: book.cells[4].metadata.update(tags=["nbval-skip"])),
    ("4 cells that nbval compares, fewer than 5", lambda book: book.cells[4].outputs[0].update(name="stderr")),
    ("cells without an execution count", lambda book: last(book, execution_count=None)),
    ("cells not executed in order", lambda book: last(book, execution_count=50)),
    ("a check that fails", lambda book: book.cells[4].outputs[0].update(text="PASS one holds\nFAIL other does not hold\n")),
    ("an error output", lambda book: book.cells[9].outputs.append(nbformat.v4.new_output("error"))),
    ("widget state", lambda book: book.metadata.update(widgets={})),
    ("papermill's marks of one machine", lambda book: book.metadata.update(papermill={})),
    ("no kernel named python3", lambda book: book.metadata.pop("kernelspec")),
]


def test_sound_notebook_has_no_fault() -> None:
    assert faults(sound(), 400_000) == []
    assert faults(sound(), 400_001) == ["400001 bytes, more than 400 KB"]


@pytest.mark.parametrize(("fault", "spoil"), MUTANTS)
def test_each_fault_is_named(fault: str, spoil: Callable[[NotebookNode], object]) -> None:
    book = sound()
    spoil(book)
    assert fault in faults(book, 1000)


def test_the_stored_chair_is_asked_where_the_kit_asks_now() -> None:
    book = nbformat.read(ROOT / "notebooks" / "04_attending_entropy.ipynb", 4)
    pages = [out.data["text/html"] for cell in code_cells(book) for out in cell.outputs if "text/html" in out.get("data", {})]
    (asked,) = re.findall(r'"contrasts":\[([\d,]+)\]', "".join(pages))
    assert asked == ",".join(map(str, ASKED)), "run the notebook again"
