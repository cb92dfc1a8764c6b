"""The attending's chair: what a policy says of one picture while its finding fades and three doctors say yes, no or nothing.

``probabilities`` asks a policy at every setting; ``page`` puts stored answers of several policies into one HTML page that needs neither
kernel nor network. Between the settings that were asked nothing is guessed: a slider moves from one to the next.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from mmedlite.attending import answer, option_scores
from mmedlite.cases import Case
from mmedlite.run import Run

SAYS = ("yes", "no", "silent")  # what a doctor can say
PANELS = tuple(product(range(len(SAYS)), repeat=3))  # 27 of them; the first doctor's answer changes slowest
CONTRASTS = tuple(range(0, 81, 5))  # of 256; cases of the clinic have 2 to 60
TEMPLATE = Path(__file__).with_name("chair.html")


def panel_options(case: Case) -> np.ndarray:
    """The 27 panels as options of a yes/no case: (27, 3) int, -1 where a doctor is silent."""
    index = [case.options.index(word) if word != "silent" else -1 for word in SAYS]
    return np.array([[index[say] for say in panel] for panel in PANELS])


def probabilities(
    run: Run, model: Any, cases: Sequence[Case], paint: Callable[[Case, int], Image.Image], label: str, contrasts: Sequence[int] = CONTRASTS
) -> np.ndarray:  # fmt: skip
    """Probability of "yes" under a policy, (cases, contrasts, 27) float: after its greedy reasoning, against "no" alone.

    Args:
        cases: yes/no cases. paint(case, contrast): the attending's picture with the finding at that contrast. label: for the progress bar.
    """
    settings = [(case, contrast) for case in cases for contrast in contrasts]
    pictures = {f"{case.case_id} {contrast}": paint(case, contrast) for case, contrast in settings}
    moved = [replace(case, case_id=f"{case.case_id} {contrast}") for case, contrast in settings for _ in PANELS]
    panels = np.concatenate([panel_options(case) for case, _ in settings])  # (n, 3)
    table: Any = SimpleNamespace(open_image=lambda case: pictures[case.case_id])
    asked = (model, run.processor, table, moved, [str(c.specialty) for c in moved], panels)
    texts = answer(*asked, run.profile, label)
    scores = option_scores(*asked, texts, run.profile)
    yes = [row[c.options.index("yes")] - np.logaddexp.reduce(row) for c, row in zip(moved, scores, strict=True)]
    return np.exp(yes).reshape(len(cases), len(contrasts), len(PANELS))


def packed(probabilities: np.ndarray) -> str:
    """Probabilities in steps of 1/255, as base64."""
    return base64.b64encode(np.round(255 * probabilities).astype(np.uint8).tobytes()).decode()


def unpacked(text: str, found: dict[str, Any]) -> np.ndarray:
    """The probabilities of ``packed``, (cases, contrasts, 27) float; ``found`` as ``figures.chair`` stores it."""
    values = np.frombuffer(base64.b64decode(text), np.uint8) / 255
    return values.reshape(len(found["phantoms"]), len(found["contrasts"]), -1)


def page(found: dict[str, Any]) -> str:
    """The page: ``found`` as ``figures.chair`` stores it. One file, no link to elsewhere."""
    return TEMPLATE.read_text(encoding="utf-8").replace("/*FOUND*/", json.dumps(found, separators=(",", ":")).replace("</", "<\\/"))
