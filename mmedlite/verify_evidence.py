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

from mmedlite import evidence, gain_map, looking, trust
from mmedlite.asks import Form
from mmedlite.baselines import any_correct
from mmedlite.cases import CaseTable
from mmedlite.evaluation import panel_columns
from mmedlite.rescore import Panels, panels_of
from mmedlite.run_folder import RunFolder
from mmedlite.store import OpinionStore
from mmedlite.summary import gain_by_marker

# What each file is counted from again.
COUNTED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "evidence": evidence.count, "rivals": evidence.rivals, "controls": evidence.controls, "accuracies": evidence.accuracies,
    "looks": looking.count, "map": gain_map.count, "trust": trust.count,
}  # fmt: skip
WIDE = {"rivals": None, "controls": None, "tables": None, "looks": looking.CASES, "trust": None}  # test cases of each; None: all


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
    """Problems with the worlds: another plan, an arm missing, a world under another's name or twice, facts that its seed does not give."""
    files, problems = sorted(folder.glob("*.parquet")), []
    told = [pd.read_parquet(file, columns=[]).attrs for file in files]
    seen = Counter(attrs.get("cases_sha256") for attrs in told)
    for file in files:
        frame = pd.read_parquet(file)
        if lacking := [name for name in (*evidence.UNTRAINED, *map("_".join, evidence.ARMS)) if name not in frame]:
            problems.append(f"{folder.name}/{file.name}: without {', '.join(lacking)}, so that a contrast has a world less")
        if frame.attrs.get("plan") != evidence.recipe_sha256():
            problems.append(f"{folder.name}/{file.name}: made by another analysis plan or recipe than those of today")
        if str(frame.attrs.get("seed")) != file.stem or not frame["case_id"].str.startswith(f"phantom-{file.stem}-test-").all():
            problems.append(f"{folder.name}/{file.name}: its cases are those of another world")
        elif seen[frame.attrs.get("cases_sha256")] > 1:
            problems.append(f"{folder.name}/{file.name}: another world has the same cases")
        elif not whole_panels(frame, [f"phantom-{file.stem}-test-{i:05d}" for i in range(evidence.WORLD_TESTED)]):
            problems.append(f"{folder.name}/{file.name}: a panel has not every test case once, in order")
        else:
            problems += [f"{folder.name}/{file.name}, row {n + 1}: not the case that its seed gives" for n in wrong_seeds(frame)]
    models = [attrs.get("policy") for attrs in told]  # of worlds with models of their own
    shipped = json.loads((RunFolder.reference / "run.json").read_text(encoding="utf-8"))["policy"]
    if any(models) and len({*models, shipped, None}) != len(models) + 2:
        problems.append(f"{folder.name}: two worlds share a policy, or one has the shipped policy or names none")
    return problems


def whole_panels(frame: pd.DataFrame, case_ids: list[str]) -> bool:
    """Has every panel each of these cases once, in their order?"""
    return all(part["case_id"].tolist() == case_ids for _, part in frame.groupby("panel"))


def wrong_seeds(frame: pd.DataFrame) -> list[int]:
    """Rows of a world whose kind of question, options or answer are not those that the clinic draws from the case's seed, or whose
    panel is said to be easy, hard, unanimous or right where its other columns say that it is not."""
    phantoms = importlib.import_module("data_prep.phantoms")
    wrong = []
    for number, row in enumerate(frame.to_dict("records")):
        _, world, split, index = row["case_id"].split("-")
        facts = phantoms.sample(int(world) * 10_000_000 + phantoms._FIRST_SEED[split] + int(index), phantoms.DIALS)
        kind, answer = "yes_no" if facts["kind"] in ("present", "side") else "choice", facts["options"].index(facts["text"])
        easy = bool(row["unanimous"]) and row["panel_vote"] == answer
        asked = json.loads(row["options"]) == list(facts["options"]) and row["answer"] == answer and row["question_type"] == kind
        asked &= row["n_options"] == len(facts["options"]) and row["marked"] == facts["marked"]
        asked &= row["majority_vote"] == str(row["panel_vote"])
        if not asked or easy != (row["difficulty"] == "easy") or (row["difficulty"] == "hard" and row["panel_vote"] == answer):
            wrong.append(number)
    return wrong


