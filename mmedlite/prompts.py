"""Every prompt of the kit in one place.

The paper prints only the attending's prompt (Table 4); the others are the kit's choice. All share one form: a role line, the
specialists' answers if any, the question with its options, and the answer format. The tiny tokenizer holds each line of
``FIXED_LINES`` as one token, so that the tiny world reads the same prompts as a large model at a tenth of the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmedlite.cases import Case
from mmedlite.profiles import DEPARTMENTS

FORM = "First think, then answer with exactly one of the options, in this form: <think> your reasoning </think><answer> one option </answer>"
TRIAGE_ROLE = "You are the triage doctor. Choose the department that should see this image."
TRIAGE_QUESTION = "Which department should see this image?"
PANEL_ROLE = (
    "You are the attending physician who coordinates this case. Review the specialists' answers, compare them with the image, "
    "and make the final decision."
)
ALONE_ROLE = "You are the attending physician. Make the final decision from the image."
SPECIALIST_ROLES = {d: f"You are the {d} on call. Answer from the image." for d in DEPARTMENTS}
FIXED_LINES = (FORM, TRIAGE_ROLE, TRIAGE_QUESTION, PANEL_ROLE, ALONE_ROLE, *SPECIALIST_ROLES.values())
NO_ANSWER = "no answer"


def _ask(lines: Sequence[str], question: str, options: Sequence[str]) -> str:
    return "\n".join([*lines, f"Question: {question}", f"Options: {', '.join(options)}", FORM])


def triage_prompt() -> str:
    """Seven departments as options (paper section 3.1). The question text is withheld: the route follows the image."""
    return _ask([TRIAGE_ROLE], TRIAGE_QUESTION, DEPARTMENTS)


def specialist_prompt(case: Case, department: str) -> str:
    """One frozen specialist of ``department``, answering alone (paper section 3.2)."""
    return _ask([SPECIALIST_ROLES[department]], case.question, case.options)


def specialist_template(department: str) -> str:
    """The specialist's prompt before a case is put into it; its hash is part of a request's key."""
    return _ask([SPECIALIST_ROLES[department]], "{question}", ["{options}"])


def attending_prompt(case: Case, department: str | None = None, answers: Sequence[int | None] = ()) -> str:
    """The attending's prompt: each specialist's parsed option in order of sample_index, then question and options.

    With no ``answers`` the attending decides alone (the no-panel baseline). Source: paper Table 4 for the order of the parts.
    """
    if not answers:
        return _ask([ALONE_ROLE], case.question, case.options)
    said = [f"Answer from {department} {i + 1}: {NO_ANSWER if a is None else case.options[a]}" for i, a in enumerate(answers)]
    return _ask([PANEL_ROLE, *said], case.question, case.options)


def message(prompt: str) -> list[dict[str, Any]]:
    """Chat form of a prompt with one image before the text."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
