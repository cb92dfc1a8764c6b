"""The students' and the instructor's copies: made from the source, unsolved or solved, gradable with nbgrader."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from mmedlite import copies
from mmedlite.demo import NOTEBOOKS
from mmedlite.exercises import EXERCISES
from mmedlite.exercises.exercise import LEVELS

pytest.importorskip("nbgrader", reason="nbgrader is of the extra 'dev'")
FOLDER = Path(__file__).resolve().parents[2] / "notebooks"


def read(name: str, kind: str = "") -> NotebookNode:
    return nbformat.read(FOLDER / kind / f"{name}.ipynb", as_version=4)


def marked(book: NotebookNode, what: str) -> dict[str, NotebookNode]:
    """grade_id -> cell, of the cells that nbgrader takes for "solution" or "grade"."""
    return {cell.metadata.nbgrader.grade_id: cell for cell in book.cells if cell.metadata.get("nbgrader", {}).get(what)}


def test_copies_are_those_of_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert copies.main(["--check"]) == 0, capsys.readouterr().out


def test_a_copy_that_differs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "00_start_here.ipynb").write_bytes((FOLDER / "00_start_here.ipynb").read_bytes())
    monkeypatch.setattr(copies, "FOLDER", tmp_path)
    assert copies.main([]) == copies.main(["--check"]) == 0
    file = tmp_path / "student" / "00_start_here.ipynb"
    file.write_text(file.read_text(encoding="utf-8").replace("Exercise", "exercise"), encoding="utf-8")
    assert copies.main(["--check"]) == 1
    assert capsys.readouterr().out == "Out of date: student/00_start_here.ipynb. Run `make student`.\n"


def solve(book: NotebookNode) -> None:
    next(cell for cell in book.cells if cell.metadata.get("nbgrader", {}).get("solution")).source += "\n    return 1"


def note(book: NotebookNode) -> None:
    book.cells.append(nbformat.v4.new_markdown_cell("what I learned"))


def answer(book: NotebookNode) -> None:
    cell = next(cell for cell in book.cells if "my_answers = None" in cell.source)
    cell.source = cell.source.replace("None", '["A"] * 20')


def run(book: NotebookNode) -> None:
    next(cell for cell in book.cells if cell.cell_type == "code").execution_count = 1


@pytest.mark.parametrize("work", [solve, note, answer, run])
def test_a_students_work_is_kept(
    work: Callable[[NotebookNode], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writing the copies anew once erased it."""
    (tmp_path / "00_start_here.ipynb").write_bytes((FOLDER / "00_start_here.ipynb").read_bytes())
    monkeypatch.setattr(copies, "FOLDER", tmp_path)
    copies.main([])
    file, kept = (tmp_path / "student" / f"00_start_here{end}.ipynb" for end in ("", ".yours-1"))
    fresh, book = file.read_text(encoding="utf-8"), nbformat.read(file, as_version=4)
    work(book)
    nbformat.write(book, file)
    worked = file.read_text(encoding="utf-8")
    for _ in range(2):
        copies.main([])
        assert file.read_text(encoding="utf-8") == fresh and kept.read_text(encoding="utf-8") == worked
    file.write_bytes(b"cut \xff")
    copies.main([])
    assert (tmp_path / "student" / "00_start_here.yours-2.ipynb").read_bytes() == b"cut \xff"
    told = [f"What was done in student/00_start_here.ipynb is kept as 00_start_here.yours-{i}.ipynb." for i in (1, 2)]
    assert capsys.readouterr().out.splitlines() == told


def test_an_old_copy_that_nobody_touched_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source := tmp_path / "00_start_here.ipynb").write_bytes((FOLDER / "00_start_here.ipynb").read_bytes())
    monkeypatch.setattr(copies, "FOLDER", tmp_path)
    copies.main([])
    source.write_text(source.read_text(encoding="utf-8").replace("Where you are", "Where you stand"), encoding="utf-8")
    copies.main([])
    (file,) = (tmp_path / "student").iterdir()
    assert "Where you stand" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_two_to_four_exercises_marked_for_nbgrader(name: str) -> None:
    book = read(name)
    solutions, checks = marked(book, "solution"), marked(book, "grade")
    assert 2 <= len(solutions) <= 4
    assert [s.removeprefix("solution-") for s in solutions] == [c.removeprefix("check-") for c in checks]
    for grade_id, cell in checks.items():
        task = EXERCISES[grade_id.removeprefix("check-")]
        told = next(c.source for c in book.cells if c.id == f"exercise-{grade_id.removeprefix('check-')}")
        assert f"({task.level}, about {task.minutes} minutes)" in told.splitlines()[0]
        assert cell.metadata.nbgrader.points == LEVELS[task.level]
        assert f'grade("{grade_id.removeprefix("check-")}", ' in cell.source
    for cell in solutions.values():
        assert cell.source.count("### BEGIN SOLUTION") == cell.source.count("### END SOLUTION") == 1


