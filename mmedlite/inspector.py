"""Look into the store: one answer with its case, its request, its raw text, the option read from it, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mmedlite.cases import Case
from mmedlite.widgets import show_table

WHY = {
    None: "it stands in the answer's place, or is the only option named", "no_mark": "no option is marked as the answer",
    "unclosed_think": "the reasoning does not end", "no_option": "what is marked is no option", "ambiguous": "several options are marked",
    "negated": "the option is denied", "empty": "no words stand where the answer should be", "truncated": "it ends at the token limit",
    "content_filter": "it was withheld", "unfinished": "the server did not call it finished",
}  # fmt: skip


def opinion_table(opinion: Mapping[str, Any], case: Case) -> pd.DataFrame:
    """One stored opinion as a table of two columns, what and value."""
    request = opinion["request"]
    option = opinion["option"]
    read = "none" if option is None else f"{option}: {case.options[option]}"
    why = WHY.get(opinion["reason"], opinion["reason"])
    facts = {
        "question": case.question, "options": ", ".join(case.options), "right answer": case.answer_text, "case": case.case_id,
        "panel": f"{opinion['panel']}, {opinion['department']}, sample {request['sample_index']}", "model": request["model"],
        "raw text": opinion["response"], "parsed option": read, "why": why, "right": "no" if option != case.answer else "yes",
        "finish reason": opinion["finish_reason"] or "not told", "asked at": f"{pd.Timestamp(opinion['time'], unit='s'):%Y-%m-%d %H:%M} UTC",
        "key": opinion["key"],
    }  # fmt: skip
    return pd.DataFrame({"value": {name: str(value) for name, value in facts.items()}})


def inspect_opinions(opinions: Sequence[Mapping[str, Any]], cases: Mapping[str, Case]) -> None:
    """Choose an opinion, see all that is stored of it; cases: by case_id."""
    import ipywidgets

    def show(opinion: int) -> None:
        show_table(opinion_table(opinions[opinion], cases[opinions[opinion]["case_id"]]), "One stored answer.")

    show(0)
    options = [(f"{i + 1} of {len(opinions)}", i) for i in range(len(opinions))]
    choose = ipywidgets.SelectionSlider(options=options, description="answer")  # a Dropdown's arrow keys are JupyterLab's own
    ipywidgets.interact(show, opinion=choose)