def wrong_trust(file: Path, run: RunFolder) -> list[str]:
    """Problems with stored probabilities of following the majority: no probability, one without a majority, or far from the answers.

    They cannot be computed without the policies: a policy that gives the majority's option more than half must have answered so, in all
    but a few cases (its greedy text is chosen token by token).
    """
    frame, problems = pd.read_parquet(file), []
    for panel, part in frame.groupby("panel"):
        for column, system in (("p_untrained", "untrained_panel"), ("p_trained", "trained")):
            p, vote = part[column].to_numpy(float), part["panel_vote"].to_numpy()
            if (np.isnan(p) != (vote < 0)).any() or ((p < 0) | (p > 1)).any():
                problems.append(f"{file.name}, {panel}, {column}: no probability, or one without a majority")
            said = run.rows(f"{panel}/test/{system}").set_index("case_id").loc[part["case_id"], "option"].to_numpy()
            if (agree := float(((p > 0.5) == (said == vote))[vote >= 0].mean())) < 0.95:
                problems.append(f"{file.name}, {panel}, {column}: agrees with the stored answers in {agree:.0%} of the cases alone")
    return problems


def wrong_facts(file: Path, table: CaseTable, run: RunFolder, panels: Panels, tested: int | None = None) -> list[str]:
    """Problems with a wide table of clinic 0: cases that are missing, facts that are not those of the case or its panel, answers that the
    reference run has not.

    run: the reference run. panels: what its specialists said. tested: how many of the test cases the table holds; None: all.
    """
    frame = pd.read_parquet(file)
    if frame.attrs.get("cases_sha256") != table.sha256:
        return [f"{file.name}: made with another case table"]
    if not whole_panels(frame, [c.case_id for c in table.split("test")][:tested]):
        return [f"{file.name}: a panel has not every test case once, in order"]
    routes, cases = json.loads((run.folder / "routes" / "test.json").read_text(encoding="utf-8")), {c.case_id: c for c in table}
    systems, problems = evidence.systems_of(frame), []
    for number, row in enumerate(frame.to_dict("records"), start=1):
        case = cases[row["case_id"]]
        votes = panels(row["panel"], case.case_id, routes[case.case_id] or "Radiologist") or []
        by_panel = panel_columns(votes, case.answer)
        expected = {"answer": case.answer, "options": json.dumps(case.options), "n_options": len(case.options),
                    "question_type": case.question_type, "marked": case.meta["marked"], **by_panel,
                    "majority_vote": str(by_panel["panel_vote"]),
                    "any_correct": str(any_correct(np.array([votes]), np.array([case.answer]))[0]) if votes else None,
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


def wrong_marker(file: Path, table: CaseTable, run: RunFolder) -> list[str]:
    """Problems with where the gain lies (``by_marker.json``): numbers that the reference run's rows do not give again."""
    stored = json.loads(file.read_text(encoding="utf-8"))["gain"]
    again = gain_by_marker(run, table, list(stored))
    return [f"{file.name}, {name}: {old}, counted again {new}" for name, old, new in apart(dict(leaves(stored)), dict(leaves(again)))]


def wrong_evidence(folder: Path, table: CaseTable) -> list[str]:
    """Every problem of ``figures/data``; table: the cases of clinic 0."""
    problems = [*wrong_counts(folder), *wrong_worlds(folder / "worlds"), *wrong_worlds(folder / "redrawn")]
    run = RunFolder(RunFolder.reference, {"cases_sha256": table.sha256})
    panels = panels_of_run(run, table)
    said_by: dict[str, tuple[Panels, int | None]] = {name: (panels, tested) for name, tested in WIDE.items()}
    said_by |= {f"map/{cell}": (gain_map.dialled(cell, table), gain_map.CASES) for cell in gain_map.CELLS}
    for file, (of_file, tested) in ((folder / f"{name}.parquet", told) for name, told in said_by.items()):
        try:
            problems += wrong_facts(file, table, run, of_file, tested) if file.exists() else [f"{file.name}: missing"]
            problems += wrong_trust(file, run) if file.name == "trust.parquet" and file.exists() else []
        except Exception as error:
            problems.append(f"{file.name}: cannot be checked ({type(error).__name__}: {error})")
    try:
        problems += wrong_marker(folder / "by_marker.json", table, run)
    except Exception as error:
        problems.append(f"by_marker.json: cannot be checked ({type(error).__name__}: {error})")
    return problems
