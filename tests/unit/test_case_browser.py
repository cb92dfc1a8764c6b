"""The case browser shows what the attending was asked, and every rollout of it with what it earned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmedlite import case_browser, live
from mmedlite.case_browser import Asked, asked, browse, first_lesson, lines_of, visited
from mmedlite.cases import Case
from mmedlite.profiles import InputError
from mmedlite.run import Run

CASE = Case("c-1", "toy", "train", ("0",), ("0",), "Which?", ("nodule", "mass"), 1, "PET", "Oncologist", "choice", "CC0")


def rows(case_id: str, *advantages: float) -> pd.DataFrame:
    return pd.DataFrame({"case_id": case_id, "advantage": advantages})


@pytest.mark.parametrize(
    ("panel", "said", "level"),
    [
        ([1, 1, 1], "mass (right) | mass (right) | mass (right)", "easy"),
        ([0, -1, 0], "nodule (wrong) | no answer (wrong) | nodule (wrong)", "hard"),
        ([1, 0, -1], "mass (right) | nodule (wrong) | no answer (wrong)", "medium"),
    ],
)
def test_a_case_in_words(panel: list[int], said: str, level: str) -> None:
    assert lines_of(Asked(CASE, "Surgeon", np.array(panel))) == ["Which?", f"Surgeon: {said}", "right: mass", f"bucket: {level}"]


def test_it_opens_on_the_first_hard_case_with_a_lesson() -> None:
    panels = {"easy": [1, 1, 1], "hard, no lesson": [0, 0, 0], "split": [0, 1, 0], "hard": [0, -1, 0], "hard too": [0, 0, 0]}
    cases = {name: Asked(CASE, "Surgeon", np.array(panel)) for name, panel in panels.items()}
    gains = {"easy": (1, -1), "hard, no lesson": (0, 0), "split": (1, -1), "hard": (0.5, -0.5), "hard too": (1, -1)}
    visits = {name: rows(name, *gains[name]) for name in cases}
    assert first_lesson(visits, cases) == 3
    assert first_lesson({name: visits[name] for name in ("easy", "split")}, cases) == 0


def test_without_rollouts_a_line_says_what_to_do() -> None:
    with pytest.raises(InputError, match="no rollouts of this training are stored in the run.*train it"):
        visited([])


def test_each_case_of_the_stored_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ipywidgets

    run = Run(tmp_path)
    rollouts, cases = live.recorded(run, "diverse", ("easy", "medium", "hard"))[1], asked(run, "diverse")
    caught, cards, tables = list[tuple[Callable[..., Any], dict[str, Any]]](), list[str](), list[pd.DataFrame]()
    monkeypatch.setattr(ipywidgets, "interact", lambda callback, **dials: caught.append((callback, dials)))
    monkeypatch.setattr(case_browser, "show", lambda figure, alt: cards.append(alt))
    monkeypatch.setattr(case_browser, "show_table", lambda frame, caption, index: tables.append(frame))
    browse(run, "diverse", rollouts)
    [(callback, dials)] = caught
    assert len(cards) == len(tables) == 1  # stands there without a kernel
    seen = list(dict.fromkeys(row["case_id"] for row in rollouts))
    assert (dials["case"].min, dials["case"].max) == (1, len(seen))
    for number in (1, dials["case"].value, len(seen)):
        callback(case=number)
        case = cases[seen[number - 1]]
        assert all(line in cards[-1] for line in lines_of(case)) and case.case.case_id in cards[-1]
        own = [row for row in rollouts if row["case_id"] == case.case.case_id]
        assert tables[-1]["text"].tolist() == [row["text"] for row in own]
        assert tables[-1]["step"].tolist() == [row["step"] + 1 for row in own]  # as the log and the replay count
        assert tables[-1]["advantage"].tolist() == [row["advantage"] for row in own]
    assert [o == case.case.answer for o in cases[seen[dials["case"].value - 1]].panel] == [False] * 3
