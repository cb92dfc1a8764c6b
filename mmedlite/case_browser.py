"""One training case at a time: what the attending was shown, and what it answered and earned at each visit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mmedlite.cases import Case
from mmedlite.curriculum import bucket
from mmedlite.plots import show
from mmedlite.profiles import InputError
from mmedlite.run import Run
from mmedlite.widgets import case_cards, show_table


class Asked(NamedTuple):
    """What the attending is shown of a case."""

    case: Case
    department: str
    panel: np.ndarray  # (3,) int, options; -1 is no answer


def asked(run: Run, panel: str) -> dict[str, Asked]:
    """The training cases of a run by their id, with the department consulted and the panel's answers."""
    rows = zip(run.cases("train"), run.routes("train"), run.panel("train", panel), strict=True)
    return {case.case_id: Asked(case, department, options) for case, department, options in rows}


def lines_of(seen: Asked) -> list[str]:
    """A case in words: question, department, what each specialist said and whether it was right, answer, bucket."""
    case, words = seen.case, [*seen.case.options, "no answer"]
    said = [f"{words[o]} ({'right' if o == case.answer else 'wrong'})" for o in seen.panel]
    level = bucket(seen.panel[None], np.array([case.answer]))[0]
    return [case.question, f"{seen.department}: " + " | ".join(said), f"right: {case.answer_text}", f"bucket: {level}"]


def visited(rollouts: Sequence[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Rollouts of a training by case, cases in the order of their first visit.

    Raises:
        InputError: there are none.
    """
    if not rollouts:
        raise InputError("no rollouts of this training are stored in the run", "case_browser", "train it: they are kept beside it")
    return {str(case_id): group for case_id, group in pd.DataFrame(rollouts).groupby("case_id", sort=False)}


def first_lesson(visits: dict[str, pd.DataFrame], cases: dict[str, Asked]) -> int:
    """The first case on which the whole panel was wrong and some answers earned more than others, else the first case: its index."""
    hard = (not (seen.panel == seen.case.answer).any() for seen in map(cases.__getitem__, visits))
    spread = (rows["advantage"].abs().max() > 0 for rows in visits.values())
    return next((i for i, both in enumerate(zip(hard, spread, strict=True)) if all(both)), 0)


def browse(run: Run, panel: str, rollouts: Sequence[dict[str, Any]]) -> None:
    """A slider over the cases that a training visited: picture, question and panel, and the rollouts of each visit with their rewards.

    Args:
        rollouts: rows of rollouts.jsonl of that training, as :func:`live.recorded` reads them.

    Raises:
        InputError: no rollouts are given.
    """
    import ipywidgets

    visits, cases = visited(rollouts), asked(run, panel)

    def shown(case: int) -> None:
        case_id, rows = [*visits.items()][case - 1]
        show(*case_cards([run.table.open_image(cases[case_id].case)], [case_id], [lines_of(cases[case_id])]))
        columns = ["stage", "step", "text", "format", "accuracy", "advantage"]
        show_table(rows.assign(step=rows["step"] + 1)[columns], f"Case {case} of {len(visits)}: its rollouts.", index=False)

    shown(first := first_lesson(visits, cases) + 1)
    ipywidgets.interact(shown, case=ipywidgets.IntSlider(value=first, min=1, max=len(visits), continuous_update=False))
