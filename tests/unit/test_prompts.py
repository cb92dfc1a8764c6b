"""The prompts: the parts in their stated order, nothing of the answer, one form for all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmedlite.cases import Case
from mmedlite.profiles import DEPARTMENTS
from mmedlite.prompts import (
    ALONE_ROLE,
    FIXED_LINES,
    FORM,
    PANEL_ROLE,
    SPECIALIST_ROLES,
    TRIAGE_QUESTION,
    TRIAGE_ROLE,
    attending_prompt,
    message,
    specialist_prompt,
    triage_prompt,
)

OPTIONS = ("nodule", "mass", "normal")
CASE = Case("c", "toy", "train", ("a",), ("0",), "Which finding?", OPTIONS, 1, "X-ray", "Radiologist", "choice", "CC0")


def test_the_wording_of_the_panel_does_not_tell_who_is_right() -> None:
    """Options alone are shown, in one fixed sentence: the prompt is the same whichever of them is right."""
    for said in ([0, 0, 0], [2, None, 0], [1, 2, 0]):
        assert len({attending_prompt(replace(CASE, answer=right), "Radiologist", said) for right in range(len(CASE.options))}) == 1


def test_attending_prompt_states_the_panel_in_order() -> None:
    assert attending_prompt(CASE, "Radiologist", [2, None, 0]).splitlines() == [
        PANEL_ROLE,
        "Answer from Radiologist 1: normal",
        "Answer from Radiologist 2: no answer",
        "Answer from Radiologist 3: nodule",
        "Question: Which finding?",
        "Options: nodule, mass, normal",
        FORM,
    ]


def test_attending_alone_hears_of_no_panel() -> None:
    expected = [ALONE_ROLE, "Question: Which finding?", "Options: nodule, mass, normal", FORM]
    assert attending_prompt(CASE).splitlines() == expected
    assert attending_prompt(CASE, "Radiologist", []).splitlines() == expected


def test_order_of_the_panel_matters() -> None:
    assert attending_prompt(CASE, "Radiologist", [0, 1, 2]) != attending_prompt(CASE, "Radiologist", [2, 1, 0])


def test_triage_prompt_withholds_the_question() -> None:
    assert triage_prompt().splitlines() == [
        TRIAGE_ROLE,
        f"Question: {TRIAGE_QUESTION}",
        f"Options: {', '.join(DEPARTMENTS)}",
        FORM,
    ]


@pytest.mark.parametrize("department", DEPARTMENTS)
def test_specialist_prompt(department: str) -> None:
    lines = specialist_prompt(CASE, department).splitlines()
    assert lines == [SPECIALIST_ROLES[department], "Question: Which finding?", "Options: nodule, mass, normal", FORM]
    assert department in lines[0]


def test_the_form_is_the_one_that_is_rewarded() -> None:
    from mmedlite.rewards import format_ok

    assert format_ok(FORM.partition("in this form: ")[2])


def test_one_picture_before_the_text() -> None:
    assert message("hello") == [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hello"}]}]


def test_fixed_lines_are_all_the_lines_that_never_change() -> None:
    assert len(set(FIXED_LINES)) == len(FIXED_LINES) == 5 + len(DEPARTMENTS)
    prompts = [triage_prompt(), attending_prompt(CASE), attending_prompt(CASE, "Surgeon", [0, 0, 0])]
    prompts += [specialist_prompt(CASE, d) for d in DEPARTMENTS]
    for prompt in prompts:
        varying = ("Question: Which", "Options: ", "Answer from ", f"Question: {TRIAGE_QUESTION}")
        assert all(line in FIXED_LINES or line.startswith(varying) for line in prompt.splitlines())
