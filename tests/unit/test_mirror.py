"""The mirrored tables name rows that the paper prints and systems that are stored, and say what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from figures import mirror
from mmedlite.evidence import DATA
from mmedlite.paper_audit import load_tables


def test_every_row_of_the_paper_exists() -> None:
    printed = load_tables()["tables"]
    for key, (_, rows) in mirror.MIRROR.items():
        assert all(row is None or row in printed[key]["rows"] for row, *_ in rows), key


def test_every_system_is_stored() -> None:
    panels = json.loads((DATA / "accuracies.json").read_text())["panels"]
    wanted = {system for _, rows in mirror.MIRROR.values() for *_, system, _ in rows}
    assert all(wanted <= set(systems) for systems in panels.values()), "run `python -m figures.tables`, then `make figures`"


def test_page_is_the_one_of_the_stored_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = mirror.OUT.read_text()
    monkeypatch.setattr(mirror, "OUT", tmp_path / "page.md")
    mirror.main()
    assert (tmp_path / "page.md").read_text() == stored and "not stored" not in stored, "run `make figures`"
    assert "measure different worlds" in stored and stored.count("\n## Table") == len(mirror.MIRROR) + 1


def test_the_papers_own_system_stands_beside_the_papers_schedule() -> None:
    """Where both were run, the kit's recipe never takes its place; and no printed row is dropped in silence."""
    page, printed = mirror.OUT.read_text(), load_tables()["tables"]
    for key, row in (("1", "MMedAgent-RL-7B"), ("2", "full"), ("9", "MMedAgent-RL"), ("12", "+ curriculum RL")):
        assert next(system for name, _, system, _ in mirror.MIRROR[key][1] if name == row) == "paper_schedule"
    for key in mirror.MIRROR:
        (part,) = (part for part in page.split("\n## ") if part.startswith(f"Table {key}:"))
        assert all(row in part for row in printed[key]["rows"]) and ", n = " in part
