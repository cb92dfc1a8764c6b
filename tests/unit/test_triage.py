"""The triage doctor: what it is trained on, how a text becomes a department, how routes are scored."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmedlite import triage
from mmedlite.cases import CaseTable
from mmedlite.models import Answer
from mmedlite.profiles import DEPARTMENTS, InputError, Profile, load_profile
from mmedlite.prompts import triage_prompt
from tests.small import adapter, chance, policy, processor, profile, same, table


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> CaseTable:
    return table(tmp_path_factory.mktemp("clinic") / "table", train=5)


@pytest.fixture
def small(tmp_path: Path) -> Profile:
    return load_profile(profile(tmp_path))


def planned(monkeypatch: pytest.MonkeyPatch, clinic: CaseTable, cases: Any, small: Profile, seed: int = 0) -> list[dict[str, Any]]:
    """The rows that training would get."""
    kept: list[dict[str, Any]] = []
    monkeypatch.setattr(triage, "train", lambda model, tools, rows, *_: kept.extend(rows) or [])
    triage.train_triage(None, processor(), clinic, cases, small, Path("out"), seed)
    return kept


def test_rows_of_the_training(monkeypatch: pytest.MonkeyPatch, clinic: CaseTable, small: Profile) -> None:
    cases = clinic.split("train")
    longer = replace(small, triage=replace(small.triage, steps=6))
    rows = planned(monkeypatch, clinic, cases, longer)
    assert len(rows) == 6 * 2
    counts = Counter(r["case_id"] for r in rows)
    assert set(counts) == {c.case_id for c in cases} and set(counts.values()) == {2, 3}  # whole epochs
    assert {r["case_id"] for r in rows[:5]} == {r["case_id"] for r in rows[5:10]} == set(counts)
    for row in rows:
        case = clinic.by_id(row["case_id"])
        assert row["prompt"] == triage_prompt() and row["options"] == list(DEPARTMENTS)
        assert DEPARTMENTS[row["answer"]] == case.specialty and (row["gamma"], row["kl_weight"]) == (1e-4, 1e-3)
        assert row["image"]().tobytes() == clinic.open_image(case).tobytes()  # the attending's picture, not a specialist's
    again = planned(monkeypatch, clinic, cases, longer)
    other = planned(monkeypatch, clinic, cases, longer, seed=1)
    assert [r["case_id"] for r in again] == [r["case_id"] for r in rows] != [r["case_id"] for r in other]


def test_cases_without_a_department_are_left_out(monkeypatch: pytest.MonkeyPatch, clinic: CaseTable, small: Profile) -> None:
    cases = clinic.split("train")
    mixed = [replace(c, specialty=None) for c in cases[:3]] + cases[3:]
    assert {r["case_id"] for r in planned(monkeypatch, clinic, mixed, small)} == {c.case_id for c in cases[3:]}


def test_no_case_with_a_department(clinic: CaseTable, small: Profile, tmp_path: Path) -> None:
    unknown = [replace(c, specialty=None) for c in clinic.split("train")]
    with pytest.raises(InputError, match="fewer than one update"):
        triage.train_triage(policy(), processor(), clinic, unknown, small, tmp_path, 0)


def test_triage_trains(clinic: CaseTable, small: Profile, tmp_path: Path) -> None:
    model = policy()
    log = triage.train_triage(model, processor(), clinic, clinic.split("train"), small, tmp_path, 0, [chance])
    assert len(log) == 2 and not same(adapter(model), adapter(policy()))
    seen = [json.loads(line)["case_id"] for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert len(seen) == 2 * 2 * 2 and all(clinic.by_id(name).split == "train" for name in seen)
    assert len(triage.route(model, processor(), clinic, clinic.split("test"), small)) == 6


def test_a_text_becomes_a_department(monkeypatch: pytest.MonkeyPatch, clinic: CaseTable, small: Profile) -> None:
    texts = [
        "<think>PET</think><answer>Oncologist</answer>", "<think>x</think><answer>surgeon</answer>", "Surgeon", "",
        "<think>x</think><answer>Cardiologist</answer>", "<think>unclosed <answer>Surgeon</answer>",
    ]  # fmt: skip
    batches: list[int] = []

    def generate(model: Any, tools: Any, pictures: list[Any], prompts: list[str], tokens: int) -> list[Answer]:
        assert set(prompts) == {triage_prompt()} and tokens == 6
        batches.append(len(pictures))
        return [Answer(texts.pop(0), True) for _ in pictures]

    monkeypatch.setattr(triage, "generate", generate)
    routes = triage.route(None, processor(), clinic, clinic.split("test"), replace(small, eval_batch=4))
    assert routes == ["Oncologist", "Surgeon", None, None, None, None] and batches == [4, 2]
