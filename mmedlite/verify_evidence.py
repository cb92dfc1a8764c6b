"""Is the stored evidence what the stored answers say, about the cases and panels that they name?

``figures/data`` holds wide tables (a row a panel and case, a column a system) and what was counted from them. Tables of clinic 0 are held
against its case table, the shipped opinions and the reference run's rows; those of the worlds against their own seeds.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmedlite import evidence, looking
from mmedlite.asks import Form
from mmedlite.cases import CaseTable
from mmedlite.evaluation import panel_columns
from mmedlite.rescore import Panels, panels_of
from mmedlite.run_folder import RunFolder
from mmedlite.store import OpinionStore

# What each file is counted from again.
COUNTED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "evidence": evidence.count, "rivals": evidence.rivals, "controls": evidence.controls, "accuracies": evidence.accuracies,
    "looks": looking.count,
}  # fmt: skip
WIDE = ("rivals", "controls", "tables", "looks")


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, leaf) of nested dicts; a list is a leaf."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def numbers_differ(stored: Any, again: Any) -> bool:
    """Are two numbers, or lists of them, apart by more than rounding? Texts are compared as they are."""
    if isinstance(again, str) or isinstance(stored, str) or np.shape(stored) != np.shape(again):
        return bool(stored != again)
    return not np.allclose(np.array(stored, float), np.array(again, float), rtol=0, atol=1e-9, equal_nan=True)  # null in JSON is nan


def apart(stored: Mapping[str, Any], again: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, stored, counted again) of the leaves that differ or that one side lacks."""
    pairs = [(name, stored.get(name, "absent"), again.get(name, "nothing")) for name in {**stored, **again}]
    return [(name, old, new) for name, old, new in pairs if name not in stored or name not in again or numbers_differ(old, new)]


def panels_of_run(run: RunFolder, table: CaseTable, opinions_of: Callable[[Path], OpinionStore] = OpinionStore) -> Panels:
    """What the specialists that the run names said, by the opinions it could read: those shipped, and those it asked itself."""
    made = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    opinions = OpinionStore(run.folder / "opinions", shipped=opinions_of(run.opinions.resolve()))
    return panels_of(opinions, Form(**made["specialists"]), table)


def wrong_counts(folder: Path) -> list[str]:
    """Problems with the counted files: missing, or numbers that the wide tables do not give."""
    problems = []
    for name, count in ((f"{name}.json", count) for name, count in COUNTED.items()):
        try:
            stored, found = dict(leaves(json.loads((folder / name).read_text(encoding="utf-8")))), dict(leaves(count(folder)))
        except Exception as error:  # missing or damaged in any way: said, and the rest is still checked
            problems.append(f"{name}: cannot be counted again ({type(error).__name__}: {error})")
            continue
        problems += [f"{name}, {key}: {old}, counted again {new}" for key, old, new in apart(stored, found)]
    return problems


def wrong_worlds(folder: Path) -> list[str]:
    """Problems with the worlds: another plan, a world under another's name or twice, facts that its seed does not give."""
    files, problems = sorted(folder.glob("*.parquet")), []
    seen = Counter(pd.read_parquet(file, columns=[]).attrs.get("cases_sha256") for file in files)
    for file in files:
        frame = pd.read_parquet(file)
        if frame.attrs.get("plan") != evidence.recipe_sha256():
            problems.append(f"worlds/{file.name}: made by another analysis plan or recipe than those of today")
        if str(frame.attrs.get("seed")) != file.stem or not frame["case_id"].str.startswith(f"phantom-{file.stem}-test-").all():
            problems.append(f"worlds/{file.name}: its cases are those of another world")
        elif seen[frame.attrs.get("cases_sha256")] > 1:
            problems.append(f"worlds/{file.name}: another world has the same cases")
        else:
            problems += [f"worlds/{file.name}, row {n + 1}: not the case that its seed gives" for n in wrong_seeds(frame)]
    return problems


def wrong_seeds(frame: pd.DataFrame) -> list[int]:
    """Rows of a world whose question kind, options or answer are not those that the clinic draws from the case's seed."""
    phantoms = importlib.import_module("data_prep.phantoms")
    wrong = []
    for number, (case_id, options, answer) in enumerate(zip(frame["case_id"], frame["options"], frame["answer"], strict=True)):
        _, world, split, index = case_id.split("-")
        facts = phantoms.sample(int(world) * 10_000_000 + phantoms._FIRST_SEED[split] + int(index), phantoms.DIALS)
        if json.loads(options) != list(facts["options"]) or facts["options"].index(facts["text"]) != answer:
            wrong.append(number)
    return wrong


def wrong_facts(file: Path, table: CaseTable, run: RunFolder, panels: Panels) -> list[str]:
    """Problems with a wide table of clinic 0: facts that are not those of the case or its panel, answers that the reference run has not.

    run: the reference run. panels: what its specialists said.
    """
    frame = pd.read_parquet(file)
    if frame.attrs.get("cases_sha256") != table.sha256:
        return [f"{file.name}: made with another case table"]
    routes, cases = json.loads((run.folder / "routes" / "test.json").read_text(encoding="utf-8")), {c.case_id: c for c in table}
    systems, problems = evidence.systems_of(frame), []
    for number, row in enumerate(frame.to_dict("records"), start=1):
        case = cases[row["case_id"]]
        votes = panels(row["panel"], case.case_id, routes[case.case_id] or "Radiologist") or []
        by_panel = panel_columns(votes, case.answer)
        expected = {"answer": case.answer, "options": json.dumps(case.options), "n_options": len(case.options),
                    "question_type": case.question_type, "marked": case.meta["marked"], **by_panel,
                    "majority_vote": str(by_panel["panel_vote"]),
                    **{f"specialist_{i + 1}": str(v) for i, v in enumerate(votes)}}  # fmt: skip
        problems += [f"{file.name}, row {number} ({case.case_id}): {name} is {row[name]!r}, it should be {value!r}"
                     for name, value in expected.items() if name in row and row[name] != value]  # fmt: skip
    for panel, part in frame.groupby("panel"):
        for name in (s for s in systems if run.has_own_rows(f"{panel}/test/{s}")):
            rows = run.rows(f"{panel}/test/{name}").set_index("case_id").loc[part["case_id"]]
            said = rows["text"] if rows["text"].any() else rows["option"].astype(str)
            if said.tolist() != part[name].tolist():
                problems.append(f"{file.name}, {panel}: the answers of '{name}' are not those of the reference run")
    return problems


def wrong_evidence(folder: Path, table: CaseTable) -> list[str]:
    """Every problem of ``figures/data``; table: the cases of clinic 0."""
    problems = [*wrong_counts(folder), *wrong_worlds(folder / "worlds")]
    run = RunFolder(RunFolder.reference, {"cases_sha256": table.sha256})
    panels = panels_of_run(run, table)
    for file in (folder / f"{name}.parquet" for name in WIDE):
        try:
            problems += wrong_facts(file, table, run, panels) if file.exists() else [f"{file.name}: missing"]
        except Exception as error:
            problems.append(f"{file.name}: cannot be checked ({type(error).__name__}: {error})")
    return problems
