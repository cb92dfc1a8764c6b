"""Does each stored row follow from its text, its case and its panel? What a row says of itself is not believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import pandas as pd

from mmedlite.advantages import advantages
from mmedlite.answers import parse_lenient, parse_strict
from mmedlite.asks import Ask, Form
from mmedlite.cases import CaseTable
from mmedlite.evaluation import PANEL, panel_columns
from mmedlite.opinions import request_key
from mmedlite.profiles import DEPARTMENTS
from mmedlite.rewards import reward_parts
from mmedlite.run_folder import groups_of
from mmedlite.store import OpinionStore

PICKERS = ("majority_vote", "best_single", "ideal_reader")  # systems that pick an option without writing a text
Panels = Callable[[str, str, str], list[int] | None]  # panel, case_id, department -> the three options, -1 for none


def panels_of(opinions: OpinionStore, form: Form, table: CaseTable) -> Panels:
    """What each panel of specialists who are asked in that form said of a case; None where not all opinions are there.

    An opinion is found by its request, as in ``specialists.fetch``: two cases with one picture and one question share it.
    """

    @cache
    def options(panel: str, case_id: str, department: str) -> list[int] | None:
        keys = [request_key(form.request(Ask(table.by_id(case_id), department, panel, i))) for i in PANEL]
        said = [opinions.get(key) or opinions.failure(key) for key in keys]
        return None if None in said else [-1 if o is None or o["option"] is None else int(o["option"]) for o in said]

    return options


_by_panel = cache(panel_columns)  # few panels are distinct


def wrong_rows(rows: pd.DataFrame, table: CaseTable, where: str, panels: Panels | None = None) -> list[str]:
    """Problems with Result rows: a text that says something else than the row, a verdict, case or panel that does not agree.

    panels: see :func:`panels_of`; without it the columns about the panel are not checked.
    """
    problems, cases, seats = [], {case.case_id: case for case in table}, set(PANEL)
    read = cache(parse_strict)  # most answers are the same few
    columns = {name: rows[name].tolist() for name in rows}  # several times as fast as rows.to_dict
    for number, values in enumerate(zip(*columns.values(), strict=True), start=1):
        row = dict(zip(columns, values, strict=True))
        at, case = f"{where}, row {number} ({row['case_id']})", cases.get(row["case_id"])
        if case is None:
            problems.append(f"{at}: no such case in the table")
            continue
        if row["system"] not in PICKERS:
            parsed = read(row["text"], case.options).option
            named = -1 if parsed is None else parsed
            if named != row["option"]:
                problems.append(f"{at}: the text says option {named}, the row says {row['option']}")
        if bool(row["correct"]) != (row["option"] == row["answer"]):
            problems.append(f"{at}: marked {'right' if row['correct'] else 'wrong'}, option {row['option']}, answer {row['answer']}")
        votes = [] if panels is None else panels(row["panel"], row["case_id"], row["department"])
        if votes is None:
            problems.append(f"{at}: no opinions of the {row['panel']} panel of the {row['department']} are stored")
            continue
        facts = {
            "answer": case.answer, "n_options": len(case.options), "image_sha256": case.image_sha256s[0], "split": case.split,
            "question_type": case.question_type,
        }  # fmt: skip
        by_panel = _by_panel(tuple(votes), case.answer) if votes else {}
        for whose, expected in (("table", facts), ("panel", by_panel)):
            problems += [
                f"{at}: {name} is {row[name]!r}, by the {whose} it is {value!r}" for name, value in expected.items() if row[name] != value
            ]
        if votes and row["system"] == "majority_vote" and row["option"] != by_panel["panel_vote"]:
            problems.append(f"{at}: the vote is {row['option']}, by the panel it is {by_panel['panel_vote']}")
        if votes and row["system"] == "best_single":
            seats &= {i for i in PANEL if votes[i] == row["option"]}
            if not seats:
                return [*problems, f"{at}: its answers so far are those of no single specialist of the panel"]
    return problems


def wrong_place(rows: pd.DataFrame, table: CaseTable, name: str, limit: int | None = None) -> list[str]:
    """Problems with a table of test rows as a whole: ``name`` is results/<panel>/<place>/<system>.parquet in a run folder.

    limit: how many cases of a split the profile answers (0: all); None allows any number of the first ones.
    """
    panel, place, system = name.removesuffix(".parquet").split("/")[-3:]
    if place not in ("test", "test_sampled", "shifted"):  # validation rows are named after stages
        return []
    split = place.removesuffix("_sampled")
    expected = {"system": {system}, "panel": {panel}, "split": {split}}
    problems = [f"{name}: {c} is {set(rows[c])}, not {want}" for c, want in expected.items() if set(rows[c]) != want]
    count = len(rows) if limit is None else limit or None
    if rows["case_id"].tolist() != [c.case_id for c in table.split(split)][:count]:
        problems.append(f"{name}: the cases are not those of the split '{split}', each once and in its order")
    return problems


def wrong_sweep(sweep: pd.DataFrame, untrained: pd.DataFrame, name: str) -> list[str]:
    """Problems with a bias sweep: other cases than the untrained policy's unanimous ones, or another panel. Its verdicts come from
    scores that are not stored, and cannot be checked."""
    united = untrained[untrained["unanimous"]]
    wanted = pd.DataFrame({
        "case_id": united["case_id"], "image_sha256": united["image_sha256"], "panel_right": united["panel_vote"] == united["answer"]
    }).reset_index(drop=True)  # fmt: skip
    parts = (part[list(wanted)].reset_index(drop=True) for _, part in sweep.groupby("bias"))
    return [] if all(part.equals(wanted) for part in parts) else [f"{name}: its cases or panels are not those of untrained_panel"]


def wrong_routes(rows: pd.DataFrame, table: CaseTable, where: str) -> list[str]:
    """Problems with rows of triage: a verdict that does not follow from where the case was sent, cases that are left out."""
    specialty = {case.case_id: case.specialty for case in table}
    wrong = rows[(rows["department"] == rows["case_id"].map(specialty)) != rows["correct"]]
    told = zip(wrong.index, wrong["case_id"], wrong["correct"], wrong["department"], strict=True)
    problems = [f"{where}, row {n + 1} ({case}): marked {'right' if said else 'wrong'}, sent to {sent!r}" for n, case, said, sent in told]
    known = [c.case_id for c in table.split("test") if c.specialty]
    for system, part in rows.groupby("system"):
        if part["case_id"].tolist() != known[: rows["case_id"].nunique()]:
            problems.append(f"{where}: the cases of '{system}' are not the test cases with a department, each once and in their order")
    return problems


def wrong_rollouts(rows: pd.DataFrame, table: CaseTable, where: str) -> list[str]:
    """Problems with stored rollouts, whole groups one behind the other: a reward that the text does not earn, an advantage that is not
    what the rewards of its group give. Where another reward was paid (``random_reward``) the rows cannot tell the advantages."""
    problems, cases = [], {case.case_id: case for case in table}
    earn = cache(reward_parts)
    for number, row in enumerate(rows.to_dict("records"), start=1):
        at, case = f"{where}, rollout {number} ({row['case_id']})", cases.get(row["case_id"])
        if case is None:
            problems.append(f"{at}: no such case in the table")
            continue
        triage = row["stage"] == "triage"
        earned = earn(row["text"], *((DEPARTMENTS, DEPARTMENTS.index(str(case.specialty))) if triage else (case.options, case.answer)))
        wrong_parts = [part for part in ("format", "accuracy") if row[part] != earned[part]]
        problems += [f"{at}: {part} is {row[part]}, the text earns {earned[part]}" for part in wrong_parts]
    if problems or "random_reward" in where:
        return problems
    reward = rows["format"] + rows["accuracy"]
    again = reward.groupby(groups_of(rows)).transform(lambda group: advantages(group.to_numpy()))
    wrong = rows.assign(again=again)[~((again - rows["advantage"]).abs() <= 1e-3)]  # nan is wrong too
    return [f"{where}, rollout {n + 1} ({row.case_id}): advantage is {row.advantage}, by its group {row.again:.4f}" for n, row in
            zip(wrong.index, wrong.itertuples(), strict=True)]  # fmt: skip


def wrong_opinions(opinions: Iterable[Mapping[str, Any]], table: CaseTable, where: str) -> list[str]:
    """Problems with stored opinions: a response that, parsed again, names another option, a case that is not in the table, a key that
    is not the hash of the request."""
    problems, options = [], {case.case_id: case.options for case in table}
    read = cache(parse_lenient)
    for number, row in enumerate(opinions, start=1):
        at, given = f"{where}, opinion {number} ({row['case_id']}, {row['request']['model']})", options.get(row["case_id"])
        if given is None:
            problems.append(f"{at}: no such case in the table")
        elif (said := read(row["response"], given).option) != row["option"]:
            problems.append(f"{at}: the response says option {said}, the row says {row['option']}")
        if row["key"] != request_key(row["request"]):
            problems.append(f"{at}: the key is not the hash of the request")
    return problems
