"""Student's and instructor's copies of the notebooks, both from the one source: ``make student`` writes ``notebooks/{student,instructor}``.

nbgrader's own preprocessors do it (through nbconvert): solutions between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` become stubs, the
cells that check are locked, outputs are cleared. The instructor's copy keeps the solutions and says beneath each what its check knows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from itertools import count
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from mmedlite.exercises import EXERCISES
from mmedlite.profiles import ROOT

KINDS = ("student", "instructor")
FOLDER = ROOT / "notebooks"
MADE = "mmedlite_sources_sha256"  # of a copy as it was written, so that work in it is seen


def exercise_of(cell: NotebookNode) -> str | None:
    """Name of the exercise that a cell checks, by nbgrader's mark; None for any other cell."""
    mark = cell.metadata.get("nbgrader", {})
    return mark["grade_id"].removeprefix("check-") if mark.get("grade") else None


def copy(source: NotebookNode, kind: str) -> NotebookNode:
    """One copy of a notebook; kind: one of ``KINDS``. Its links lead one folder further up."""
    from nbgrader.preprocessors import ClearOutput, ClearSolutions, LockCells  # of the extra "dev"

    steps = [ClearOutput(), LockCells(), *([ClearSolutions(enforce_metadata=False)] if kind == "student" else [])]
    book = source
    for step in steps:
        book, _ = step.preprocess(book, {})
    cells = []
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\(\.\./", "](../../", cell.source)
        cells.append(cell)
        if kind == "instructor" and (name := exercise_of(cell)):
            cells.append(nbformat.v4.new_markdown_cell(_note(name), id=f"note-{name}"))
    book.cells = cells
    book.metadata[MADE] = sources_sha256(book)
    return book


def _note(name: str) -> str:
    """What an instructor should know of an exercise."""
    task = EXERCISES[name]
    known = "\n".join(f"* {words}" for words in task.mistakes)
    return (
        f"**For the instructor.** {task.level}, about {task.minutes} minutes. The check knows these mistakes and says so to the learner; it "
        f"refuses {len(task.mutants)} other wrong functions with the first input that tells them apart.\n\n{known}"
    )


def written(name: str, kind: str) -> str:
    """The text of a copy as it is stored."""
    book = copy(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4), kind)
    return str(nbformat.writes(book, version=4)) + "\n"


def sources_sha256(book: NotebookNode) -> str:
    """Hash of what stands in the cells, without outputs."""
    return hashlib.sha256(json.dumps([cell.source for cell in book.cells]).encode()).hexdigest()


def is_worked_in(file: Path) -> bool:
    """Does a copy hold somebody's work: a cell that ran, or another text than the copy was written with?"""
    try:
        book = nbformat.read(file, as_version=4)
    except Exception:  # no notebook any more: whatever it is, it is not ours to delete
        return True
    ran = any(cell.get("execution_count") or cell.get("outputs") for cell in book.cells)
    return ran or book.metadata.get(MADE) != sources_sha256(book)


def put(file: Path, text: str) -> None:
    """Write a copy; what somebody did in the one that was there is kept beside it."""
    file.parent.mkdir(exist_ok=True)
    if file.is_file() and file.read_bytes() != text.encode() and is_worked_in(file):
        kept = next(f for i in count(1) if not (f := file.with_suffix(f".yours-{i}.ipynb")).exists())
        file.rename(kept)
        print(f"What was done in {file.parent.name}/{file.name} is kept as {kept.name}.")
    file.write_bytes(text.encode())


def main(argv: list[str] | None = None) -> int:
    """Write all copies, and keep what was done in old ones; with --check write none and name those that differ from their source, 1 if any."""
    parser = argparse.ArgumentParser(prog="python -m mmedlite.copies", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; name the copies that are out of date")
    check, stale = parser.parse_args(argv).check, []
    for kind in KINDS:
        for source in sorted(FOLDER.glob("0*.ipynb")):
            file, text = FOLDER / kind / source.name, written(source.stem, kind)
            if check and (not file.is_file() or file.read_text(encoding="utf-8") != text):
                stale.append(f"{kind}/{source.name}")
            elif not check:
                put(file, text)
    if stale:
        print(f"Out of date: {', '.join(stale)}. Run `make student`.")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