def unused(book: NotebookNode) -> list[str]:
    """Functions of learners that are checked and then used by no cell that tells the story."""
    left: list[str] = []
    for cell in (cell for cell in book.cells if cell.cell_type == "code"):
        if "nbgrader" not in cell.metadata:
            left = [name for name in left if not re.search(rf"\b{name}\b", cell.source)]
        elif named := re.match(r"(?:.*\n)*(my_\w+) = grade\(", cell.source):
            left.append(named[1])
    return left


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_learner_wrote_goes_on(name: str) -> None:
    book = read(name)
    assert unused(book) == []
    graded = [cell for cell in book.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    book.cells = [cell for cell in book.cells if cell in graded]  # the story left out: each of them must be missed
    assert len(unused(book)) == len(graded)


def test_every_exercise_stands_in_one_notebook() -> None:
    found = [copies.exercise_of(cell) for name in NOTEBOOKS for cell in read(name).cells]
    assert sorted(filter(None, found)) == sorted(EXERCISES)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_students_see_stubs_and_instructors_solutions(name: str) -> None:
    student, instructor, source = (marked(read(name, kind), "solution") for kind in ("student", "instructor", ""))
    for grade_id, cell in source.items():
        before, solution = cell.source.split("### BEGIN SOLUTION")
        assert student[grade_id].source == before.rstrip(" ") + "    # YOUR CODE HERE\n    raise NotImplementedError()"
        assert solution.split("\n")[1] not in student[grade_id].source
        assert instructor[grade_id].source == cell.source
    for kind in copies.KINDS:
        assert not any(cell.get("outputs") for cell in read(name, kind).cells)
    notes = [cell.source for cell in read(name, "instructor").cells if cell.id.startswith("note-")]
    known = [words for g in source for words in EXERCISES[g.removeprefix("solution-")].mistakes]
    assert len(notes) == len(source) and all(any(f"* {words}" in note for note in notes) for words in known)


def test_links_of_a_copy_lead_one_folder_further_up() -> None:
    text = "".join(cell.source for cell in read("06_verify_results", "student").cells if cell.cell_type == "markdown")
    assert "](../../figures/drawn/gain_map.png)" in text and "](../figures" not in text


def mini(solution: str) -> NotebookNode:
    """A notebook of one exercise, its stub filled with ``solution``, with nbgrader's marks of the source."""
    book = read("02_triage_grpo", "student")
    cells = [c for c in book.cells if c.id in ("solution-format_reward", "check-format_reward", "solution-advantage", "check-advantage")]
    head = nbformat.v4.new_code_cell("import numpy as np")
    body = cells[2].source.split("    # YOUR CODE HERE")[0]
    cells[2].source = body + solution
    return nbformat.v4.new_notebook(cells=[head, *cells], metadata=book.metadata)


@pytest.mark.parametrize(
    ("solution", "points"),
    [("    return (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)", 2), ("    return rewards", 0)],
)
def test_nbgrader_grades(solution: str, points: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbgrader.preprocessors import Execute
    from nbgrader.utils import determine_grade

    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")  # as nbgrader's own commands do
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    graded, _ = Execute(kernel_name="python3").preprocess(mini(solution), {"metadata": {"path": str(tmp_path)}})
    grades = {cell.metadata.nbgrader.grade_id: determine_grade(cell) for cell in graded.cells if cell.metadata.get("nbgrader", {}).get("grade")}
    assert grades == {"check-format_reward": (0, 1), "check-advantage": (points, 2)}


def test_nbgrader_takes_the_seven_as_a_source(tmp_path: Path) -> None:
    (course := tmp_path / "source" / "kit").mkdir(parents=True)
    for name in NOTEBOOKS:
        (course / f"{name}.ipynb").write_bytes((FOLDER / f"{name}.ipynb").read_bytes())
    (tmp_path / "nbgrader_config.py").write_text('c = get_config()\nc.CourseDirectory.course_id = "kit"\n', encoding="utf-8")
    active = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # it calls alembic by name
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "kit"]
    done = subprocess.run(command, cwd=tmp_path, env=active, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in NOTEBOOKS:
        released = nbformat.read(tmp_path / "release" / "kit" / f"{name}.ipynb", as_version=4)
        stubs = [cell.source for cell in marked(released, "solution").values()]
        assert stubs == [cell.source for cell in marked(read(name, "student"), "solution").values()]
        assert stubs and all("raise NotImplementedError" in stub for stub in stubs)
