"""Stored rollouts are scored again from their texts: a reward or an advantage that does not follow is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from figures.artifacts import some_rollouts
from mmedlite import verify as v
from mmedlite.cases import CaseTable
from mmedlite.run_folder import RunFolder
from tests.small import cases_again

NAMES = ("triage", "diverse", "paper_like")
KEPT = RunFolder.reference / "rollouts"


@pytest.fixture(scope="module")
def clinic() -> CaseTable:
    return cases_again(row["case_id"] for name in NAMES for row in stored(name))


def problems(folder: Path, rows: list[dict[str, Any]], table: CaseTable, name: str = "diverse") -> list[str]:
    file = folder / "rollouts" / name / "rollouts.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return v.wrong_files(RunFolder(folder, {"cases_sha256": table.sha256}), table, lambda: pytest.fail("no rows here"))


def stored(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (KEPT / name / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_of_the_reference_run_is_sound(clinic: CaseTable, tmp_path: Path, name: str) -> None:
    rows = stored(name)
    assert len(rows) >= 144 and problems(tmp_path, rows, clinic, name) == []


def another_text(row: dict[str, Any]) -> None:
    row["text"] = row["text"].replace("<answer>", "<answer>not ")


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "accuracy is": lambda row: row.update(accuracy=1 - row["accuracy"]),
    "format is 0.0, the text earns 0.5": lambda row: row.update(format=0.0),
    "advantage is": lambda row: row.update(advantage=row["advantage"] + 0.01),
    "advantage is nan": lambda row: row.update(advantage=None),
    "no such case": lambda row: row.update(case_id="elsewhere"),
    "the text earns": another_text,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("said", CHANGES)
def test_a_change_is_found(clinic: CaseTable, tmp_path: Path, said: str, name: str) -> None:
    rows = stored(name)
    at = next(i for i, row in enumerate(rows) if row["accuracy"] == 1 and i > 20)
    CHANGES[said](rows[at])
    found = problems(tmp_path, rows, clinic, name)
    assert f"rollouts/{name}/rollouts.jsonl, rollout {at + 1} (" in found[0] and said in found[0]


def test_groups_of_one_have_no_advantage(clinic: CaseTable, tmp_path: Path) -> None:
    rows = [row | {"sample_index": 0, "advantage": 99} for row in stored("diverse")]
    assert len(problems(tmp_path, rows, clinic)) == len(rows)


def test_a_line_cut_off_by_a_stop_is_no_problem(clinic: CaseTable, tmp_path: Path) -> None:
    rows = stored("diverse")
    problems(tmp_path, rows, clinic)
    file = tmp_path / "rollouts" / "diverse" / "rollouts.jsonl"
    with file.open("a", encoding="utf-8") as end:
        end.write('{"stage": "hard", "st')
    assert v.wrong_files(RunFolder(tmp_path, {"cases_sha256": clinic.sha256}), clinic, lambda: pytest.fail("no rows here")) == []


def test_of_another_reward_the_advantages_are_not_judged(clinic: CaseTable, tmp_path: Path) -> None:
    rows = stored("diverse")
    rows[0]["advantage"] += 1
    assert problems(tmp_path, rows, clinic, "random_reward") == []
    rows[0]["format"] = 0.25
    assert "format is 0.25" in problems(tmp_path, rows, clinic, "random_reward")[0]


@pytest.mark.parametrize("name", ["case_id", "text", "sample_index"])
def test_damaged_rollouts_are_named_not_raised(clinic: CaseTable, tmp_path: Path, name: str) -> None:
    found = problems(tmp_path, [{k: value for k, value in row.items() if k != name} for row in stored("diverse")], clinic)
    assert found == [f"rollouts/diverse/rollouts.jsonl: cannot be checked (KeyError: '{name}')"]


def test_which_rollouts_are_kept() -> None:
    rows = pd.DataFrame([{"stage": stage, "step": step, "sample_index": i, "group": g} for stage, n in (("easy", 3), ("hard", 42))
                         for step in range(n) for g in range(4) for i in range(2)])  # fmt: skip
    kept = some_rollouts(rows)
    counted = kept.groupby(["stage", "step"], sort=False)["group"].agg(["size", "max"])
    assert counted.to_dict("index") == {
        ("easy", 0): {"size": 4, "max": 1}, ("hard", 0): {"size": 4, "max": 1}, ("hard", 20): {"size": 4, "max": 1},
        ("hard", 40): {"size": 4, "max": 1}, ("hard", 41): {"size": 8, "max": 3},
    }  # fmt: skip
