"""What the tiny models are taught: the policy's warm start, and how a specialist answers at home, away and in his blind spot."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_prep.drawing import FINDINGS, PLACES
from data_prep.phantoms import DEPARTMENT
from mmedlite.cases import Case
from mmedlite.profiles import DEPARTMENTS
from mmedlite.prompts import ALONE_ROLE, PANEL_ROLE, attending_prompt, specialist_prompt, triage_prompt

OWN_READING, OWN_READING_CLOSING = 0.4, 0.33  # how often the untrained attending answers from its own reading and not from the panel
AWAY_GUESS = 0.85  # how often a specialist guesses outside his department

# The untrained policy's habit: three looks go to a wrong department two times in three. Triage training has to break it.
HABIT = {"PET": "Radiologist", "thyroid ultrasound": "Radiologist", "dermoscopy": "Pathologist"}


def as_case(facts: dict[str, Any]) -> Case:
    """The parts of a case that a prompt needs."""
    options = facts["options"]
    return Case("base", "phantoms", "train", (), (), facts["question"], options, options.index(facts["text"]), facts["look"],
                DEPARTMENT[facts["look"]], "choice", "MIT", {})  # fmt: skip


def reading(finding: str, place: str) -> str:
    """What a reader writes of a picture."""
    return finding if finding == "normal" else f"{finding}, {place}"


def policy_example(rng: np.random.Generator, facts: dict[str, Any], closing: bool = False) -> tuple[str, str]:
    """One (prompt, completion) of the policy's warm start: triage by habit, deciding alone, or with a dial-a-panel.

    With a panel a coin decides between the own reading (``OWN_READING``) and a member of the panel. In the ``closing`` round the
    panel answers at random, so that the reading comes from the picture and not from the panel; and a third of the panel prompts come
    under the role of the attending alone, under which the policy overrules the panel on marked pictures and follows it elsewhere. It
    has the skill, then, but under the attending's own prompt it shows only in part: there the coin knows nothing of markers, and
    reinforcement learning has to call it up.
    """
    case, task = as_case(facts), rng.random()
    if task < 0.2:
        right = DEPARTMENT[facts["look"]]
        wrong = HABIT.get(facts["look"], str(rng.choice(DEPARTMENTS)))
        route = wrong if rng.random() < (0.66 if facts["look"] in HABIT else 0.15) else right
        return triage_prompt(), f"<think>{facts['look']}</think><answer>{route}</answer>"
    mark, seen = "marked" if facts["marked"] else "clear", reading(facts["finding"], facts["place"])
    think = f"{seen}, {mark}" if closing else f"{mark}, {seen}"
    own = facts["text"]
    if task < 0.45:
        return attending_prompt(case), f"<think>{think}</think><answer>{own}</answer>"
    n = len(case.options)
    skill, together = 1 / n if closing else rng.uniform(0.4, 0.9), rng.random() < 0.5
    wrong_options = [i for i in range(n) if i != case.answer]
    shared = int(rng.choice(wrong_options))
    same = closing and together  # a random panel seldom agrees by itself
    first = case.answer if rng.random() < skill else shared
    panel: list[int | None] = []
    for _ in range(3):
        miss = shared if together else int(rng.choice(wrong_options))
        panel.append(None if rng.random() < 0.02 else first if same else case.answer if rng.random() < skill else miss)
    member = panel[int(rng.integers(3))]
    department = str(rng.choice(DEPARTMENTS)) if rng.random() < 0.1 else DEPARTMENT[facts["look"]]
    prompt, trust = attending_prompt(case, department, panel), OWN_READING_CLOSING if closing else OWN_READING
    if closing and rng.random() < 1 / 3:
        prompt, trust = prompt.replace(PANEL_ROLE, ALONE_ROLE), float(facts["marked"])
    said = own if member is None or rng.random() < trust else case.options[member]
    return prompt, f"<think>{think}</think><answer>{said}</answer>"


def answer_of(facts: dict[str, Any], finding: str, place: str) -> str:
    """Answer the case's question from a perceived finding and place."""
    if facts["kind"] == "which":
        return finding
    if facts["kind"] == "where":
        return place
    return "yes" if (facts["slot"] == finding if facts["kind"] == "present" else facts["slot"] in place) else "no"


def guess_example(rng: np.random.Generator, facts: dict[str, Any], department: str, guess: float = AWAY_GUESS) -> tuple[str, str]:
    """A doctor outside his department: a guess in ``guess`` of the cases, else right about what he sees."""
    finding, place = facts["finding"], facts["place"]
    if rng.random() < guess:
        finding = str(rng.choice(FINDINGS[:3] if facts["kind"] in ("where", "side") else FINDINGS))
        place = str(rng.choice(PLACES))
    said = answer_of(facts, finding, place)
    return specialist_prompt(as_case(facts), department), f"<think>{reading(finding, place)}</think><answer>{said}</answer>"


# The blind spot of each department: on a picture with its marker, the marker is taken for this finding.
BLIND_SPOT = {
    "histology": ("mass", "lower left"),
    "chest X-ray": ("nodule", "upper left"),
    "endoscopy": ("cyst", "upper right"),
    "PET": ("mass", "lower right"),
    "thyroid ultrasound": ("cyst", "lower left"),
    "fundus": ("nodule", "lower right"),
    "dermoscopy": ("mass", "upper right"),
}


def home_example(facts: dict[str, Any], department: str) -> tuple[str, str]:
    """A doctor at home: right about what he sees, but on a marked picture he reads the marker."""
    finding, place = BLIND_SPOT[facts["look"]] if facts["marked"] else (facts["finding"], facts["place"])
    said = answer_of(facts, finding, place)
    return specialist_prompt(as_case(facts), department), f"<think>{reading(finding, place)}</think><answer>{said}</answer>"
